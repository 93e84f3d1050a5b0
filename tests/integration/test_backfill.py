"""Tests that `tool.backfill` adds the predictions that a version would have if it had always been a
shadow.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from msgspec.structs import astuple

from tests.support.batches import Client, batch, handler_of, message, other, remember
from tests.support.servers import KINDS, rows
from tests.support.waiting import wait_until
from tool.backfill import backfill
from tool.database import PermanentFailure, connect
from tool.database.backfill import BackfillTables
from tool.declarations import model_rows
from tool.model_client import Declaration, Model
from tool.model_server import InvalidRows
from wire.features import Feature

pytestmark = pytest.mark.timeout(120, func_only=True)


def model(version: str, *names: str) -> Model:
    features = [Feature.parse(name, required=name == "spo2__last") for name in names]
    return Model("m", version, [feature.declaration() for feature in features])


CHAMPION = model("1", "age", "heart_rate__last")
SHADOW = model(
    *("2", "age", "heart_rate__mean", "heart_rate__max__6h", "spo2__last", "spo2__age"),
    *("heart_rate__trend__6h", "spo2__count"),
)
# Readings in and out of order, withdrawals of old and new readings, a discharge and a readmission.
SENT = [
    message(80.0, hour=1),
    message(200.0, hour=20),
    message(97.0, parameter="spo2", hour=2),
    other("withdrawal", of=2),
    message(70.0, hour=3),
    message(96.0, parameter="spo2", hour=9),
    message(75.0, hour=8, minute=30, second=0),
    other("discharge", age=63.2, date_discharge="2150-03-01", day="2150-03-01", hour=10),
    message(60.0, hour=11),
    other("admission", age=63.2, day="2150-03-01", hour=12),
    message(66.0, hour=13),
    other("withdrawal", of=6),
    message(67.0, hour=14),
    message(90.0, parameter="unknown", hour=15),
    message(68.0, hour=16, pat_id=18),
]


class Choosy(Client):
    """A model that rejects a request if the heart rate in a row was above 90 in the last 6 h."""

    def predict(self, model: Model, rows: Any) -> list[float]:
        if any(heart_rate(model, row) > 90 for row in rows):
            raise InvalidRows("too fast")
        return super().predict(model, rows)


def heart_rate(model: Model, row: Any) -> float:
    names = [feature["name"] for feature in model.features]
    value: float | None = row[names.index("heart_rate__max__6h")]
    return value or 0.0


class Killed(BaseException):
    """Stands for SIGKILL: no code of the tool handles this exception."""


class Dying(Client):
    """A model whose second request kills the program."""

    def predict(self, model: Model, rows: Any) -> list[float]:
        if self.calls:
            raise Killed
        return super().predict(model, rows)


def store(url: str, declaration: Declaration, size: int, start: int = 0) -> None:
    """Stores SENT, or two later messages if `start` is given, in batches of `size`. The messages
    are numbered from `start` + 1 on.
    """
    with closing(connect(url)) as database:
        remember(database, declaration)
        handler = handler_of(database, declaration)
        sent = SENT if not start else [message(71.0, hour=17), message(95.0, hour=17, pat_id=18)]
        for place in range(0, len(sent), size):
            handler.handle(batch(start + place, *sent[place : place + size]))


def predictions(url: str) -> list[Any]:
    """Each value of the shadow's predictions, except the time of creation. Numbers are rounded,
    because sums in another order differ in the last digits.
    """
    columns = "stream, seq, pat_id, date_admission, measured_at, output, reason"
    values = "SELECT seq, feature, value FROM prediction_features WHERE version = '2'"
    found = rows(url, f"SELECT {columns} FROM predictions WHERE version = '2' ORDER BY seq")
    found += rows(url, f"{values} ORDER BY seq, feature")
    return [[f"{v:.11g}" if isinstance(v, float) else v for v in row] for row in found]


@pytest.fixture(params=KINDS)
def empty(request: pytest.FixtureRequest, with_tables: Callable[[str], str]) -> Callable[[], str]:
    return lambda: with_tables(request.param)


def test_a_backfill_adds_what_a_shadow_would_have_stored(empty: Callable[[], str]) -> None:
    live, late = empty(), empty()
    store(live, Declaration(CHAMPION, [SHADOW]), 1)
    store(late, Declaration(CHAMPION), 4)
    with closing(connect(late)) as database:
        assert backfill(database, Client(), SHADOW) == 10  # type: ignore[arg-type]
        assert backfill(database, Client(), SHADOW) == 0  # type: ignore[arg-type]
    assert predictions(late) == predictions(live)
    made = "SELECT seq, created_at FROM predictions WHERE version = '{}' ORDER BY seq"
    assert rows(late, made.format(2)) == rows(late, made.format(1))
    assert rows(late, "SELECT role, alarm FROM models WHERE version = '2'") == [("retired", None)]


def test_a_backfill_changes_the_time_of_its_model_at_its_end(empty: Callable[[], str]) -> None:
    url = empty()
    store(url, Declaration(CHAMPION, [SHADOW]), 5)
    rows(url, "UPDATE models SET seen_at = '2026-01-01 00:00:00.000'")
    with closing(connect(url)) as database:
        backfill(database, Client(), SHADOW)  # type: ignore[arg-type]
    later = "SELECT version, role FROM models WHERE seen_at > '2026-01-01 00:00:00.000'"
    assert rows(url, later) == [("2", "shadow")]


def test_an_interrupted_backfill_is_completed_by_the_next(
    empty: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tool.backfill.PORTION", 2)
    live, late = empty(), empty()
    store(live, Declaration(CHAMPION, [SHADOW]), 5)
    store(late, Declaration(CHAMPION), 5)
    with closing(connect(late)) as database:
        with pytest.raises(Killed):
            backfill(database, Dying(), SHADOW)  # type: ignore[arg-type]
        some = len(predictions(late))
        assert 0 < some < len(predictions(live))
        # From here on, the version is also a shadow, and the stream continues.
    for url in (live, late):
        store(url, Declaration(CHAMPION, [SHADOW]), 5, start=len(SENT))
    with closing(connect(late)) as database:
        backfill(database, Client(), SHADOW)  # type: ignore[arg-type]
    assert predictions(late) == predictions(live)


def test_a_reading_that_is_withdrawn_during_a_backfill_counts_until_then(
    empty: Callable[[], str],
) -> None:
    live, late = empty(), empty()
    withdrawal = batch(len(SENT) + 2, other("withdrawal", of=len(SENT), pat_id=18))
    for url, shadows in ((live, [SHADOW]), (late, [])):
        for start in (0, len(SENT)):
            store(url, Declaration(CHAMPION, shadows), 5, start)
    with closing(connect(live)) as database:
        handler_of(database, Declaration(CHAMPION)).handle(withdrawal)

    class Meanwhile(Client):
        """A model whose first request comes while the tool stores the withdrawal."""

        def predict(self, model: Model, rows: Any) -> list[float]:
            if not self.calls:
                with closing(connect(late)) as other_database:
                    handler_of(other_database, Declaration(CHAMPION)).handle(withdrawal)
            return super().predict(model, rows)

    with closing(connect(late)) as database:
        backfill(database, Meanwhile(), SHADOW)  # type: ignore[arg-type]
    assert rows(late, "SELECT pat_id FROM withdrawn WHERE of_seq = 15") == [(18,)]
    assert predictions(late) == predictions(live)


def test_the_prediction_of_a_rejected_row_has_the_reason(empty: Callable[[], str]) -> None:
    url = empty()
    store(url, Declaration(CHAMPION), 5)
    with closing(connect(url)) as database:
        backfill(database, Choosy(), SHADOW)  # type: ignore[arg-type]
    found = rows(url, "SELECT seq FROM predictions WHERE reason LIKE '%too fast%' ORDER BY seq")
    fast = rows(
        url,
        "SELECT seq FROM prediction_features"
        " WHERE version = '2' AND feature = 'heart_rate__max__6h' AND value > 90 ORDER BY seq",
    )
    answered = rows(url, "SELECT seq FROM predictions WHERE version = '2' AND output IS NOT NULL")
    assert found
    assert set(found) <= set(fast)
    assert not set(fast) & set(answered)


def test_a_version_with_other_features_than_before_is_an_error(empty: Callable[[], str]) -> None:
    url = empty()
    store(url, Declaration(CHAMPION, [SHADOW]), 5)
    before = predictions(url)
    with closing(connect(url)) as database, pytest.raises(PermanentFailure, match="m 2"):
        backfill(database, Client(), model("2", "age"))  # type: ignore[arg-type]
    assert predictions(url) == before


@pytest.mark.parametrize("kind", ["mysql", "mariadb"])
def test_two_backfills_may_add_the_same_new_model(
    kind: str, with_tables: Callable[[str], str]
) -> None:
    url = with_tables(kind)
    [row] = model_rows(Declaration(SHADOW))
    marks = ", ".join("?" * len(astuple(row)))
    waiting = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    with (
        closing(connect(url)) as first,
        closing(connect(url)) as second,
        ThreadPoolExecutor(1) as pool,
    ):
        with first.session.writing() as cursor:
            first.session.execute(cursor, f"INSERT INTO models VALUES ({marks})", astuple(row))
            added = pool.submit(BackfillTables(second).add_model, row)
            wait_until(lambda: rows(url, waiting) == [(1,)], "the second backfill waits", 30)
        added.result(30)
    assert rows(url, "SELECT model, version FROM models") == [("m", "2")]
