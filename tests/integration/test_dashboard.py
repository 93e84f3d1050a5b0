"""Tests the dashboard without a browser: its queries, their cost, and the updates of pages."""

import asyncio
import dataclasses
import json
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import aiohttp
import pandas as pd
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from yarl import URL

from dashboard import (
    columns,
    faults,
    pipeline,
    queries,
    ward,
)
from dashboard.app import create_app
from dashboard.beds import bed_fields, bed_key, listed_fields
from dashboard.database import Database
from dashboard.http_services import PREPARING, Explanation, Health, Models, Services
from dashboard.keys import POLLER
from dashboard.model_info import ModelInfo
from dashboard.notice import NAMES, WAITING
from dashboard.patient import PatientReader
from dashboard.patient_content import patient_content
from dashboard.pipeline import OTHER, RejectedCount, Sample, Throughput, safe_seq
from dashboard.poller import Poller
from dashboard.queue_state import Queues, QueueState
from dashboard.rendering import Pages
from dashboard.rows import ModelKey, Position, StayKey
from dashboard.services import STALL_SECONDS, Board, Observation, Service
from dashboard.settings import Settings
from dashboard.shelf import LIMIT
from dashboard.status import LATE_SECONDS
from dashboard.stay_readings import StayReadings
from dashboard.stream_clock import StreamClock
from dashboard.topic import Content, Topic
from dashboard.views import PatientView, Round, ViewKey, WardView
from dashboard.ward import WardReader
from tests.support import seeded_ward
from tests.support.seeded_ward import MODEL, START, STREAM, VERSION, fill
from wire.settings import DatabaseUrl, HttpUrl, RedisUrl, SecretFile, SettingError, read
from wire.vitals import VITALS

T = TypeVar("T")
KEY = ModelKey(MODEL, VERSION)
INFO = ModelInfo(KEY)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "icu.sqlite"


@pytest.fixture
def made(path: Path) -> Iterator[seeded_ward.Ward]:
    with seeded_ward.ward(path) as found:
        yield found


@pytest.fixture
def reads(path: Path) -> Iterator[Database]:
    with closing(Database(f"sqlite:///{path}")) as found:
        yield found


@contextmanager
def reads_of(made: seeded_ward.Ward) -> Iterator[Database]:
    """A connection without memory of earlier reads."""
    [(_, _, path)] = made.connection.execute("PRAGMA database_list").fetchall()
    with closing(Database(f"sqlite:///{path}")) as found:
        yield found


def read_ward(reads: Database, reader: WardReader, answered: bool = False) -> ward.Ward:
    with reads.snapshot():
        return reader.read(clock_of(reads), KEY, answered)


def clock_of(reads: Database) -> StreamClock:
    now = reads.newest(STREAM, 10**9)
    assert now is not None
    return StreamClock(STREAM, now, ())


def fields_of(found: ward.Ward) -> dict[int, dict[str, Any]]:
    """The fields of each bed, by patient."""
    return {
        bed.stay.key.pat_id: dict(bed_fields(bed, found, INFO, found.signs, ""))
        for bed in found.beds
    }


# The errors of a list have the same cause. Errors of two lists have different causes.
CAUSES = [
    [
        "2003 (HY000): Can't connect to MySQL server on 'db:3306' (111)",
        "1053 (08S01): Server shutdown in progress",
        "2005 (HY000): Unknown MySQL server host 'db' (-2)",
    ],
    ["LOADING Redis is loading the dataset in memory"],
    [
        "1045 (28000): Access denied for user 'a'@'10.0.0.7' (using password: YES)",
        "3118 (HY000): Access denied for user 'a'@'10.0.0.7'. Account is locked.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "1129 (HY000): Host '10.0.0.7' is blocked because of many connection errors",
    ],
    [
        "1142 (42000): SELECT command denied to user 'a'@'10.0.0.7' for table 'stays'",
        "1044 (42000): Access denied for user 'a'@'%' to database 'db'",
        "NOPERM User a has no permissions to run the 'get' command",
    ],
    [
        "database is locked",
        "1205 (HY000): Lock wait timeout exceeded; try restarting transaction",
        "1213 (40001): Deadlock found when trying to get lock; try restarting transaction",
    ],
    [
        "Timeout reading from 10.0.0.7:6379",
        "3024 (HY000): maximum statement execution time exceeded",
    ],
    ["1146 (42S02): Table 'db.stays' doesn't exist", "no such table: stays"],
    ["1054 (42S22): Unknown column 'p.output' in 'field list'", "no such column: p.output"],
    ["anything else"],
]


def test_errors_have_the_same_words_only_if_they_have_the_same_cause() -> None:
    found = [{faults.fault(error) for error in errors} for errors in CAUSES]
    assert [len(words) for words in found] == [1] * len(CAUSES)
    assert len(set.union(*found)) == len(CAUSES)


class TestWard:
    def test_the_ward_matches_the_tables(
        self, made: seeded_ward.Ward, reads: Database, path: Path
    ) -> None:
        fill(made, 9, 30)
        found = read_ward(reads, WardReader(reads))
        with closing(sqlite3.connect(path)) as plain:
            newest = plain.execute("SELECT MAX(measured_at) FROM readings").fetchone()[0]
            assert found.clock.now.isoformat(" ") == newest
            for bed in found.beds:
                for parameter, vital in bed.vitals.items():
                    told = plain.execute(
                        "SELECT value, measured_at FROM readings WHERE pat_id = ? AND parameter = ?"
                        " ORDER BY measured_at DESC LIMIT 1",
                        (bed.stay.key.pat_id, parameter),
                    ).fetchone()
                    assert (vital.value, vital.at.isoformat(" ")) == told
                assert bed.risk is not None
                told = plain.execute(
                    "SELECT output FROM predictions WHERE pat_id = ? ORDER BY seq DESC",
                    (bed.stay.key.pat_id,),
                ).fetchone()
                assert (bed.risk.probability,) == told
        risks = [bed.risk.probability for bed in found.beds if bed.risk]
        assert len(risks) == 9
        assert risks == sorted(risks, reverse=True)

    def test_a_discharged_patient_leaves_the_ward_and_is_listed(
        self, made: seeded_ward.Ward, reads: Database
    ) -> None:
        fill(made, 3, 3)
        reader = WardReader(reads)
        assert {bed.stay.key.pat_id for bed in read_ward(reads, reader).beds} == {1, 2, 3}
        made.execute("UPDATE stays SET date_discharge = '2150-03-02' WHERE pat_id = 2")
        made.commit()
        found = read_ward(reads, reader)
        assert {bed.stay.key.pat_id for bed in found.beds} == {1, 3}
        assert [stay.key.pat_id for stay in found.discharged] == [2]

    def test_an_old_value_is_stale(self, made: seeded_ward.Ward, reads: Database) -> None:
        for pat_id, hours_old in ((1, 0), (2, 2), (3, 3)):
            made.add_stay(pat_id, START)
            made.add_reading(pat_id, START, START + timedelta(hours=9 - hours_old), "spo2", 97.0)
        made.commit()
        found = read_ward(reads, WardReader(reads))
        fields = fields_of(found)
        assert [fields[p]["0.state"] for p in (1, 2, 3)] == ["current", "current", "stale"]
        assert [fields[p]["0.age"] for p in (1, 2, 3)] == [
            "<1 h ago",
            "2 h ago",
            "stale · 3 h ago",
        ]
        assert fields[3]["risk.state"] == "stale"

    @pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
    def test_a_day_at_the_end_of_the_calendar_does_not_fail_the_page(
        self, made: seeded_ward.Ward, reads: Database, day: str
    ) -> None:
        fill(made, 2, 3)
        admitted = datetime.fromisoformat(day)
        made.add_stay(7, admitted)
        for hour in (1, 2):
            at = admitted + timedelta(hours=hour)
            made.add_reading(7, admitted, at, "heart_rate", 80.0)
        made.commit()
        found = read_ward(reads, WardReader(reads))
        [bed] = [bed for bed in found.beds if bed.stay.key.pat_id == 7]
        assert [value for _, value in bed.recent["heart_rate"]] == [80.0, 80.0]
        assert bed.risk is not None
        assert bed.change is None
        assert fields_of(found)[7]["0.value"]

    def test_a_late_reading_does_not_turn_the_clock_back(
        self, made: seeded_ward.Ward, reads: Database
    ) -> None:
        fill(made, 2, 5)
        reader = WardReader(reads)
        before = read_ward(reads, reader)
        made.add_reading(1, START, START - timedelta(hours=3), "heart_rate", 150.0, 0.03)
        made.commit()
        after = read_ward(reads, reader)
        assert after.clock.now == before.clock.now
        values = {b.stay.key.pat_id: b.vitals["heart_rate"].value for b in before.beds}
        assert {b.stay.key.pat_id: b.vitals["heart_rate"].value for b in after.beds} == values

    def test_a_corrected_value_replaces_the_old_one(
        self, made: seeded_ward.Ward, reads: Database
    ) -> None:
        """A correction is a withdrawal and a reading for the same time, in one batch."""
        fill(made, 2, 3)
        ward_reader, key = WardReader(reads), StayKey(1, START.date())
        patient_reader = PatientReader(reads, key)
        read_ward(reads, ward_reader)
        with reads.snapshot():
            patient_reader.read(clock_of(reads), KEY, False)
        at = START + timedelta(hours=2)
        of = (1, "heart_rate", at.isoformat(" "))
        made.execute(
            "DELETE FROM readings WHERE pat_id = ? AND parameter = ? AND measured_at = ?", *of
        )
        made.execute("UPDATE vitals SET n = n - 1 WHERE pat_id = ? AND parameter = ?", *of[:2])
        made.add_reading(1, START, at, "heart_rate", 151.0, 0.87)
        made.commit()
        found = {bed.stay.key: bed for bed in read_ward(reads, ward_reader).beds}
        assert found[key].vitals["heart_rate"].value == 151.0
        assert [point[1] for point in found[key].history][-1] == 0.87
        with reads.snapshot():
            patient = patient_reader.read(clock_of(reads), KEY, False)
        assert patient is not None
        assert patient.readings[-1].value == 151.0

    def test_a_browser_drops_the_points_of_a_withdrawn_reading(
        self, made: seeded_ward.Ward, reads: Database
    ) -> None:
        fill(made, 1, 3)
        view = PatientView(ViewKey(STREAM, StayKey(1, START.date())), reads, Pages())
        browser: dict[str, Any] = {}
        known = [0]

        def show(version: int) -> int:
            """Publishes, applies the changes like patient.js, and returns how many were sent."""
            with reads.snapshot():
                clock = clock_of(reads)
                view.read(Round(0.0, STREAM, {STREAM: clock}, KEY, None, {STREAM: 0}))
            view.publish({"state": "live"}, INFO, version)
            points = dict(view.topic.since(known[0])["set"].get("points", {}))
            if "edition" in points and points["edition"] != browser.get("edition"):
                browser.clear()
            browser.update(points)
            known[0] = view.topic.version
            return len(points)

        show(1)
        seqs = [seq for (seq,) in made.connection.execute("SELECT seq FROM readings ORDER BY seq")]
        assert browser.keys() == {"edition", *map(str, seqs)}
        made.add_reading(1, START, START + timedelta(hours=4), "heart_rate", 70.0)
        made.commit()
        assert show(2) == 1
        made.execute("DELETE FROM readings WHERE seq = ?", seqs[0])
        made.commit()
        show(3)
        assert browser.keys() == {"edition", *map(str, seqs[1:]), str(made.seq)}

    def test_a_patient_has_the_latest_values_before_the_tool_writes_vitals(
        self, made: seeded_ward.Ward, reads: Database
    ) -> None:
        fill(made, 1, 3)
        before = made.connection.execute("SELECT * FROM vitals").fetchall()
        for hour, parameter in ((1, "heart_rate"), (5, "heart_rate"), (4, "spo2"), (4, "spo2")):
            at = START + timedelta(hours=hour)
            made.add_reading(1, START, at, parameter, 60.0 + made.seq)
        made.commit()
        found = []
        for _ in range(2):
            with reads.snapshot():
                reader = PatientReader(reads, StayKey(1, START.date()))
                patient = reader.read(clock_of(reads), KEY, False)
            assert patient is not None
            found.append({name: latest[:4] for name, latest in patient.vitals.items()})
            # Restores the table as it was before the last readings.
            made.execute("DELETE FROM vitals")
            marks = ", ".join("?" * len(before[0]))
            made.connection.executemany(f"INSERT INTO vitals VALUES ({marks})", before)
            made.connection.commit()
        assert found[0] == found[1]
        assert found[0]["heart_rate"][0] == 5

    def test_ages_on_the_patient_page_count_from_readings_that_vitals_lacks(
        self, made: seeded_ward.Ward, reads: Database
    ) -> None:
        late = START + timedelta(hours=5)
        made.add_stay(1, START)
        made.add_reading(1, START, START, "heart_rate", 80.0, 0.25)
        made.commit()
        vitals = made.connection.execute("SELECT * FROM vitals").fetchall()
        made.add_reading(1, START, late, "spo2", 97.0, None)
        made.commit()
        made.execute("DELETE FROM vitals")
        marks = ", ".join("?" * len(vitals[0]))
        made.connection.executemany(f"INSERT INTO vitals VALUES ({marks})", vitals)
        made.connection.commit()
        with reads.snapshot():
            reader = PatientReader(reads, StayKey(1, START.date()))
            patient = reader.read(StreamClock(STREAM, late, (START,)), KEY, False)
        assert patient is not None
        content = patient_content(patient, INFO, {})
        states = {
            fields["label"]: fields["state"]
            for key, fields in content.items()
            if key.startswith("vital:")
        }
        assert states == {VITALS["heart_rate"].label: "stale", VITALS["spo2"].label: "current"}
        assert content["patient"]["risk.state"] == "stale"

    def test_a_pending_prediction_appears_when_it_is_filled_in(
        self, made: seeded_ward.Ward, reads: Database
    ) -> None:
        made.add_stay(1, START)
        seq = made.add_reading(1, START, START, "heart_rate", 80.0, waits=True)
        made.commit()
        reader = WardReader(reads)
        bed = read_ward(reads, reader).beds[0]
        assert (bed.risk, bed.without) == (None, "waiting for the model")
        made.execute("UPDATE predictions SET output = 0.4, reason = NULL WHERE seq = ?", seq)
        made.execute("DELETE FROM pending")
        made.commit()
        bed = read_ward(reads, reader, answered=True).beds[0]
        assert bed.risk is not None
        assert bed.risk.probability == 0.4

    def test_the_change_compares_the_risk_with_that_of_six_hours_before(
        self, made: seeded_ward.Ward, reads: Database
    ) -> None:
        made.add_stay(1, START)
        for hour, risk in ((0, 0.10), (3, 0.20), (4, 0.50), (10, 0.30)):
            made.add_reading(1, START, START + timedelta(hours=hour), "spo2", 97.0, risk)
        made.commit()
        bed = read_ward(reads, WardReader(reads)).beds[0]
        assert bed.change == pytest.approx(0.30 - 0.50)

    def test_the_age_of_a_value_depends_on_the_clock_of_its_partition(
        self, made: seeded_ward.Ward, reads: Database
    ) -> None:
        fill(made, 4, 3)
        with reads.snapshot():
            now = reads.newest(STREAM, 10**9)
            assert now is not None
            behind = StreamClock(STREAM, now + timedelta(hours=5), (now, now + timedelta(hours=5)))
            found = WardReader(reads).read(behind, KEY, False)
        states = {pat_id: fields["0.state"] for pat_id, fields in fields_of(found).items()}
        parts = {pat_id: crc32(str(pat_id).encode()) % 2 for pat_id in states}
        assert set(parts.values()) == {0, 1}
        assert states == {pat_id: "stale" if part else "current" for pat_id, part in parts.items()}


# The queries that every round runs, with their arguments.
LATER = (START + timedelta(days=8)).isoformat(" ")
QUERIES: dict[str, tuple[str, tuple[object, ...]]] = {
    "newest": (queries.NEWEST, (STREAM, 10**9)),
    "ward": (queries.WARD, (STREAM,)),
    "discharged": (queries.DISCHARGED, (STREAM,)),
    "stays_of": (queries.STAYS_OF, (2, STREAM)),
    "vitals_of": (queries.VITALS_OF, (2, f"{START:%Y-%m-%d}", STREAM, *VITALS)),
    "parameters_of": (
        queries.PARAMETERS_OF.format(stays=" OR ".join([queries.STAY_IS] * 2)),
        (STREAM, *(2, f"{START:%Y-%m-%d}"), *(3, f"{START:%Y-%m-%d}")),
    ),
    "others_of": (queries.OTHERS_OF, (2, f"{START:%Y-%m-%d}", STREAM, *VITALS)),
    "outcomes": (queries.OUTCOMES, (STREAM, "death", 500)),
    "first_of": (queries.FIRST_OF, (2, f"{START:%Y-%m-%d}", STREAM)),
    "risk_before": (
        queries.RISK_BEFORE,
        (*KEY, 2, f"{START:%Y-%m-%d}", STREAM, LATER),
    ),
    "answers": (queries.ANSWERS.format(marks="?, ?"), (STREAM, *KEY, 5, 6)),
    "risks": (
        queries.RISKS.format(moments=" OR ".join([queries.MOMENT] * 2)),
        (
            *KEY,
            STREAM,
            *(2, f"{START:%Y-%m-%d}", f"{START}"),
            *(3, f"{START:%Y-%m-%d}", f"{START}"),
        ),
    ),
    "risk": (
        queries.RISK,
        (*KEY, 2, f"{START:%Y-%m-%d}", STREAM, START.isoformat(" ")),
    ),
    "readings": (
        queries.READINGS,
        (*KEY, 2, f"{START:%Y-%m-%d}", START.isoformat(" "), STREAM, 1000),
    ),
    "readings_since": (
        queries.READINGS_SINCE,
        (*KEY, 2, f"{START:%Y-%m-%d}", STREAM, 0),
    ),
    "number_of_readings": (queries.NUMBER_OF_READINGS, (2, f"{START:%Y-%m-%d}", STREAM)),
    "prediction": (queries.PREDICTION, (STREAM, 5, *KEY)),
    "features": (queries.FEATURES, (STREAM, 5, *KEY)),
    "rejected_of": (queries.REJECTED_OF, (2, STREAM)),
    "rejected_after": (queries.REJECTED_AFTER, (STREAM, 10, 20, 5)),
    "rejected_up_to": (queries.REJECTED_UP_TO, (STREAM, 20, 5)),
    "pending": (queries.PENDING, (STREAM,)),
    "alarm_rule": (queries.ALARM_RULE, KEY),
    "seen": (queries.SEEN, KEY),
    "alarms_on": (queries.ALARMS_ON, (STREAM, *KEY)),
    "alarm_of": (queries.ALARM_OF, (2, f"{START:%Y-%m-%d}", *KEY, STREAM)),
    "rings": (queries.RINGS, (STREAM, *KEY, LATER)),
    "discharged_after": (queries.DISCHARGED_AFTER, (STREAM, LATER)),
    "alarm_events": (queries.ALARM_EVENTS, (2, f"{START:%Y-%m-%d}", STREAM, *KEY)),
}


def steps(path: Path, sql: str, arguments: tuple[object, ...]) -> int:
    """The number of instructions of SQLite's virtual machine for a query."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    with closing(sqlite3.connect(path)) as connection:
        connection.set_progress_handler(step, 1)
        connection.execute(sql, arguments).fetchall()
    return count


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two databases with the same ward. The second has twenty times as much history."""
    found = []
    for discharged in (45, 900):
        path = tmp_path_factory.mktemp("history") / "icu.sqlite"
        with seeded_ward.ward(path) as made:
            fill(made, 20, 8, discharged=discharged)
            for index in range(discharged):
                made.reject("no value", "{}", pat_id=1000 + index)
                add_past_alarm(made, 1000 + index)
            made.commit()
        found.append(path)
    return found[0], found[1]


def add_past_alarm(made: seeded_ward.Ward, pat_id: int) -> None:
    """Writes an alarm, its state after it was cleared, and the discharge that cleared it."""
    of = (STREAM, made.seq, *KEY, pat_id, f"{START:%Y-%m-%d}")
    at = f"{START}"
    made.execute(
        f"INSERT INTO alarms VALUES ({', '.join('?' * 12)})",
        *(*of, "raise", made.seq, at, 0.5, 1, None),
    )
    made.execute(
        f"INSERT INTO alarm_state VALUES ({', '.join('?' * 14)})",
        *(STREAM, pat_id, f"{START:%Y-%m-%d}", *KEY, made.seq, at),
        *(None, None, None, at, None, None, None),
    )
    made.execute(
        "INSERT INTO discharges VALUES (?, ?, ?, ?, ?, ?)",
        *(STREAM, made.seq, pat_id, f"{START:%Y-%m-%d}", at, at),
    )


@pytest.mark.parametrize("name", QUERIES)
def test_the_cost_of_a_query_does_not_depend_on_history(
    name: str, histories: tuple[Path, Path]
) -> None:
    small, large = (steps(path, *QUERIES[name]) for path in histories)
    assert small > 0
    assert large <= small * 1.1 + 20


def test_readings_that_are_kept_in_memory_equal_the_tables(
    made: seeded_ward.Ward, reads: Database
) -> None:
    """Between the comparisons, readings are added, added late or withdrawn, and pending predictions
    are answered.
    """
    draw, key = random.Random(7), StayKey(1, START.date())
    made.add_stay(1, START)
    kept = StayReadings(reads, key)
    for _ in range(80):
        for _ in range(draw.randint(0, 3)):
            kind = draw.choice(["new", "late", "withdrawn", "pending", "answered"])
            if kind == "withdrawn":
                made.execute("DELETE FROM readings WHERE seq = ?", draw.randint(1, made.seq + 1))
            elif kind == "answered":
                made.execute("UPDATE predictions SET output = 0.5 WHERE output IS NULL")
            else:
                at = START + timedelta(hours=draw.randint(0, 9) if kind == "late" else made.seq)
                made.add_reading(1, START, at, "heart_rate", 80.0, waits=kind == "pending")
        made.commit()
        with reads.snapshot():
            kept.update(STREAM, KEY, True)
        stored = made.connection.execute(
            "SELECT r.seq, r.value, p.output FROM readings r JOIN predictions p USING (seq)"
            " ORDER BY r.measured_at, r.seq"
        ).fetchall()
        assert [(one.seq, one.value, one.probability) for one in kept.all] == stored
        assert {int(seq): point[2:] for seq, point in kept.points.items()} == {
            seq: [value, probability] for seq, value, probability in stored
        }
    assert len(kept.all) > 30


class TestRejected:
    def test_incremental_counts_equal_a_final_count(
        self, made: seeded_ward.Ward, reads: Database
    ) -> None:
        counted = RejectedCount()
        for chunk in (3, 0, 5):
            for index in range(chunk):
                made.reject(f"reason {index % 2}", "{}")
            made.commit()
            with reads.snapshot():
                counted.read(reads, STREAM, made.seq)
            assert counted.complete
        # A message was replayed, and so is no longer rejected.
        for statement in ("SELECT 1", "DELETE FROM rejected WHERE seq = 2"):
            made.execute(statement)
            made.commit()
            with reads.snapshot():
                counted.read(reads, STREAM, made.seq)
            rows = made.connection.execute("SELECT reason, COUNT(*) FROM rejected GROUP BY reason")
            assert counted.counts == Counter(dict(rows.fetchall()))

    def test_the_count_stops_at_the_slowest_partition(self) -> None:
        at = START
        ahead, behind = Position(STREAM, 0, 90, 90, at), Position(STREAM, 1, 40, 40, at)
        assert safe_seq([ahead, behind], 100, {0: 90, 1: 80}) == 40
        # The partition has stored its last message, so the count does not wait for it.
        assert safe_seq([ahead, behind], 100, {0: 90, 1: 40}) == 100
        assert safe_seq([ahead, behind], None, {}) == 40

    def test_the_count_waits_for_a_partition_that_has_stored_nothing(self) -> None:
        only = Position(STREAM, 1, 500, 500, START)
        assert safe_seq([only], 600, {0: 300, 1: 500}) == 0
        assert safe_seq([only], 600, {0: 0, 1: 500}) == 600
        assert safe_seq([], 600, {0: 300}) == 0
        # A partition that is not in `parts` may have queued messages after 500.
        assert safe_seq([only], 450, {1: 450}) == 450

    @pytest.mark.parametrize(
        "queues",
        [QueueState(), QueueState(stream=STREAM, taken=10, parts={0: 6, 1: 10}, partitions=2)],
        ids=["queues unknown", "queues known"],
    )
    def test_rejected_messages_of_a_late_partition_are_counted(
        self, first_rounds: "Rounds", made: seeded_ward.Ward, queues: QueueState
    ) -> None:
        rounds = first_rounds
        rounds.answers.queues = queues
        made.seq = 10
        made.commit(part=1)
        rounds.after(0)
        made.seq = 5
        made.reject("no value", "{}")
        made.commit(part=0)
        rounds.after(1)
        assert rounds.poller.pipeline.content["figures"]["rejected"] == "1"

    def test_many_different_reasons_take_bounded_memory(
        self, made: seeded_ward.Ward, reads: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pipeline, "REASONS_KEPT", 10)
        for index in range(50):
            made.reject(f"value {index}", "{}")
        made.commit()
        counted = RejectedCount()
        with reads.snapshot():
            counted.read(reads, STREAM, made.seq)
        assert len(counted.counts) == 11
        assert counted.counts[OTHER] == 40


class TestTopic:
    contents = st.lists(
        st.dictionaries(
            st.sampled_from([f"bed:{n}" for n in range(5)]),
            st.fixed_dictionaries({"a": st.integers(0, 3), "b": st.integers(0, 3)}),
        ),
        min_size=1,
        max_size=12,
    )

    @given(contents, st.lists(st.integers(0, 12)))
    def test_a_reconnected_browser_sees_the_same_as_a_connected_one(
        self, contents: list[Content], visits: list[int]
    ) -> None:
        """A browser that requests only some of the versions must end with the same content."""
        topic = Topic({"bed": lambda key, fields: json.dumps([key, dict(fields)])})
        shown: dict[str, dict[str, Any]] = {}
        known = 0
        for version, content in enumerate(contents, 1):
            topic.update(content, version, float(version))
            if version in visits or version == len(contents):
                answer = topic.since(known)
                for key, html in answer.get("html", {}).items():
                    shown[key] = json.loads(html)[1]
                for key, fields in answer.get("set", {}).items():
                    shown[key] |= fields
                if "order" in answer:
                    shown = {key: shown[key] for key in answer["order"]}
                known = topic.version
        assert list(shown.items()) == list(contents[-1].items())

    def test_an_element_may_have_the_name_of_a_list(self) -> None:
        topic = Topic({"bed": lambda key, fields: "<li>"})
        topic.update({"bed": {"count": 1}, "bed:1": {"a": 1}}, 1, 0.0)
        assert topic.since(0)["set"] == {"bed": {"count": 1}}
        assert topic.since(0)["html"] == {"bed:1": "<li>"}

    def test_only_changes_are_sent(self) -> None:
        topic = Topic()
        topic.update({"x": {"a": 1, "b": 1}, "y": {"a": 1}}, 1, 0.0)
        topic.update({"x": {"a": 1, "b": 2}, "y": {"a": 1}}, 2, 0.0)
        assert topic.since(1) == {"set": {"x": {"b": 2}}}
        topic.update({"x": {"a": 1, "b": 2}, "y": {"a": 1}}, 3, 0.0)
        assert topic.version == 2


class Answers:
    """Stubs of Redis and the HTTP services."""

    def __init__(self) -> None:
        self.queues = QueueState(run_id="r1", buffer="b1", workers={"tool-0": "w1"})
        self.well = Health(None, {})

    async def read(self) -> QueueState:
        return self.queues

    async def hospital(self) -> Health:
        return self.well

    async def model_api(self) -> Health:
        return self.well

    async def models(self) -> Models:
        return Models(KEY)

    async def describe(self, model: ModelKey) -> ModelInfo | None:
        return INFO

    async def explain(self, model: ModelKey, features: Any) -> Explanation:
        return Explanation(error="not now")


class Rounds:
    """A poller whose clock the test controls."""

    def __init__(self, reads: Database) -> None:
        self.answers = Answers()
        self.now = 0.0
        fake: Any = self.answers
        self.poller = Poller(reads, fake, fake, Pages(), clock=lambda: self.now)

    def after(self, seconds: float) -> dict[str, Any]:
        self.now += seconds
        asyncio.run(self.poller.poll())
        return self.ward.topic.content["page"]

    @property
    def ward(self) -> WardView:
        return self.poller.shelf.ward(None)

    @property
    def beds(self) -> list[str]:
        return [key for key in self.ward.topic.content if key.startswith("ward:")]

    def state(self, service: str) -> str:
        return self.poller.judge.board.services[service].state


@pytest.fixture
def first_rounds(made: seeded_ward.Ward, reads: Database) -> Iterator[Rounds]:
    """A poller on empty tables."""
    found = Rounds(reads)
    yield found
    found.poller._thread.submit(reads.close).result()
    found.poller._thread.shutdown()


def test_the_page_has_a_notice_before_the_first_reading(
    first_rounds: Rounds, made: seeded_ward.Ward
) -> None:
    rounds = first_rounds
    rounds.answers.well = Health("preparing", {"status": "preparing"})
    preparing = rounds.after(0)
    assert preparing["state"] == "empty"
    rounds.answers.well = Health(None, {"stream": STREAM})
    waiting = rounds.after(60)
    assert waiting["state"] == "empty"
    assert preparing["notice"] != waiting["notice"]
    assert preparing["notice"]
    assert waiting["notice"]
    fill(made, 2, 3)
    assert rounds.after(1)["state"] == "live"
    assert rounds.ward.topic.content["page"]["notice"] == ""


def test_a_page_that_opens_during_a_round_keeps_its_patients(
    first_rounds: Rounds, made: seeded_ward.Ward, reads: Database, path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    poller, key = first_rounds.poller, ViewKey("other", None)
    fill(made, 2, 1)
    with seeded_ward.ward(path, "other") as other:
        fill(other, 3, 1)
    view = poller.shelf.make(key)
    pending = reads.pending

    def opened_meanwhile(stream: str) -> int:
        poller.shelf.views[key] = view
        return pending(stream)

    async def rounds() -> None:
        first_rounds.answers.well = Health(None, {"stream": STREAM})
        await poller.open(view)
        del poller.shelf.views[key]
        monkeypatch.setattr(reads, "pending", opened_meanwhile)
        await poller.poll()

    asyncio.run(rounds())
    assert key in poller.shelf.views
    assert [name for name in view.topic.content if name.startswith("ward:")] != []
    assert view.topic.content["page"]["state"] == "earlier"
    assert view.topic.content["page"]["notice"]
    assert len(first_rounds.beds) == 2


def failing_once(monkeypatch: pytest.MonkeyPatch, reads: Database, name: str) -> None:
    """Makes the next call of this query fail, as if the database went away."""
    query = getattr(reads, name)

    def fail(*arguments: object) -> None:
        monkeypatch.setattr(reads, name, query)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(reads, name, fail)


@pytest.mark.parametrize("query", ["risks", "risk"])
def test_a_round_that_fails_leaves_no_old_risk(
    first_rounds: Rounds, made: seeded_ward.Ward, reads: Database, query: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The next round reads what the failed one did not, although no reading is newer."""
    fill(made, 3, 2)
    first_rounds.answers.well = Health(None, {"stream": STREAM})
    first_rounds.after(0)
    at = START + timedelta(hours=5)
    made.add_reading(1, START, at, "heart_rate", 90.0, 0.9)
    for hour, risk in ((4, 0.7), (5, None)):
        made.add_reading(2, START, START + timedelta(hours=hour), "heart_rate", 90.0, risk)
    made.commit()
    failing_once(monkeypatch, reads, query)
    assert first_rounds.after(1)["state"] == "lost"
    assert first_rounds.after(1)["state"] == "live"
    shown = first_rounds.ward.ward
    assert shown is not None
    risks = {each.stay.key.pat_id: each.risk for each in shown.ranked}
    with reads_of(made) as fresh:
        expected = read_ward(fresh, WardReader(fresh)).ranked
    assert risks == {each.stay.key.pat_id: each.risk for each in expected}
    assert [each and each.probability for each in (risks[1], risks[2])] == [0.9, 0.7]


@pytest.mark.parametrize("kind", ["opened between two rounds", "after a failed round", "earlier"])
@pytest.mark.parametrize("stay", [None, StayKey(1, START.date())], ids=["ward", "patient"])
def test_a_page_shows_a_prediction_that_was_pending_when_it_was_read(
    first_rounds: Rounds, made: seeded_ward.Ward, reads: Database, path: Path, kind: str,
    stay: StayKey | None, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fill(made, 1, 1)
    first_rounds.answers.well = Health(None, {"stream": STREAM})
    first_rounds.after(0)
    with seeded_ward.ward(path, "other" if kind == "earlier" else STREAM) as ward:
        ward.seq = made.seq
        if kind == "earlier":
            fill(ward, 1, 1)
        seq = ward.add_reading(1, START, START + timedelta(hours=3), "spo2", 97.0, waits=True)
        ward.commit()
    view = first_rounds.poller.shelf.make(ViewKey(ward.stream, stay))
    asyncio.run(first_rounds.poller.open(view))
    if kind == "after a failed round":
        first_rounds.after(1)
    made.execute("UPDATE predictions SET output = 0.4, reason = NULL WHERE seq = ?", seq)
    made.execute("DELETE FROM pending")
    made.connection.commit()
    if kind == "after a failed round":
        failing_once(monkeypatch, reads, "number_of_readings" if stay else "readings")
        assert first_rounds.after(1)["state"] == "lost"
    first_rounds.after(1)
    element = "patient" if stay else bed_key(StayKey(1, START.date()))
    assert view.topic.content[element]["risk"] == "40"


class TestMissing:
    @pytest.fixture
    def rounds(self, first_rounds: Rounds, made: seeded_ward.Ward) -> Rounds:
        fill(made, 2, 3)
        return first_rounds

    def test_a_stalled_stream_is_not_shown_as_current(
        self, rounds: Rounds, made: seeded_ward.Ward
    ) -> None:
        assert rounds.after(0)["state"] == "live"
        assert rounds.after(29)["state"] == "live"
        told = rounds.after(2)
        assert told["state"] == "quiet"
        assert "not current" in told["notice"]
        made.add_reading(1, START, START + timedelta(hours=4), "heart_rate", 90.0)
        made.commit()
        assert rounds.after(1)["state"] == "live"

    def test_predictions_that_a_backfill_adds_are_shown(
        self, rounds: Rounds, made: seeded_ward.Ward
    ) -> None:
        made.execute("CREATE TEMP TABLE later AS SELECT * FROM predictions")
        made.execute("DELETE FROM predictions")
        made.commit()
        rounds.after(0)
        patient = rounds.poller.shelf.make(ViewKey(STREAM, StayKey(1, START.date())))
        asyncio.run(rounds.poller.open(patient))

        def risks() -> list[str]:
            beds = [rounds.ward.topic.content[key]["risk"] for key in rounds.beds]
            return [*beds, patient.topic.content["patient"]["risk"]]

        rounds.after(1)
        assert not any(map(str.isdecimal, risks()))
        made.execute("INSERT INTO predictions SELECT * FROM later")
        made.execute("UPDATE models SET seen_at = '2026-01-01 00:00:00.001'")
        made.commit()
        rounds.after(1)
        assert all(map(str.isdecimal, risks()))

    def test_a_finished_stream_is_not_shown_as_broken(
        self, rounds: Rounds, made: seeded_ward.Ward
    ) -> None:
        rounds.answers.well = Health(None, {"stream": STREAM, "messages": made.seq})
        rounds.after(0)
        told = rounds.after(3600)
        assert told["state"] == "ended"
        assert told["notice"]
        assert rounds.state("tool") == "waiting"
        rounds.after(120)
        assert rounds.poller.judge.board.services["tool"].since == 0

    def test_a_lost_database_is_reported_and_the_values_remain(
        self, rounds: Rounds, path: Path
    ) -> None:
        rounds.after(0)
        beds = rounds.beds
        assert len(beds) == 2
        hidden = path.rename(path.with_suffix(".away"))
        rounds.poller._thread.submit(rounds.poller._database.close).result()
        told = rounds.after(1)
        assert told["state"] == "lost"
        assert rounds.state("database") == "down"
        assert rounds.ward.topic.read_at == rounds.poller.pipeline.read_at == 0.0
        assert rounds.beds == beds
        assert rounds.poller.pipeline.content["figures"]["stored.total"] == "—"
        hidden.rename(path)
        assert rounds.after(1)["state"] == "live"
        assert rounds.ward.topic.read_at == rounds.poller.pipeline.read_at == 2.0
        shown = rounds.poller.pipeline.content["service:database"]
        assert (shown["counted"], shown["count"]) == ("interruptions", "1")

    def test_a_tool_that_stores_nothing_while_messages_wait_is_down(
        self, rounds: Rounds, made: seeded_ward.Ward
    ) -> None:
        rounds.answers.queues = QueueState(
            run_id="r1",
            buffer="b1",
            workers={"tool-0": "w1"},
            stream=STREAM,
            taken=made.seq + 5,
        )
        rounds.after(0)
        assert rounds.state("tool") == "up"
        rounds.after(STALL_SECONDS + 1)
        assert rounds.state("tool") == "down"

    def test_the_reason_for_which_the_tool_waits_is_shown_in_words(
        self, rounds: Rounds, made: seeded_ward.Ward
    ) -> None:
        rounds.after(0)
        rounds.answers.queues = dataclasses.replace(
            rounds.answers.queues,
            stream=STREAM,
            taken=made.seq + 5,
            outage="MySQL db.example: 1114 (HY000): The table 'readings' is full",
        )
        page = rounds.after(1)
        assert rounds.state("tool") == "waiting"
        assert "disk space" in page["notice"]
        assert "db.example" not in page["notice"]

    def test_a_replay_faster_than_real_time_has_a_hint(
        self, rounds: Rounds, made: seeded_ward.Ward
    ) -> None:
        assert rounds.after(0)["pace"] == ""
        made.add_reading(1, START, START + timedelta(hours=4), "heart_rate", 90.0)
        made.commit()
        assert rounds.after(1)["pace"] != ""
        assert rounds.after(11)["pace"] == ""

    def test_without_redis_the_ward_remains_and_services_are_unknown(self, rounds: Rounds) -> None:
        rounds.after(0)
        refusing = Queues(Redis.from_url("redis://127.0.0.1:1/0"))
        rounds.answers.queues = asyncio.run(refusing.read())
        first, second, third = (rounds.after(seconds)["notice"] for seconds in (1, 20, 60))
        assert rounds.state("redis") == "down"
        assert "redis" in first
        assert "127.0.0.1" not in first
        # The notice has a duration but rarely changes, because a screen reader reads each change.
        assert first == second
        assert first not in third
        assert rounds.state("buffer") == "unknown"
        assert rounds.poller.pipeline.content["figures"]["jobs"] == "—"

    def test_readings_wait_only_in_a_stream_that_has_not_ended(
        self, rounds: Rounds, made: seeded_ward.Ward
    ) -> None:
        rounds.after(0)
        rounds.answers.queues = QueueState(error="does not answer")
        assert WAITING in rounds.after(1)["notice"]
        rounds.answers.well = Health(None, {"stream": STREAM, "messages": made.seq})
        page = rounds.after(1)
        assert page["state"] == "ended"
        assert NAMES["redis"] in page["notice"]
        assert WAITING not in page["notice"]

    def test_invalid_answers_do_not_fail_the_round(
        self, rounds: Rounds, made: seeded_ward.Ward
    ) -> None:
        """A live source may have another health report than hospital."""
        rounds.after(0)
        rounds.answers.well = Health(None, {"stream": STREAM, "messages": "many", "rate": "slow"})
        made.add_reading(1, START, START + timedelta(hours=4), "spo2", 97.0)
        made.commit()
        assert rounds.after(1)["state"] == "live"
        assert "SpO₂" in rounds.ward.topic.answer(0).decode()

    def test_a_live_page_is_marked_while_a_service_is_down(self, rounds: Rounds) -> None:
        page = rounds.after(0)
        assert (page["state"], page["fault"]) == ("live", "")
        rounds.answers.well = Health("does not answer", {})
        page = rounds.after(1)
        assert (page["state"], page["fault"]) == ("live", "yes")
        assert page["word"] != "Live"

    def test_a_source_that_prepares_again_is_named_in_the_notice(self, rounds: Rounds) -> None:
        rounds.after(0)
        rounds.answers.well = Health(PREPARING, {"status": PREPARING})
        page = rounds.after(1)
        assert (page["state"], page["fault"]) == ("live", "yes")
        assert NAMES["hospital"] in page["notice"]

    def test_the_page_shows_the_current_stream(self, rounds: Rounds, path: Path) -> None:
        with seeded_ward.ward(path, "earlier") as other:
            fill(other, 3, 2, first=50)
            other.commit("2026-01-02 00:00:00.000")
        rounds.answers.well = Health(None, {"stream": STREAM, "synthetic": True})
        page = rounds.after(0)
        assert (page["stream"], len(rounds.beds)) == (STREAM, 2)
        assert page["synthetic"]
        rounds.answers.well = Health(None, {"stream": "earlier"})
        page = rounds.after(1)
        assert (page["stream"], len(rounds.beds)) == ("earlier", 3)
        assert not page["synthetic"]
        rounds.answers.well = Health(None, {"stream": "new"})
        page = rounds.after(1)
        assert (page["state"], page["stream"], rounds.beds) == ("empty", "new", [])

    def test_pages_are_marked_as_late_while_a_round_takes_too_long(self, rounds: Rounds) -> None:
        rounds.after(0)
        rounds.now += LATE_SECONDS + 1
        assert rounds.poller._status(rounds.ward)["state"] == "late"
        assert rounds.after(0)["state"] == "live"

    def test_after_a_failed_round_the_previous_entries_can_be_rendered(
        self, rounds: Rounds, made: seeded_ward.Ward, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rounds.after(0)
        made.add_reading(1, START, START + timedelta(hours=4), "spo2", 97.0)
        made.commit()
        monkeypatch.setattr("dashboard.poller.status_fields", None)
        with pytest.raises(TypeError):
            rounds.after(1)
        told = json.loads(rounds.ward.topic.answer(0))
        assert len(told["html"]) == 2
        assert "SpO₂" not in "".join(told["html"].values())


@pytest.mark.parametrize(
    ("text", "status", "error"),
    [
        ('{"status": "ok"}', 200, None),
        ("fine", 200, None),
        ("[]", 200, None),
        ("404: Not Found", 404, "reports a fault (404)"),
        ('{"status": "preparing"}', 503, "preparing"),
    ],
)
def test_only_an_answer_with_an_error_status_is_an_error(
    text: str, status: int, error: str | None
) -> None:
    async def served(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status)

    async def ask() -> Health:
        app = web.Application()
        app.router.add_get("/health", served)
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            url = str(server.make_url("/")).rstrip("/")
            return await Services(session, url, url, SecretFile()).hospital()

    assert asyncio.run(ask()).error == error


EVENTS = "/events?page="
STAY = f"pat_id=1&stay={START:%Y-%m-%d}"


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/patients?q=1", 200),
        (f"/patients?q={'9' * 40}", 404),
        (f"/patients?q={'9' * 7000}", 404),
        ("/patients?q=", 200),
        ("/patients?q=--1", 404),
        ("/patients?q=%ED%A0%80", 404),
        ("/patients?q=%00", 404),
        ("/patients", 200),
        ("/patients?page=0", 200),
        (f"/patients?page={'9' * 5000}", 200),
        ("/patients?stream=nothing", 404),
        ("/?stream=nothing", 404),
        (f"/?stream={STREAM}", 200),
        (f"/patients/{'9' * 7000}", 404),
        ("/models", 200),
        ("/drift", 200),
        ("/drift?stream=nothing", 404),
        ("/models/no/1", 404),
        ("/models/%ED%A0%80/1", 404),
        (f"/models/{'x' * 5000}/1", 404),
        ("/metrics", 200),
        (f"{EVENTS}patient&pat_id=7&stay={START:%Y-%m-%d}", 404),
        (f"{EVENTS}ward&stream=nothing", 404),
        ("/patients/999999999999999999", 404),
        ("/patients/9999999999999999999", 404),
        (f"/patients/{2**63}", 404),
        (f"/patients/{-(2**63)}", 404),
        (f"/patients/{2**63 - 1}", 200),
        (f"{EVENTS}patient&pat_id={2**63}&stay={START:%Y-%m-%d}", 404),
        (f"{EVENTS}patient&pat_id={2**63 - 1}&stay={START:%Y-%m-%d}", 200),
        ("/patients/1?stay=", 404),
        ("/patients/1?stay=yesterday", 404),
        ("/events", 404),
        (EVENTS, 404),
        (f"{EVENTS}beds", 404),
        (f"{EVENTS}patient", 404),
        (f"{EVENTS}patient&pat_id=1", 404),
        (f"{EVENTS}patient&pat_id=1&stay=yesterday", 404),
        (f"{EVENTS}patient&pat_id=01&stay={START:%Y-%m-%d}", 404),
        (f"{EVENTS}patient&pat_id=one&stay={START:%Y-%m-%d}", 404),
        (f"{EVENTS}patient&pat_id={'9' * 25}&stay={START:%Y-%m-%d}", 404),
        (f"{EVENTS}patient&pat_id={'9' * 5000}&stay={START:%Y-%m-%d}", 404),
    ],
)
def test_addresses_are_parsed_or_rejected(
    made: seeded_ward.Ward, path: Path, address: str, status: int
) -> None:
    fill(made, 2, 3)
    made.add_stay(2**63 - 1, START)
    made.commit()

    async def ask(client: TestClient[Any, Any]) -> int:
        async with client.get(address) as answer:
            return answer.status

    assert asyncio.run(_with_app(path, ask)) == status


def test_search_opens_the_patient_with_exactly_this_identifier(
    made: seeded_ward.Ward, path: Path
) -> None:
    """Patients 5 to 25 have the identifiers 0001 to 0021. Patient 2 has no identifier. Patient 60
    was discharged earlier than all patients that the page lists.
    """
    expected: dict[str, tuple[int, str | None]] = {
        "/patients?q=17": (200, None),  # not patient number 17, who is 0013
        "/patients?q=0017": (303, "/patients/21"),
        "/patients?q=0002": (303, "/patients/6"),
        "/patients?q=2": (303, "/patients/2"),
        "/patients?q=0099": (303, "/patients/60"),
        "/patients?q=0098": (303, "/patients/26"),  # of two patients, the one in the ICU
        "/patients?q=026": (404, None),
        "/patients/0017": (404, None),
    }
    for pat_id in (*range(5, 27), 2):
        made.add_stay(pat_id, START)
        made.add_reading(pat_id, START, START, "heart_rate", 80.0)
    for pat_id in (*range(60, 102), 26):
        left = START - timedelta(days=4 if pat_id == 60 else 2)
        made.add_stay(pat_id, START - timedelta(days=9), discharged=left)
    made.execute("UPDATE stays SET identifier = substr('000' || (pat_id - 4), -4) WHERE pat_id > 2")
    made.execute("UPDATE stays SET identifier = '0099' WHERE pat_id = 60")
    made.execute("UPDATE stays SET identifier = '0098' WHERE pat_id IN (26, 61)")
    made.commit()

    async def ask(client: TestClient[Any, Any]) -> dict[str, tuple[int, str | None, str]]:
        found = {}
        for address in expected:
            async with client.get(address, allow_redirects=False) as answer:
                to = answer.headers.get("Location")
                found[address] = (answer.status, to, await answer.text())
        return found

    found = asyncio.run(_with_app(path, ask))
    assert {address: answer[:2] for address, answer in found.items()} == expected
    listed = re.findall(r'<th scope="row"><a [^>]*>(\d+)</a>', found["/patients?q=17"][2])
    assert listed == ["0017"]


def test_the_list_of_patients_does_not_query_a_database_that_is_down(
    made: seeded_ward.Ward, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(made, 2, 3)

    async def ask(client: TestClient[Any, Any]) -> list[str]:
        assert client.app is not None
        poller = client.app[POLLER]
        await poller.polled.wait()
        # The table is gone, so that all rounds fail.
        made.execute("ALTER TABLE positions RENAME TO hidden")
        made.connection.commit()
        async with asyncio.timeout(60):
            while poller.judge.board.services["database"].state != "down":
                await asyncio.sleep(0.05)
        monkeypatch.setattr(poller, "query", None)
        async with client.get("/patients") as answer:
            assert answer.status == 200
            return re.findall(r'<th scope="row"><a [^>]*>(\d+)</a>', await answer.text())

    assert sorted(asyncio.run(_with_app(path, ask))) == ["1", "2"]


def test_the_drift_page_marks_figures_outside_their_band(
    made: seeded_ward.Ward, path: Path
) -> None:
    fill(made, 2, 3)
    for day, volume in (("2150-03-01", 24.0), ("2150-03-02", 48.0)):
        for figure, value, band in (
            ("volume", volume, (20.0, 28.0)),
            ("known", 0.97, (0.9, 1.0)),
            ("psi", None, (None, None)),
        ):
            made.execute(
                f"INSERT INTO drift VALUES ({', '.join('?' * 11)})",
                *(STREAM, day, "risk", "1", "heart_rate", figure, 40, value, *band, 7),
            )
    made.commit()

    async def ask(client: TestClient[Any, Any]) -> str:
        async with client.get("/drift") as answer:
            return await answer.text()

    page = asyncio.run(_with_app(path, ask))
    states = re.findall(r'<tr data-drift="(\w+)">', page)
    assert states == ["outside", "within", "none"]
    assert page.count("<b>outside</b>") == 1
    # The model API of this test has another champion.
    assert re.findall(r"<p>No figures of ([^:]*):", page) == ["formula 1"]


def test_1200_patients_are_in_the_order_that_pandas_computes(
    made: seeded_ward.Ward, path: Path
) -> None:
    """Some patients have equal risks, no risk or an old risk, and the newest readings of some are
    late.
    """
    draw = random.Random(12)
    for pat_id in range(1, 1301):
        admitted = START + timedelta(days=pat_id % 9)
        gone = admitted + timedelta(days=9) if pat_id % 13 == 0 else None
        made.add_stay(pat_id, admitted, discharged=gone)
        for hour in draw.sample(range(40), 3):
            risk = None if draw.random() < 0.2 else round(draw.random(), 2)
            at = admitted + timedelta(hours=hour)
            made.add_reading(pat_id, admitted, at, "heart_rate", 80.0, risk)
    made.commit()
    frames = {
        name: pd.read_sql(f"SELECT * FROM {name}", made.connection)
        for name in ("stays", "readings", "predictions")
    }
    inside = frames["stays"].query("date_discharge.isna()").set_index("pat_id").index
    readings = frames["readings"].merge(frames["predictions"][["seq", "output"]], on="seq")
    readings["at"] = pd.to_datetime(readings["measured_at"])
    last = readings.groupby("pat_id")["at"].transform("max")
    recent = readings[readings["at"] > last - pd.Timedelta(hours=24)].dropna()
    risks = recent.sort_values(["at", "seq"]).groupby("pat_id")["output"].last()
    order = (
        risks.reindex(inside)
        .rename_axis("pat_id")
        .reset_index()
        .sort_values(["output", "pat_id"], ascending=[False, True], na_position="last")
    )
    expected = order["pat_id"].astype(str).tolist()
    assert len(expected) == 1200
    assert order["output"].isna().any()

    async def ask(client: TestClient[Any, Any]) -> tuple[str, list[str]]:
        async with client.get("/") as answer:
            ward_page = await answer.text()
        listed: list[str] = []
        for number in range(1, 13):
            async with client.get(f"/patients?page={number}") as answer:
                found = re.findall(r'<th scope="row"><a [^>]*>(\d+)</a>', await answer.text())
                listed += found
        return ward_page, listed

    async def until_read(client: TestClient[Any, Any]) -> tuple[str, list[str]]:
        async with asyncio.timeout(60):
            while (found := await ask(client))[1] != expected:
                await asyncio.sleep(0.5)
        return found

    page, listed = asyncio.run(_with_app(path, until_read))
    assert listed == expected
    assert re.findall(r"<h2><a [^>]*>(\d+)</a>", page) == expected[: ward.SHOWN]
    assert '<b data-text="count">1\N{NO-BREAK SPACE}200</b>' in page


@pytest.mark.parametrize("page", ["ward", "pipeline", f"patient&{STAY}"])
def test_events_after_an_unknown_id_start_with_everything(
    made: seeded_ward.Ward, path: Path, page: str
) -> None:
    fill(made, 2, 3)

    async def ask(client: TestClient[Any, Any]) -> list[set[str]]:
        assert client.app is not None
        epoch = client.app[POLLER].epoch
        since = ["", "x", "%00", "%FF", "-", "0-0", f"{epoch}-", f"{epoch}--1", f"{epoch}-%C2%B2"]
        since += [f"{epoch}-{'9' * 20}", f"{epoch}-1-2", f"{epoch}-x"]
        addresses = [EVENTS + page] + [f"{EVENTS}{page}&since={text}" for text in since]
        found = []
        for address in addresses:
            async with client.get(URL(address, encoded=True)) as answer:
                assert answer.status == 200
                while not (line := await answer.content.readline()).startswith(b'data: {"set'):
                    assert line, "the stream ended"
                found.append(set(json.loads(line[6:])["set"]))
        return found

    told = asyncio.run(_with_app(path, ask))
    assert "page" in told[0]
    assert all(elements == told[0] for elements in told)


async def _with_app(path: Path, ask: Callable[[TestClient[Any, Any]], Awaitable[T]]) -> T:
    """Starts a dashboard with only a database; returns the result of `ask`."""
    nowhere = "http://127.0.0.1:9"
    settings = Settings(
        database_url=DatabaseUrl(f"sqlite:///{path}"),
        redis_url=RedisUrl(f"unix://{path}.sock"),
        hospital_url=HttpUrl(nowhere),
        model_url=HttpUrl(nowhere),
    )
    async with TestClient(TestServer(create_app(settings))) as client:
        return await ask(client)


def test_a_misspelt_parameter_is_named(made: seeded_ward.Ward, path: Path) -> None:
    fill(made, 1, 2)
    pages = ("/", "/patients", "/patients/1", "/pipeline", "/pipeline.json", "/drift", "/models")
    addresses = [*(f"{page}?steam=x" for page in pages), f"{EVENTS}ward&steam=x"]

    async def ask(client: TestClient[Any, Any]) -> list[tuple[int, bool]]:
        found = []
        for address in addresses:
            async with client.get(address) as answer:
                found.append((answer.status, "“steam”" in await answer.text()))
        return found

    assert asyncio.run(_with_app(path, ask)) == [(400, True)] * len(addresses)


def test_events_do_not_answer_head(made: seeded_ward.Ward, path: Path) -> None:
    fill(made, 1, 2)

    async def ask(client: TestClient[Any, Any]) -> int:
        async with client.head(f"{EVENTS}ward") as answer:
            return answer.status

    assert asyncio.run(_with_app(path, ask)) == 405


def test_a_closed_page_frees_its_place_for_another(made: seeded_ward.Ward, path: Path) -> None:
    fill(made, LIMIT + 5, 1)

    async def ask(client: TestClient[Any, Any]) -> list[int]:
        found = []
        for pat_id in range(1, LIMIT + 6):
            async with client.get(f"/patients/{pat_id}") as answer:
                found.append(answer.status)
        return found

    assert asyncio.run(_with_app(path, ask)) == [200] * (LIMIT + 5)


def test_names_of_parameters_do_not_collide_with_other_keys(
    made: seeded_ward.Ward, reads: Database, path: Path
) -> None:
    names = ["risk", "constructor", "toString", "__proto__", "age", "page", "0.value", "heart_rate"]
    made.add_stay(1, START)
    for name in [*names, *(f"p{index}" for index in range(5000))]:
        made.add_reading(1, START, START, name, 42.0, 0.25)
    made.commit()
    with reads.snapshot():
        patient = PatientReader(reads, StayKey(1, START.date())).read(clock_of(reads), KEY, False)
    assert patient is not None
    content = patient_content(patient, INFO, {})
    assert content["patient"]["risk"] == "25"
    shown = [key for key in content if key.startswith("vital:")]
    assert len(shown) == 1 + columns.OTHERS_SHOWN
    [fields] = fields_of(read_ward(reads, WardReader(reads))).values()
    assert fields["risk"] == "25"

    async def ask(client: TestClient[Any, Any]) -> int:
        async with client.get("/patients/1") as page:
            return len(await page.text())

    assert asyncio.run(_with_app(path, ask)) < 100_000


def test_an_input_that_arrived_after_the_risk_is_missing_from_it(
    made: seeded_ward.Ward, reads: Database
) -> None:
    """The prediction for the temperature is pending, so the pages show the risk before it."""
    key, info = (
        StayKey(1, START.date()),
        dataclasses.replace(INFO, parameters=frozenset({"heart_rate", "temperature"})),
    )
    made.add_stay(1, START)
    made.add_reading(1, START, START, "heart_rate", 80.0, 0.25)

    def without() -> list[str]:
        made.commit()
        ward = read_ward(reads, WardReader(reads))
        with reads.snapshot():
            patient = PatientReader(reads, key).read(ward.clock, KEY, False)
            known = reads.parameters_of(STREAM, [key])[key]
        assert patient is not None
        return [
            bed_fields(ward.beds[0], ward, info, ward.signs, "")["risk.without"],
            listed_fields(ward.ranked[0], ward, info, "", known)["risk.without"],
            patient_content(patient, info, {})["patient"]["risk.without"],
        ]

    expected = [f"without {VITALS['temperature'].label}"] * 3
    assert without() == expected
    later = START + timedelta(hours=1)
    seq = made.add_reading(1, START, later, "temperature", 36.8, waits=True)
    assert without() == expected
    made.execute("UPDATE predictions SET output = 0.4, reason = NULL WHERE seq = ?", seq)
    assert without() == [""] * 3


def test_a_risk_beyond_the_learned_hours_has_a_note(
    made: seeded_ward.Ward, reads: Database
) -> None:
    for pat_id, last in ((1, 47), (2, 48)):
        made.add_stay(pat_id, START)
        for hour in (0, last):
            at = START + timedelta(hours=hour)
            made.add_reading(pat_id, START, at, "heart_rate", 80.0, 0.25)
    made.commit()
    notes = []
    for pat_id in (1, 2):
        with reads.snapshot():
            reader = PatientReader(reads, StayKey(pat_id, START.date()))
            patient = reader.read(clock_of(reads), KEY, False)
        assert patient is not None
        for learned in (48.0, None):
            info = dataclasses.replace(INFO, learned_hours=learned)
            notes.append(bool(patient_content(patient, info, {})["patient"]["risk.learned"]))
    assert notes == [False, False, True, False]


class TestFigures:
    def test_only_a_new_identity_is_a_restart(self) -> None:
        named, unnamed = Service("redis", ""), Service("hospital", "")
        for state, identity in (("up", "a"), ("down", None), ("up", "a"), ("up", "b")):
            named.record(state, "", 0.0, {"": identity} if identity else {})
        for state in ("down", "up", "down", "down", "up"):
            unnamed.record(state, "", 0.0)
        assert named.restarts == 1
        assert (unnamed.restarts, unnamed.interruptions) == (None, 1)

    def test_the_workers_of_a_tool_restart_together_and_register_again_after_redis(self) -> None:
        board = Board()

        def restarts(at: float, run: str | None, *workers: str) -> int | None:
            named = {f"tool-{index}": name for index, name in enumerate(workers)}
            error = None if run else "does not answer"
            queues = QueueState(error, run_id=run, buffer="b", workers=named)
            well = Health(None, {})
            observed = Observation(queues, well, well, STREAM, 1, None, 0.0, 0.0)
            board.observe(observed, at)
            return board.services["tool"].restarts

        # The dashboard finds an old worker at its start.
        assert [restarts(0, "r1", "h 1"), restarts(1, "r1", "h 2", "h 3")] == [0, 0]
        assert [restarts(40, "r1", "h 4", "h 3"), restarts(41, "r1", "h 4", "h 5")] == [1, 1]
        assert [restarts(42, None), restarts(43, "r2", "h 4", "h 5")] == [1, 1]
        assert [restarts(45, "r2", "h 6", "h 7"), restarts(90, "r2", "h 6", "h 7")] == [1, 1]
        assert restarts(91, "r2", "h 8", "h 9") == 2
        # A second tool joins, and takes over all partitions when the first one ends.
        assert [restarts(92, "r2", "h 8", "i 1"), restarts(93, "r2", "i 2", "i 1")] == [2, 2]
        # A new container replaces the tool.
        assert restarts(94, "r2", "j 1", "j 2") == 3

    def test_rates_and_latencies_cover_the_last_seconds(self) -> None:
        throughput = Throughput()
        for second in range(100):
            latency = {10: 5 * second, 900: 3 if second > 20 else 0}
            throughput.add(Sample(float(second), STREAM, 20 * second, 20 * second - 7, latency))
        assert throughput.rate("taken") == 20.0
        assert throughput.rate("stored") == 20.0
        assert throughput.latency() == {10: 300, 900: 0}

    def test_samples_are_bounded(self) -> None:
        throughput = Throughput()
        for second in range(10_000):
            throughput.add(Sample(float(second), STREAM, second, second, {}))
        assert len(throughput._samples) <= 61
        assert len(throughput._history) <= 120


def test_all_readings_and_predictions_of_a_patient_are_read(
    made: seeded_ward.Ward, reads: Database
) -> None:
    fill(made, 2, 40)
    made.reject("value: not a number", '{"pat_id":2,"value":"<script>"}', pat_id=2)
    made.commit()
    reader = PatientReader(reads, StayKey(2, START.date()))
    with reads.snapshot():
        patient = reader.read(clock_of(reads), KEY, False)
    assert patient is not None
    assert len(patient.readings) == 40 * 3
    assert patient.latest is not None
    assert patient.latest.features == {
        "age": 63.2,
        "blood_pressure__last": None,
        "heart_rate__last": None,
        "respiration_rate__last": patient.readings[-1].value,
    }
    assert [message.reason for message in patient.rejected] == ["value: not a number"]
    html = Pages().entry(
        "rejected",
        "rejected:1",
        {"seq": "1", "reason": "x", "message": patient.rejected[0].message},
    )
    assert "<script>" not in html


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("DATABASE_URL", "postgres://x/y"),
        ("DASHBOARD_PORT", "eighty"),
        ("LOG_LEVEL", "loud"),
        ("DATABASE_PASSWORD_FILE", "/nowhere"),
    ],
)
def test_an_invalid_setting_is_reported_with_its_value(key: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"{key}={value}"):
        read(Settings, {key: value})
