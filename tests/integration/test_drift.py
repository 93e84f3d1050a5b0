"""Tests which days get drift figures, and compares the figures with those that pandas computes."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from tests.support.servers import rows
from tool.database import Unavailable, connect
from tool.database.drift import DriftTables
from tool.drift import Drift
from tool.model_client import Declaration, Model
from wire.alarms import Policy
from wire.drift import Band, Channel, Expected, Reference, psi
from wire.tables import TABLES, AlarmRow, PredictionRow, ReadingRow

START = datetime.fromisoformat("2020-01-01")
STAYS, DAYS = 40, 4
PARTS = 2


def expected(value: float, low: float, high: float) -> Expected:
    return Expected(value, (Band(30, low, high),))


REFERENCE = Reference(
    {
        "heart_rate": Channel(
            (70.0, 90.0),
            (0.2, 0.5, 0.3),
            expected(24.0, 20.0, 28.0),
            expected(1.0, 0.9, 1.0),
            expected(0.0, 0.0, 0.5),
        )
    },
    expected(0.2, 0.1, 0.3),
    "died",
    48.0,
)


class Declared:
    """A stub of the subscriber. It returns the declaration of one model, once."""

    def __init__(self, reference: Reference | None) -> None:
        self._declaration: Declaration | None = Declaration(
            Model("risk", "1", [], alarm=Policy(at=0.3), reference=reference)
        )

    def changed(self) -> Declaration | None:
        declaration, self._declaration = self._declaration, None
        return declaration


class Ward:
    """A database with hourly readings. The test moves the positions of its partitions."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = connect(url)
        draw = np.random.default_rng(2)
        hours = np.repeat(np.arange(DAYS * 24 + 1), STAYS)
        self.readings = pd.DataFrame(
            {
                "seq": np.arange(1, len(hours) + 1),
                "pat_id": np.tile(np.arange(STAYS), DAYS * 24 + 1),
                "at": [START + timedelta(hours=int(hour)) for hour in hours],
                "value": draw.normal(82, 14, len(hours)),
            }
        )
        session = self.database.session
        stored = [
            (seq, pat_id, f"{at:%Y-%m-%d %H:%M:%S}", value)
            for seq, pat_id, at, value in self.readings.itertuples(index=False)
        ]
        day = "2020-01-01"
        with session.transaction() as cursor:
            session.insert(
                cursor,
                "readings",
                [
                    ReadingRow("s", seq, pat_id, day, at, "heart_rate", value)
                    for seq, pat_id, at, value in stored
                ],
            )
            session.insert(
                cursor,
                "predictions",
                [
                    PredictionRow(
                        *("s", seq, "risk", "1", pat_id, day, at, "{}", pat_id / 100, None, day)
                    )
                    for seq, pat_id, at, _ in stored
                ],
            )

    def run(self, statement: str, *values: object) -> None:
        with self.database.session.transaction() as cursor:
            self.database.session.execute(cursor, statement, values)

    def commit(self, part: int, day: float, at: str = "2026-01-01 00:00:00") -> None:
        """Moves the position of a partition to the end of the first `day` days, and marks the
        alarms up to there as computed.
        """
        seq = int(day * 24 * STAYS) - part
        self.compute_alarms(part, seq)
        self.run("DELETE FROM positions WHERE part = ?", part)
        self.run("INSERT INTO positions VALUES ('s', ?, ?, ?, ?, NULL)", part, seq, seq, at)

    def compute_alarms(self, part: int, seq: int) -> None:
        """Marks the alarms of a partition as computed up to message `seq`."""
        self.run("DELETE FROM alarm_positions WHERE part = ?", part)
        statement = "INSERT INTO alarm_positions (stream, part, model, version, seq)"
        self.run(f"{statement} VALUES ('s', ?, 'risk', '1', ?)", part, seq)

    def task(self, reference: Reference | None = REFERENCE) -> Drift:
        return Drift(DriftTables(self.database.session), Declared(reference))  # type: ignore[arg-type]

    def days(self) -> list[str]:
        return [str(day) for (day,) in rows(self.url, "SELECT DISTINCT day FROM drift ORDER BY 1")]

    def figures(self) -> dict[tuple[str, str], tuple[object, ...]]:
        found = rows(self.url, "SELECT day, figure, stays, value, low, high FROM drift")
        return {(str(day), figure): tuple(rest) for day, figure, *rest in found}


@pytest.fixture
def ward(with_tables: Callable[[str], str]) -> Ward:
    return Ward(with_tables("sqlite"))


def test_figures_of_complete_days_equal_those_of_pandas(url: str) -> None:
    ward = Ward(url)
    for part in range(PARTS):
        ward.commit(part, 3.5)
    ward.task().update()
    assert ward.days() == ["2020-01-01", "2020-01-02", "2020-01-03"]
    found = ward.figures()
    day = ward.readings[ward.readings["at"].dt.day == 2]
    shares = np.bincount(np.searchsorted([70.0, 90.0], day["value"]), minlength=3) / len(day)
    assert found["2020-01-02", "volume"] == (STAYS, 24.0, 20.0, 28.0)
    assert found["2020-01-02", "known"] == (STAYS, 1.0, 0.9, 1.0)
    n, value, *band = found["2020-01-02", "psi"]
    assert (n, band) == (STAYS, [0.0, 0.5])
    assert value == pytest.approx(psi((0.2, 0.5, 0.3), list(shares)))
    assert found["2020-01-02", "risk"][1] == pytest.approx((STAYS - 1) / 200)
    assert found["2020-01-02", "rejected"][1] == 0


def test_alarms_are_counted_per_patient_day(ward: Ward) -> None:
    session = ward.database.session
    second_day = 24 * STAYS
    with session.transaction() as cursor:
        session.insert(
            cursor,
            "alarms",
            [
                AlarmRow(
                    *("s", seq, model, "1", 7, "2020-01-01", kind, seq, "2020-01-02 00:00:00"),
                    *(0.4, 1, None),
                )
                for seq, model, kind in (
                    (second_day, "risk", "raise"),  # the last message of the first day
                    (second_day + 1, "risk", "raise"),
                    (second_day + 2, "risk", "again"),
                    (second_day + 3, "risk", "clear"),
                    (second_day + 4, "other", "raise"),
                )
            ],
        )
    for part in range(PARTS):
        ward.commit(part, 3.5)
    ward.task().update()
    # Each stay has readings from 0:00 to 23:00.
    patient_days = STAYS * 23 / 24
    found = ward.figures()
    assert found["2020-01-01", "alarms"] == (STAYS, pytest.approx(1 / patient_days), None, None)
    assert found["2020-01-02", "alarms"] == (STAYS, pytest.approx(2 / patient_days), None, None)


def test_a_day_has_no_figures_until_all_partitions_have_stored_it(ward: Ward) -> None:
    ward.commit(0, 3.5)
    ward.commit(1, 1.5)
    task = ward.task()
    task.update()
    assert ward.days() == ["2020-01-01"]
    ward.commit(1, 2.5)
    task.update()
    assert ward.days() == ["2020-01-01", "2020-01-02"]


def test_a_day_has_no_figures_until_its_alarms_are_computed(ward: Ward) -> None:
    for part in range(PARTS):
        ward.commit(part, 3.5)
    ward.compute_alarms(1, int(1.5 * 24 * STAYS))
    task = ward.task()
    task.update()
    assert ward.days() == ["2020-01-01"]
    ward.compute_alarms(1, int(3.5 * 24 * STAYS))
    task.update()
    assert ward.days()[-1] == "2020-01-03"


def test_an_idle_partition_does_not_delay_the_figures(ward: Ward) -> None:
    ward.commit(0, 3.5, "2026-01-01 02:00:00")
    ward.commit(1, 1.5, "2026-01-01 00:00:00")
    ward.task().update()
    assert ward.days()[-1] == "2020-01-03"


def test_a_restart_gives_the_same_rows(ward: Ward) -> None:
    task = ward.task()
    for day in (1.2, 2.5, 3.1, 4.0):
        for part in range(PARTS):
            ward.commit(part, day)
        task.update()
    whole = ward.figures()
    ward.run("DELETE FROM drift")
    for day in (1.7, 2.5, 2.6, 4.0):
        for part in range(PARTS):
            ward.commit(part, day)
        ward.task().update()
    assert ward.figures() == whole
    assert len(ward.days()) == DAYS - 1


def test_a_restart_does_not_end_an_alert(ward: Ward) -> None:
    # Each day has a mean prediction of .195.
    raised = msgspec.structs.replace(REFERENCE, risk=expected(0.1, 0.0, 0.19))
    for part in range(PARTS):
        ward.commit(part, 2.5)
    ward.task(raised).update()
    wider = msgspec.structs.replace(REFERENCE, risk=expected(0.2, 0.0, 0.3))
    for part in range(PARTS):
        ward.commit(part, 3.5)
    ward.task(wider).update()
    bands = {day: row[2:] for (day, figure), row in ward.figures().items() if figure == "risk"}
    # The second task also computes the second day again. It knows the alert of the first task.
    assert bands == {
        "2020-01-01": (0.0, 0.19),
        "2020-01-02": (0.0, 0.15),
        "2020-01-03": (0.0, 0.15),
    }


class Failing(DriftTables):
    """Tables of which one statement fails, as if the database went away for a moment."""

    def __init__(self, ward: Ward, at: int) -> None:
        super().__init__(ward.database.session)
        self.left = at

    def _rows(self, statement: str, *values: object) -> list[Any]:
        self.left -= 1
        if self.left == 0:
            raise Unavailable
        return super()._rows(statement, *values)


def test_a_statement_that_fails_changes_no_figure(ward: Ward) -> None:
    """The stream changes halfway. Each day has an alert, which narrows the next day's band."""
    raised = msgspec.structs.replace(REFERENCE, risk=expected(0.1, 0.0, 0.19))
    for table in ("readings", "predictions"):
        others = ", ".join(TABLES[table].__struct_fields__[1:])
        ward.run(f"INSERT INTO {table} SELECT 't', {others} FROM {table} WHERE seq <= 2000")
    found = []
    for at in (0, *range(1, 41, 2)):
        tables = Failing(ward, at)
        task = Drift(tables, Declared(raised))  # type: ignore[arg-type]
        ward.run("DELETE FROM drift")
        ward.run("DELETE FROM positions")
        for stream, seq in (("s", 2500), ("t", 2000)):
            values = (stream, 0, seq, seq, "2026-01-01 00:00:00")
            ward.run("INSERT INTO positions VALUES (?, ?, ?, ?, ?, NULL)", *values)
            ward.compute_alarms(0, 3000)
            ward.run("UPDATE alarm_positions SET stream = ?", stream)
            for _ in range(2):
                with suppress(Unavailable):
                    task.update()
            ward.run("UPDATE positions SET committed_at = '2025-01-01 00:00:00'")
        found.append(rows(ward.url, "SELECT * FROM drift ORDER BY 1, 2, 3, 4, 5, 6"))
    assert tables.left > 0
    assert found == [found[0]] * len(found)
    assert len({row[:2] for row in found[0]}) == 4


def test_an_outcome_is_compared_with_the_last_prediction_of_the_first_48_hours(ward: Ward) -> None:
    for pat_id in range(STAYS):
        died = pat_id % 4 == 0
        statement = "INSERT INTO outcomes VALUES ('s', ?, ?, '2020-01-01', 'died', ?, '2020-01-04')"
        ward.run(statement, 60 + pat_id, pat_id, float(died))
    # The first reading is at 05:00, so the last one of the first 48 hours is at 04:00.
    for table in ("readings", "predictions"):
        ward.run(f"DELETE FROM {table} WHERE measured_at < '2020-01-01 05:00:00'")
    ward.run("UPDATE predictions SET output = 0.9 WHERE measured_at <> '2020-01-03 04:00:00'")
    for part in range(PARTS):
        ward.commit(part, 3.5)
    ward.task().update()
    n, value, low, _ = ward.figures()["2020-01-03", "observed_expected"]
    assert (n, low) == (STAYS, None)
    assert value == pytest.approx(10 / sum(pat_id / 100 for pat_id in range(STAYS)))


def test_an_outcome_of_a_stay_on_the_last_day_of_the_calendar_has_figures_too(ward: Ward) -> None:
    ward.run("UPDATE readings SET measured_at = '9999-12-31 05:00:00' WHERE pat_id = 7")
    ward.run("INSERT INTO outcomes VALUES ('s', 1, 7, '2020-01-01', 'died', 1, '2020-01-04')")
    ward.run("UPDATE predictions SET output = 0.5 WHERE pat_id = 7")
    for part in range(PARTS):
        ward.commit(part, 3.5)
    ward.task().update()
    assert ward.figures()["2020-01-01", "observed_expected"][:2] == (1, 2.0)


def test_without_a_reference_nothing_is_written(ward: Ward) -> None:
    for part in range(PARTS):
        ward.commit(part, 3.5)
    ward.task(None).update()
    assert ward.days() == []
