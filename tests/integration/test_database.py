"""Tests the tool's database interface, on SQLite and on a real MySQL server."""

import random
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mysql.connector
import pytest
from msgspec import structs

from embedded.stack import free_port
from tests.support.servers import rows
from tests.support.waiting import wait_until
from tool.database import Changes, Database, Moved, PermanentFailure, Unavailable, connect
from wire.tables import (
    ModelRow,
    PendingRow,
    PositionRow,
    PredictionRow,
    ReadingRow,
    RejectedRow,
    StayRow,
    VitalRow,
)

# The time limit does not include the fixtures (`func_only`), because the server starts slowly.
pytestmark = pytest.mark.timeout(60, func_only=True)

NOW = "2026-01-01 00:00:00.125"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = connect(url)
    yield opened
    opened.close()


def reading(seq: int, value: float = 80.5, **other: Any) -> ReadingRow:
    row = ReadingRow("s", seq, 17, "2150-02-28", "2150-03-01 07:00:00", "heart_rate", value)
    return structs.replace(row, **other)


def vital(n: int, mean: float) -> VitalRow:
    at = "2150-03-01 07:00:00"
    return VitalRow(
        *("s", 17, "2150-02-28", "heart_rate"),
        **dict.fromkeys(("m2", "minimum", "maximum", "first_value", "last_value"), 0.25),
        **dict.fromkeys(("hours_mean", "hours_m2", "covariance", "mean_low"), 0.125),
        n=n,
        mean=mean,
        first_at=at,
        last_at=at,
        seq=n,
    )


def prediction(
    seq: int, output: float | None, reason: str | None, version: str = "1"
) -> PredictionRow:
    place = (17, "2150-02-28", "2150-03-01 07:00:00", "[63.2]")
    return PredictionRow("s", seq, "formula", version, *place, output, reason, NOW)


def stay(discharge: str | None = None, **other: Any) -> StayRow:
    return structs.replace(StayRow("s", 17, "2150-02-28", 63.2, discharge, None, None), **other)


def batch(after: int, last: int, **tables: Any) -> Changes:
    found = Changes("s", 0, after, last, NOW, readings=[reading(last)])
    return replace(found, **tables)


class TestOneTransaction:
    def test_a_batch_is_in_all_tables_or_in_none(self, url: str, database: Database) -> None:
        database.commit(
            batch(
                *(0, 1),
                stays=[stay()],
                vitals=[vital(1, 80.5)],
                predictions=[prediction(1, None, "waiting")],
                pending=[PendingRow("s", 1, "formula", "1")],
            )
        )
        database.commit(
            batch(
                *(1, 2),
                stays=[stay("2150-03-01", identifier="P-0017", place="Bed 4")],
                vitals=[vital(2, 81.5)],
                rejected=[RejectedRow("s", 3, None, "no", "{ 'raw' \\ \U0001f912 \x00", NOW)],
            )
        )
        assert database.position("s", 0) == 2
        assert database.positions() == [PositionRow("s", 0, 2, 0, NOW)]
        assert database.stays("s", [17, 18]) == (
            [stay("2150-03-01", identifier="P-0017", place="Bed 4")],
            [vital(2, 81.5)],
        )
        assert rows(url, "SELECT message FROM rejected") == [("{ 'raw' \\ \U0001f912 \x00",)]
        bad = batch(2, 4, readings=[reading(4), reading(2)], vitals=[vital(9, 0.0)])
        with pytest.raises(PermanentFailure):
            database.commit(bad)
        assert database.position("s", 0) == 2
        assert rows(url, "SELECT seq FROM readings ORDER BY seq") == [(1,), (2,)]
        assert rows(url, "SELECT n FROM vitals") == [(2,)]

    @pytest.mark.parametrize(("after", "last"), [(0, 1), (0, 3), (1, 3), (3, 4)])
    def test_changes_from_another_position_are_not_written(
        self, url: str, database: Database, after: int, last: int
    ) -> None:
        database.commit(batch(0, 1))
        database.commit(batch(1, 2))
        with pytest.raises(Moved):
            database.commit(batch(after, last, readings=[reading(9)]))
        assert database.position("s", 0) == 2
        assert rows(url, "SELECT COUNT(*) FROM readings") == [(2,)]

    def test_the_first_batch_of_a_partition_must_start_at_0(
        self, url: str, database: Database
    ) -> None:
        with pytest.raises(Moved):
            database.commit(batch(1, 2))
        assert rows(url, "SELECT * FROM positions") == []

    def test_one_of_two_workers_stores_a_batch_that_both_commit(self, url: str) -> None:
        outcomes: list[str] = []
        start = threading.Barrier(2)

        def work() -> None:
            own = connect(url)
            for last in range(1, 21):
                start.wait()
                try:
                    own.commit(batch(last - 1, last))
                    outcomes.append("stored")
                except Moved:
                    outcomes.append("moved")
                except Unavailable:
                    outcomes.append("again")
            own.close()

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes.count("stored") == 20
        assert rows(url, "SELECT COUNT(*) FROM readings") == [(20,)]

    @pytest.mark.parametrize(
        "unusable",
        [
            reading(2, value=float("nan")),
            reading(2, parameter=None),
            reading(2, pat_id=2**63),
            reading(2, date_admission=None),
        ],
        ids=["nan", "no parameter", "id beyond 64 bits", "no date"],
    )
    def test_invalid_rows_raise_a_permanent_error(
        self, database: Database, unusable: tuple[Any, ...]
    ) -> None:
        """If these errors were Unavailable, the rows would be retried forever and block all later
        batches.
        """
        database.commit(batch(0, 1))
        with pytest.raises(PermanentFailure):
            database.commit(batch(1, 2, readings=[unusable]))
        assert database.position("s", 0) == 1

    def test_numbers_and_names_are_read_back_unchanged(self, url: str, database: Database) -> None:
        rng = random.Random(1)
        values = [0.1 + 0.2, 1e-310, 5e-324, 1.7976931348623157e308, -0.0, 2.0**53 + 2]
        values += [rng.uniform(-1e3, 1e3) for _ in range(200)]
        values += [rng.random() * 10.0 ** rng.randint(-300, 300) for _ in range(200)]
        names = ["HR", "hr", "Puls ♥", "it's", 'a "b"', "back\\slash", "x" * 64]
        sent = [reading(seq, value) for seq, value in enumerate(values, start=1)]
        sent += [
            reading(1000 + place, parameter=name, pat_id=-(2**63) + place)
            for place, name in enumerate(names)
        ]
        database.commit(batch(0, 2000, readings=sent))
        found = rows(url, "SELECT seq, value FROM readings WHERE seq < 1000 ORDER BY seq")
        assert [value for _, value in found] == values
        found = rows(url, "SELECT parameter, pat_id FROM readings WHERE seq >= 1000 ORDER BY seq")
        assert found == [(name, -(2**63) + place) for place, name in enumerate(names)]

    def test_recent_readings_are_in_order_of_arrival(self, database: Database) -> None:
        hours = (7, 4, 5)
        sent = [
            reading(seq, float(hour), measured_at=f"2150-03-01 {hour:02}:00:00")
            for seq, hour in enumerate(hours, start=1)
        ]
        database.commit(batch(0, 3, readings=sent))
        found = database.recent("s", 17, "2150-02-28", "2150-03-01 05:00:00")
        assert found == [sent[0], sent[2]]


class TestRejectedAndPending:
    def test_completing_the_vitals_keeps_newer_vitals(self, url: str, database: Database) -> None:
        database.commit(batch(0, 2, vitals=[vital(2, 81.5)], complete=True))
        assert database.behind("s") == ({}, [], 0)
        database.commit(batch(2, 5))
        database.commit(replace(batch(0, 6, readings=[reading(6)]), part=1))
        behind = database.behind("s")
        assert behind.positions == {0: 5, 1: 6}
        # The readings begin after the lowest `vitals_seq` of all partitions.
        assert [row.seq for row in behind.readings] == [2, 5, 6]
        # Another worker continued while this one was reading.
        database.commit(batch(5, 7, vitals=[vital(7, 70.0)], complete=True))
        database.catch_up("s", behind, [vital(6, 60.0)])
        assert rows(url, "SELECT n, mean, seq FROM vitals") == [(7, 70.0, 7)]
        assert rows(url, "SELECT part, vitals_seq FROM positions") == [(0, 7), (1, 6)]
        database.catch_up("s", behind._replace(positions={0: 8}), [vital(8, 80.0)])
        assert rows(url, "SELECT n, mean, seq FROM vitals") == [(8, 80.0, 8)]

    def test_vitals_of_an_idle_partition_are_not_behind_by_the_messages_of_others(
        self, database: Database
    ) -> None:
        database.commit(batch(0, 2, complete=True))
        far = 5_000_000
        for part, after in ((1, 0), (0, 2)):  # a new one and an idle one
            database.commit(
                replace(batch(after, far, readings=[reading(far + part)]), part=part, first=far)
            )
        assert [row.seq for row in database.behind("s").readings] == [far, far + 1]

    def test_a_replayed_message_is_removed_from_rejected_once(
        self, url: str, database: Database
    ) -> None:
        row = RejectedRow("s", 1, 17, "100% wrong_reason: x", "{}", NOW)
        database.commit(batch(0, 1, readings=[], rejected=[row]))
        assert database.rejected("100% wrong_") == [row]
        assert database.rejected("100%%") == database.rejected("100_") == []
        assert database.rejected("reason") == []
        again = Changes("s", None, 1, 1, NOW, readings=[reading(1)])
        database.commit(again)
        assert database.rejected("") == []
        with pytest.raises(Moved):
            database.commit(again)
        assert rows(url, "SELECT COUNT(*) FROM readings") == [(1,)]
        assert database.position("s", 0) == 1

    def test_after_a_failed_commit_the_next_one_succeeds(
        self, database: Database, url: str
    ) -> None:
        database.commit(batch(0, 1, readings=[reading(1)]))
        with pytest.raises(PermanentFailure) as failure:
            database.commit(batch(1, 2, readings=[reading(2), reading(1)]))
        # The error still references the failed statement here.
        database.commit(batch(1, 2, readings=[reading(2)]))
        assert failure.value is not None
        assert database.is_stored("s", 2)
        assert not database.is_stored("s", 3)
        assert rows(url, "SELECT COUNT(*) FROM readings") == [(2,)]

    def test_pending_predictions_are_filled_in_oldest_first(self, database: Database) -> None:
        database.remember_models([ModelRow("formula", "1", "champion", "[]", NOW, None)])
        waiting = [prediction(seq, None, "waiting") for seq in (3, 1, 2)]
        pending = [PendingRow("s", seq, "formula", "1") for seq in (3, 1, 2)]
        database.commit(batch(0, 3, predictions=waiting, pending=pending))
        assert database.count("predictions", "s") == 0
        first = database.pending("formula", "1", 2)
        assert [(each.row.seq, each.array) for each in first] == [(1, "[63.2]"), (2, "[63.2]")]
        database.fill_in([structs.replace(each.row, output=0.25, reason=None) for each in first])
        assert [each.row.seq for each in database.pending("formula", "1", 9)] == [3]
        assert database.count("predictions", "s") == 2

    def test_only_answered_predictions_are_removed_from_pending(
        self, url: str, database: Database
    ) -> None:
        for stream in ("s", "t"):
            waiting = [
                structs.replace(prediction(seq, None, "waiting", version), stream=stream)
                for seq in (1, 2)
                for version in ("1", "2")
            ]
            pending = [PendingRow(stream, row.seq, row.model, row.version) for row in waiting]
            database.commit(Changes(stream, 0, 0, 2, NOW, predictions=waiting, pending=pending))
        answers = [
            structs.replace(prediction(seq, 0.25, None, version), stream=stream)
            for stream, version, seq in (("s", "1", 1), ("s", "1", 2), ("t", "1", 2), ("t", "2", 1))
        ]
        database.fill_in(answers)
        assert rows(url, "SELECT stream, version, seq FROM pending ORDER BY 1, 2, 3") == [
            *(("s", "2", 1), ("s", "2", 2), ("t", "1", 1), ("t", "2", 2)),
        ]
        filled = "SELECT stream, version, seq FROM predictions WHERE output = 0.25"
        assert rows(url, f"{filled} ORDER BY 1, 2, 3") == [
            *(("s", "1", 1), ("s", "1", 2), ("t", "1", 2), ("t", "2", 1)),
        ]

    def test_stored_models_are_read_back(self, database: Database) -> None:
        for names in (("a 1 champion", "b 1 shadow"), ("a 1 shadow", "b 2 champion")):
            database.remember_models([ModelRow(*name.split(), "[]", NOW, None) for name in names])
        roles = {(row.model, row.version): row.role for row in database.models()}
        assert roles == {("a", "1"): "shadow", ("b", "1"): "retired", ("b", "2"): "champion"}


class TestUnavailable:
    """Tests that an error whose cause is not in the rows raises Unavailable, and that a later
    commit succeeds.
    """

    def test_rows_that_are_locked_for_too_long_are_an_error(
        self, url: str, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        database.commit(batch(0, 1))
        impatient(database, monkeypatch)
        if url.startswith("sqlite"):
            other: Any = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
        else:
            other = open_mysql(url)
            other.cursor().execute("UPDATE positions SET committed_at = now()")
        with pytest.raises(Unavailable):
            database.commit(batch(1, 2))
        other.rollback()
        other.close()
        database.commit(batch(1, 2))
        assert database.position("s", 0) == 2

    def test_a_missing_server_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable):
            connect(f"mysql://root@127.0.0.1:{free_port()}/tooldb").position("s", 0)
        (tmp_path / "icu.sqlite").mkdir()
        with pytest.raises(Unavailable):
            connect(f"sqlite:///{tmp_path}/icu.sqlite").position("s", 0)

    def test_a_full_disk_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        database = connect(f"sqlite:///{tmp_path}/icu.sqlite")
        database.create_tables()
        database.commit(batch(0, 1))
        with database.session.transaction() as cursor:
            cursor.execute("SELECT 1")
        connection: Any = database.session._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(Unavailable, match="full"):
            database.commit(batch(1, 5000, readings=[reading(seq) for seq in range(2, 5001)]))
        database.commit(batch(1, 5000, readings=[reading(seq) for seq in range(2, 5001)]))
        assert database.position("s", 0) == 5000


@pytest.mark.parametrize("url", ["mysql"], indirect=True)
class TestMySQLAlone:
    def harmed(self, url: str, *statements: str) -> None:
        connection = open_mysql(url)
        for statement in statements:
            connection.cursor().execute(statement)
        connection.close()

    def test_a_killed_connection_is_replaced(self, url: str, database: Database) -> None:
        database.commit(batch(0, 1))
        name = url.rpartition("/")[2]
        [(number,)] = rows(
            url,
            "SELECT MIN(id) FROM information_schema.processlist WHERE db = "
            f"'{name}' AND id <> connection_id()",
        )
        self.harmed(url, f"KILL {number}")
        with pytest.raises(Unavailable):
            database.commit(batch(1, 2))
        database.commit(batch(1, 2))
        assert database.position("s", 0) == 2

    def test_a_batch_of_several_packets_is_stored_as_a_whole_or_not_at_all(
        self, url: str, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tool.database.literals.STATEMENT", 200)
        monkeypatch.setattr("tool.database.mysql.PACKET", 1_000)
        many = [reading(seq) for seq in range(1, 101)]
        with pytest.raises(PermanentFailure):
            database.commit(batch(0, 100, readings=[*many, reading(50)]))
        assert rows(url, "SELECT COUNT(*) FROM readings") == [(0,)]
        database.commit(batch(0, 100, readings=many))
        assert rows(url, "SELECT COUNT(*), SUM(seq) FROM readings") == [(100, 5050)]
        assert database.position("s", 0) == 100

    def test_packets_are_as_small_as_the_server_requires(
        self, url: str, database: Database
    ) -> None:
        [(before,)] = rows(url, "SELECT @@max_allowed_packet")
        # The rows take 4.5 MB, more than the server accepts at once.
        many = [RejectedRow("s", seq, None, "reason", "x" * 1_500, NOW) for seq in range(1, 3_001)]
        try:
            self.harmed(url, "SET GLOBAL max_allowed_packet = 2097152")
            database.create_tables()
            database.commit(batch(0, 3_000, readings=[], rejected=many))
            self.harmed(url, "SET GLOBAL max_allowed_packet = 1048576")
            database.close()
            with pytest.raises(PermanentFailure, match=r"max_allowed_packet.* is 1048576"):
                database.create_tables()
        finally:
            self.harmed(url, f"SET GLOBAL max_allowed_packet = {before}")
        assert rows(url, "SELECT COUNT(*), SUM(seq) FROM rejected") == [(3_000, 4_501_500)]

    def test_a_read_only_server_is_an_error(self, url: str, database: Database) -> None:
        database.commit(batch(0, 1))
        self.harmed(url, "SET GLOBAL super_read_only = 1")
        try:
            with pytest.raises(Unavailable, match="1290"):
                database.commit(batch(1, 2))
        finally:
            self.harmed(url, "SET GLOBAL read_only = 0")
        database.commit(batch(1, 2))

    def test_the_victim_of_a_deadlock_can_retry(self, url: str, database: Database) -> None:
        database.commit(batch(0, 1, vitals=[vital(1, 1.0)]))
        other = open_mysql(url)
        cursor = other.cursor()
        # This transaction is larger than the tool's, so MySQL aborts the tool's.
        cursor.execute("SET SESSION cte_max_recursion_depth = 5000")
        cursor.execute(
            "INSERT INTO pending WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL"
            " SELECT i + 1 FROM n WHERE i < 5000) SELECT 'x', i, 'x', 'x' FROM n"
        )
        cursor.execute("SELECT n FROM vitals FOR UPDATE")
        cursor.fetchall()
        failures: list[Exception] = []

        def commit() -> None:
            try:
                database.commit(batch(1, 2, vitals=[vital(2, 2.0)]))
            except Unavailable as error:
                failures.append(error)

        thread = threading.Thread(target=commit)
        thread.start()
        # The tool's transaction has locked a row in `positions` and waits for a row in `vitals`.
        wait_until(lambda: rows(url, "SELECT COUNT(*) FROM sys.innodb_lock_waits") == [(1,)])
        cursor.execute("SELECT seq FROM positions FOR UPDATE")
        cursor.fetchall()
        thread.join()
        other.rollback()
        other.close()
        assert "1213" in str(failures)
        database.commit(batch(1, 2, vitals=[vital(2, 2.0)]))
        assert database.position("s", 0) == 2


def open_mysql(url: str) -> Any:
    place, _, name = url.rpartition("@")[2].partition("/")
    return mysql.connector.connect(
        host="127.0.0.1", port=int(place.rpartition(":")[2]), user="root", database=name
    )


def impatient(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the database wait for a lock for at most a second (SQLite: 0.2 s)."""
    made = database.session.connect

    def connect_impatiently() -> Any:
        connection: Any = made()
        if isinstance(connection, sqlite3.Connection):
            monkeypatch.setattr("tool.database.sqlite.WAIT", 0.2)
        else:
            connection.cursor().execute("SET SESSION innodb_lock_wait_timeout = 1")
        return connection

    monkeypatch.setattr(database.session, "connect", connect_impatiently)
    database.close()
