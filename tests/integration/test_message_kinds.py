"""Tests each type of message in the handler of a worker, on SQLite and MySQL."""

import asyncio
import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.batches import (
    Client,
    batch,
    handler_of,
    message,
    other,
    remember,
    write_vitals_every,
)
from tests.support.gateway import events, gateway, oru, send_all
from tests.support.hl7_corpus import obx
from tests.support.message_oracle import Expected
from tests.support.servers import rows
from tool.data_handler import DataHandler
from tool.database import Changes, Database, Moved, Unavailable, connect
from tool.model_client import Declaration, Model
from wire.batches import Batch, RawMessage
from wire.features import Feature

pytestmark = pytest.mark.timeout(60, func_only=True)

FEATURES: list[dict[str, Any]] = [
    Feature.parse(name, required=name == "heart_rate__mean").declaration()
    for name in (
        *("age", "heart_rate__mean", "heart_rate__count", "heart_rate__last"),
        *("heart_rate__max__6h", "spo2__age"),
    )
]
DECLARATION = Declaration(Model("m", "2", FEATURES), [Model("m", "1", FEATURES)])
VITALS = "SELECT parameter, n, mean, `last_value` FROM vitals ORDER BY parameter"
READINGS = "SELECT seq, value FROM readings ORDER BY seq"
WITHDRAWN = "SELECT seq, of_seq, parameter, value FROM withdrawn ORDER BY seq"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = connect(url)
    yield opened
    opened.close()


@pytest.fixture
def handler(database: Database) -> DataHandler:
    remember(database, DECLARATION)
    return handler_of(database, DECLARATION)


def features(url: str, seq: int) -> dict[str, float | None]:
    """The features of the champion's prediction for message `seq`."""
    where = f"WHERE seq = {seq} AND version = '2'"
    return dict(rows(url, f"SELECT feature, value FROM prediction_features {where}"))  # type: ignore[arg-type]


def discharge(day: str = "2150-03-01") -> bytes:
    return other("discharge", age=63.2, date_discharge=day, day=day)


def admission(**members: Any) -> bytes:
    return other("admission", **{"age": 63.2, "day": "2150-03-02", "hour": 8} | members)


def test_minutes_and_seconds_are_stored_and_used_for_windows(
    url: str, database: Database, handler: DataHandler
) -> None:
    edge = [(1, 0, 0), (1, 0, 1)]
    sent = [
        message(90.0 + place, hour=hour, minute=minute, second=second)
        for place, (hour, minute, second) in enumerate(edge)
    ]
    handler.handle(batch(0, *sent, message(97.0, parameter="spo2", hour=7, minute=0, second=0)))
    times = rows(url, "SELECT CAST(measured_at AS CHAR(19)) FROM readings ORDER BY seq")
    assert [text[11:] for (text,) in times] == ["01:00:00", "01:00:01", "07:00:00"]
    assert features(url, 3)["heart_rate__max__6h"] == 91.0
    # After a reload from the tables, the window is the same.
    late = message(60.0, hour=6, minute=59, second=59)
    handler_of(database, DECLARATION).handle(batch(3, late))
    assert features(url, 4)["heart_rate__max__6h"] == 91.0
    last = message(50.0, hour=7, minute=0, second=1)
    handler_of(database, DECLARATION).handle(batch(4, last))
    assert features(url, 5)["heart_rate__max__6h"] == 60.0


def test_an_admission_opens_a_stay(url: str, handler: DataHandler) -> None:
    handler.handle(batch(0, admission(place="Bed 4", identifier="P-0017", age=None)))
    columns = "pat_id, age, date_discharge, identifier, place"
    assert rows(url, f"SELECT {columns} FROM stays") == [(17, None, None, "P-0017", "Bed 4")]
    handler.handle(batch(1, message(80.0), admission(place="Bed 5")))
    assert rows(url, f"SELECT {columns} FROM stays") == [(17, 63.2, None, "P-0017", "Bed 5")]


def test_an_admission_reopens_a_discharged_stay(
    url: str, database: Database, handler: DataHandler
) -> None:
    handler.handle(batch(0, message(80.0), discharge(), message(81.0)))
    handler_of(database, DECLARATION).handle(batch(3, admission(), message(82.0)))
    assert rows(url, "SELECT date_discharge FROM stays") == [(None,)]
    predicted = rows(url, "SELECT seq FROM predictions WHERE version = '2' ORDER BY seq")
    assert predicted == [(1,), (5,)]
    assert features(url, 5)["heart_rate__count"] == 3


@pytest.mark.parametrize("split", [False, True], ids=["one batch", "batches"])
def test_a_withdrawn_reading_is_removed_from_statistics_and_windows(
    url: str, handler: DataHandler, split: bool
) -> None:
    sent = [
        message(80.0, hour=1),
        message(200.0, hour=20),
        other("withdrawal", of=2),
        message(70.0, hour=2),
    ]
    for one in [batch(seq, data) for seq, data in enumerate(sent)] if split else [batch(0, *sent)]:
        handler.handle(one)
    assert rows(url, READINGS) == [(1, 80.0), (4, 70.0)]
    assert rows(url, WITHDRAWN) == [(3, 2, "heart_rate", 200.0)]
    assert rows(url, VITALS) == [("heart_rate", 2, 75.0, 70.0)]
    # The prediction for the withdrawn reading remains, and the clock has gone back.
    assert features(url, 2)["heart_rate__mean"] == 140.0
    after = features(url, 4)
    assert (after["heart_rate__mean"], after["heart_rate__count"]) == (75.0, 2)
    assert after["heart_rate__max__6h"] == 80.0


def test_the_last_reading_of_a_parameter_can_be_withdrawn(
    url: str, database: Database, handler: DataHandler
) -> None:
    handler.handle(batch(0, message(80.0), message(97.0, parameter="spo2")))
    handler.backlog = True
    handler.handle(batch(2, other("withdrawal", of=1)))
    assert rows(url, VITALS) == [("spo2", 1, 97.0, 97.0)]
    handler.handle(batch(3, message(60.0)))
    # The worker is killed before it writes the vitals of the last batch.
    handler_of(database, DECLARATION).handle(batch(4, message(62.0)))
    assert rows(url, VITALS) == [("heart_rate", 2, 61.0, 62.0), ("spo2", 1, 97.0, 97.0)]


def test_a_withdrawal_is_not_lost_when_the_vitals_are_behind(
    url: str, database: Database, handler: DataHandler
) -> None:
    handler.handle(batch(0, message(80.0), message(200.0)))
    handler.backlog = True
    handler.handle(batch(2, message(82.0), other("withdrawal", of=2), message(84.0)))
    handler_of(database, DECLARATION).handle(batch(5, message(86.0)))
    assert rows(url, VITALS) == [("heart_rate", 4, 83.0, 86.0)]
    assert features(url, 6)["heart_rate__mean"] == 83.0


@pytest.mark.parametrize(
    "wrong",
    [
        other("withdrawal", of=999),
        other("withdrawal", of=3),
        other("withdrawal", of=1, pat_id=18),
        other("withdrawal", of=1, date_admission="2150-02-27"),
        other("withdrawal", of=2),
    ],
    ids=["unknown", "itself", "other patient", "other stay", "withdrawn before"],
)
@pytest.mark.parametrize("split", [False, True], ids=["one batch", "batches"])
def test_a_withdrawal_without_its_reading_is_rejected(
    url: str, handler: DataHandler, wrong: bytes, split: bool
) -> None:
    first = (message(80.0), message(90.0), other("withdrawal", of=2))
    if split:
        handler.handle(batch(0, *first))
        result = handler.handle(batch(3, wrong))
    else:
        result = handler.handle(batch(0, *first, wrong))
    assert result.codes == {"unknown_reading": 1}
    assert rows(url, "SELECT seq FROM rejected") == [(4,)]
    assert rows(url, READINGS) == [(1, 80.0)]
    assert rows(url, "SELECT pat_id FROM stays") == [(17,)]


def test_a_value_that_the_gateway_cannot_use_is_rejected_with_the_gateways_reason(
    url: str, handler: DataHandler, tmp_path: Path
) -> None:
    async def run() -> None:
        async with gateway(tmp_path / "log") as running:
            outside = oru(obx(), patient="P2", bed="WARD^1^1", control="2")
            await send_all(running.mllp, [oru(obx("8310-5^Temp^LN", unit="furlong")), outside])

    asyncio.run(run())
    sent = [json.dumps(event).encode() for event in events(tmp_path / "log")]
    result = handler.handle(batch(0, *sent))
    assert result.codes == {"unusable": 2}
    assert rows(url, "SELECT reason, pat_id IS NULL FROM rejected ORDER BY seq") == [
        ("8310-5: unknown unit 'furlong'", 1),
        ("heart_rate: the patient is not in the ICU", 0),
    ]


def test_a_repeated_withdrawn_reading_stays_withdrawn(
    url: str, database: Database, handler: DataHandler
) -> None:
    # Readings after a discharge have no predictions, so the key of `predictions` does not prevent
    # such a reading from being stored twice.
    sent = [message(80.0), discharge(), message(90.0), other("withdrawal", of=3), message(82.0)]
    sent += [other("outcome", name="died", value=1, day="2150-03-01")]
    sent += [other("acknowledgement", author="ab", day="2150-03-01")]
    handler.handle(batch(0, *sent))
    tables = ("readings", "withdrawn", "vitals", "stays", "outcomes", "acknowledgements")
    before = [
        rows(url, f"SELECT * FROM {table} ORDER BY seq") for table in tables if table != "stays"
    ]
    again = handler_of(database, DECLARATION)
    for one in (batch(0, *sent[:3], part=1), batch(3, *sent[3:], part=1)):
        assert again.handle(one).rejected == 0
    after = [
        rows(url, f"SELECT * FROM {table} ORDER BY seq") for table in tables if table != "stays"
    ]
    assert after == before
    assert rows(url, "SELECT seq FROM rejected") == []
    assert rows(url, READINGS) == [(1, 80.0), (5, 82.0)]


def test_a_rejected_withdrawal_is_replayed_after_its_reading(
    url: str, database: Database, handler: DataHandler
) -> None:
    handler.handle(batch(0, message(80.0), b"no message yet", other("withdrawal", of=2)))
    handler.replay("s", 2, message(200.0))
    assert rows(url, VITALS) == [("heart_rate", 2, 140.0, 200.0)]
    handler.replay("s", 3, other("withdrawal", of=2))
    assert rows(url, VITALS) == [("heart_rate", 1, 80.0, 80.0)]
    assert rows(url, WITHDRAWN) == [(3, 2, "heart_rate", 200.0)]
    assert rows(url, "SELECT seq FROM rejected") == []


def test_completing_the_vitals_starts_again_after_a_withdrawal(
    url: str, database: Database, handler: DataHandler
) -> None:
    handler.handle(batch(0, message(80.0)))
    handler.backlog = True
    handler.handle(batch(1, message(97.0, parameter="spo2")))
    behind = database.behind("s")
    handler.handle(batch(2, other("withdrawal", of=2)))
    with pytest.raises(Moved):
        database.catch_up("s", behind, [])
    database.catch_up("s", database.behind("s"), [])


def test_outcomes_and_acknowledgements_are_stored_without_opening_a_stay(
    url: str, handler: DataHandler
) -> None:
    at = {"day": "2150-03-01", "hour": 7, "minute": 30}
    handler.handle(
        batch(
            0,
            other("outcome", name="died", value=1, **at),
            other("acknowledgement", author="Dr A", model="m", snooze_hours=2, **at),
            other("acknowledgement", author="Dr B", **at),
        )
    )
    assert rows(url, "SELECT seq, pat_id, name, value FROM outcomes") == [(1, 17, "died", 1.0)]
    found = rows(url, "SELECT seq, model, author, snooze_hours FROM acknowledgements ORDER BY seq")
    assert found == [(2, "m", "Dr A", 2.0), (3, None, "Dr B", 0.0)]
    for table, column in (("outcomes", "happened_at"), ("acknowledgements", "acknowledged_at")):
        times = rows(url, f"SELECT CAST({column} AS CHAR(19)) FROM {table}")
        assert set(times) == {("2150-03-01 07:30:00",)}
    assert rows(url, "SELECT * FROM stays") == []


def test_a_message_of_an_unknown_type_is_rejected(url: str, handler: DataHandler) -> None:
    result = handler.handle(batch(0, other("transfusion", day="2150-03-01"), message(80.0)))
    assert (result.stored, result.codes) == (1, {"malformed": 1})
    assert rows(url, "SELECT seq, pat_id FROM rejected") == [(1, 17)]


def test_two_versions_of_a_model_run_side_by_side(url: str, database: Database) -> None:
    client = Client()
    handler = handler_of(database, DECLARATION, client)
    handler.handle(batch(0, message(80.0)))
    client.away = True
    handler.handle(batch(1, message(82.0)))
    found = rows(url, "SELECT seq, model, version FROM predictions ORDER BY seq, version")
    assert found == [(1, "m", "1"), (1, "m", "2"), (2, "m", "1"), (2, "m", "2")]
    assert rows(url, "SELECT seq, version FROM pending ORDER BY version") == [(2, "1"), (2, "2")]


def stream(chance: random.Random, length: int) -> dict[int, bytes]:
    """Messages about six stays, of every type except `unusable`. Some are late or invalid."""
    sent: dict[int, bytes] = {}
    readings: dict[int, dict[str, Any]] = {}
    for seq in range(1, length + 1):
        stay = {
            "pat_id": chance.randrange(3),
            "date_admission": chance.choice(["2150-02-27", "2150-02-28"]),
        }
        at = {
            "day": f"2150-03-0{chance.randrange(1, 3)}",
            "hour": chance.randrange(24),
            **chance.choice(
                [{}, {"minute": chance.choice([0, 59]), "second": chance.choice([0, 1])}]
            ),
        }
        match chance.randrange(20):
            case 0:
                sent[seq] = other(
                    "discharge", **stay, age=None, date_discharge=at["day"], day=at["day"]
                )
            case 1:
                place = {"place": f"Bed {seq}"} if chance.random() < 0.5 else {}
                sent[seq] = other("admission", **stay, age=float(seq % 90), **at, **place)
            case 2 | 3 | 4 if readings:
                of = chance.choice(list(readings))
                members = {"pat_id": readings[of]["pat_id"]}
                members["date_admission"] = readings[of]["date_admission"]
                sent[seq] = other("withdrawal", of=of, **members)
            case 5:
                sent[seq] = other("withdrawal", of=chance.randrange(1, 2 * length), **stay)
            case 6:
                sent[seq] = other("outcome", **stay, name="died", value=1, **at)
            case 7:
                sent[seq] = other("acknowledgement", **stay, author="ab", **at)
            case 8:
                sent[seq] = chance.choice([b"not a message", other("unknown", **stay)])
            case _:
                readings[seq] = stay
                parameter = chance.choice(["heart_rate", "heart_rate", "spo2"])
                value = float(chance.randrange(40, 100))
                age = chance.choice([None, 60.5])
                sent[seq] = message(value, **stay, age=age, parameter=parameter, **at)
    return sent


def patient(data: bytes) -> int:
    try:
        return int(json.loads(data)["pat_id"])
    except ValueError:
        return 0


@pytest.mark.parametrize(
    ("url", "seed"),
    [*(("sqlite", seed) for seed in range(12)), *(("mysql", seed) for seed in (12, 13))],
    indirect=["url"],
)
def test_any_history_gives_the_rows_that_pandas_computes(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr("tool.stays.STAYS_IN_MEMORY", chance.choice([1, 4, 1000]))
    write_vitals_every(chance.choice([0.0, 1e9]), monkeypatch)
    # The stream is shorter on MySQL, because each failure costs a new connection, which takes 50
    # times as long there.
    sent = stream(chance, 160 if url.startswith("sqlite") else 40)
    remember(database, DECLARATION)
    parts: dict[int, list[RawMessage]] = {0: [], 1: []}
    for seq, data in sent.items():
        parts[patient(data) % 2].append(RawMessage(seq, 0.0, data))
    drive(database, chance, parts, monkeypatch)
    expected = Expected(sent)
    compare(url, expected)
    # All messages are sent again, in other batches, as after a change of the number of partitions
    # and a wipe of Redis.
    whole = [RawMessage(seq, 0.0, data) for seq, data in sent.items()]
    handler_of(database, DECLARATION).handle(Batch("s", 2, 0, whole))
    compare(url, expected)


def drive(
    database: Database,
    chance: random.Random,
    parts: dict[int, list[RawMessage]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stores all messages. At random, a worker is replaced by a new one, the two workers swap their
    partitions, or a commit fails before or after it has stored its changes.
    """
    commit = database.commit

    def failing_commit(changes: Changes) -> None:
        if chance.random() < 0.05:
            raise Unavailable("before")
        commit(changes)
        if chance.random() < 0.05:
            raise Unavailable("after")

    workers = {part: handler_of(database, DECLARATION) for part in parts}
    done = dict.fromkeys(parts, 0)
    with monkeypatch.context() as patch:
        patch.setattr(database, "commit", failing_commit)
        while left := [part for part in parts if done[part] < len(parts[part])]:
            part = chance.choice(left)
            begin, end = done[part], done[part] + chance.randrange(1, 15)
            after = parts[part][begin - 1].seq if begin else 0
            if chance.random() < 0.2:
                workers[part] = handler_of(database, DECLARATION)
            elif chance.random() < 0.1:
                workers = {0: workers[1], 1: workers[0]}
            workers[part].backlog = chance.random() < 0.7
            try:
                workers[part].handle(Batch("s", part, after, parts[part][begin:end]))
                done[part] = min(end, len(parts[part]))
            except (Moved, Unavailable):
                pass  # Redis delivers the batch again
    for worker in workers.values():
        with suppress(Moved):
            worker.complete()
    handler_of(database, DECLARATION).complete()


def numbers(features: dict[str, float | None]) -> dict[str, float]:
    """The features, with NaN for a missing value."""
    return {name: math.nan if value is None else value for name, value in features.items()}


def compare(url: str, expected: Expected) -> None:
    """Compares all tables with the tables of the oracle."""
    readings = expected.readings
    wanted = list(zip(readings["seq"], readings["value"], readings["text"], strict=True))
    at = "CAST(measured_at AS CHAR(19))"
    assert rows(url, f"SELECT seq, value, {at} FROM readings ORDER BY seq") == wanted
    assert rows(url, "SELECT seq, of_seq FROM withdrawn ORDER BY seq") == expected.withdrawn
    assert [
        seq for (seq,) in rows(url, "SELECT seq FROM rejected ORDER BY seq")
    ] == expected.rejected
    day = "CAST(date_admission AS CHAR(10))"
    stays = rows(
        url,
        f"SELECT pat_id, {day}, age, CAST(date_discharge AS CHAR(10)), identifier, place FROM stays"
        " ORDER BY pat_id, date_admission",
    )
    assert stays == [(*key, *stay.values()) for key, stay in sorted(expected.stays.items())]
    ends = "`first_value`, CAST(first_at AS CHAR(19)), `last_value`, CAST(last_at AS CHAR(19))"
    vitals = rows(
        url,
        f"SELECT pat_id, {day}, parameter, n, mean, m2, minimum, maximum, {ends} FROM vitals"
        " ORDER BY pat_id, date_admission, parameter",
    )
    computed = expected.vitals()
    assert [row[:4] for row in vitals] == [row[:4] for row in computed]
    assert [row[6:] for row in vitals] == [row[6:] for row in computed]
    for found, right in zip(vitals, computed, strict=True):
        assert found[4:6] == pytest.approx(right[4:6], rel=1e-9, abs=1e-7)
    for version in ("1", "2"):
        predictions = rows(
            url,
            f"SELECT seq, output, reason FROM predictions WHERE version = '{version}' ORDER BY seq",
        )
        assert [seq for seq, *_ in predictions] == list(expected.predictions)
        found_features: defaultdict[int, dict[str, float | None]] = defaultdict(dict)
        for seq, name, value in rows(
            url, f"SELECT seq, feature, value FROM prediction_features WHERE version = '{version}'"
        ):
            found_features[seq][name] = value
        for seq, output, reason in predictions:
            right_features = expected.predictions[seq]
            assert numbers(found_features[seq]) == pytest.approx(
                numbers(right_features), rel=1e-9, nan_ok=True
            )
            mean = right_features["heart_rate__mean"]
            assert (output is None, reason is None) == (mean is None, mean is not None)
            if mean is not None:
                assert output == pytest.approx(mean / 1000)
    for table, columns, wanted_rows in (
        ("outcomes", "name, value, CAST(happened_at AS CHAR(19))", expected.outcomes),
        (
            "acknowledgements",
            "model, author, CAST(acknowledged_at AS CHAR(19))",
            expected.acknowledgements,
        ),
    ):
        found_rows = rows(url, f"SELECT seq, pat_id, {day}, {columns} FROM {table} ORDER BY seq")
        assert found_rows == wanted_rows
