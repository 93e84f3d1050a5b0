"""Compares the alarms of stored predictions with those that pandas computes, on SQLite and
MySQL.
"""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from tests.support import alarm_oracle
from tests.support.batches import FEATURES, Client, batch, handler_of, message, other
from tests.support.servers import rows
from tool.alarms import Alarms
from tool.data_handler import DataHandler
from tool.database import Database, connect
from tool.declarations import model_rows
from tool.model_client import Declaration, Model
from tool.pending import CatchUp
from wire.alarms import Policy
from wire.batches import Batch, RawMessage, partition_of
from wire.features import Feature

pytestmark = pytest.mark.timeout(60, func_only=True)

# The probability is the mean heart rate divided by 1000.
RULE = Policy(at=0.08, clear=0.075, for_hours=0.5, silence_hours=2, again_hours=3)
SHADOW = Policy(at=0.085)
DECLARATION = Declaration(
    Model("m", "1", FEATURES, RULE), [Model("m", "2", FEATURES, SHADOW), Model("n", "1", FEATURES)]
)
ALARMS = (
    "SELECT stream, seq, model, version, pat_id, kind, raised_seq, CAST(happened_at AS CHAR(19)),"
    " output, revision, author FROM alarms ORDER BY stream, seq, model, version"
)
STATES = "SELECT * FROM alarm_state ORDER BY stream, pat_id, date_admission, model, version"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = connect(url)
    opened.remember_models(model_rows(DECLARATION))
    yield opened
    opened.close()


@pytest.fixture
def handler(database: Database) -> DataHandler:
    return handler_of(database, DECLARATION)


def alarms(url: str, version: str = "1") -> list[tuple[Any, ...]]:
    """Each event of model m: its message, its kind, and the message that raised the alarm."""
    where = f"WHERE model = 'm' AND version = '{version}' ORDER BY seq"
    return rows(url, f"SELECT seq, kind, raised_seq FROM alarms {where}")


def at(hour: float, value: float = 80.0, **more: Any) -> bytes:
    """A message with a heart rate. The mean heart rate determines the probability."""
    whole = int(hour)
    return message(value, hour=whole, minute=round((hour - whole) * 60), **more)


def acknowledgement(hour: int, **more: Any) -> bytes:
    return other("acknowledgement", **{"author": "Ada", "day": "2150-03-01", "hour": hour} | more)


def discharge(hour: int = 20) -> bytes:
    day = "2150-03-01"
    return other("discharge", age=63.2, date_discharge=day, day=day, hour=hour)


@pytest.mark.parametrize(
    ("day", "hours"), [("0001-01-01", (0, 3, 5)), ("9999-12-31", (18, 21, 23))]
)
def test_a_stay_at_the_end_of_the_calendar_has_alarms_like_any_other(
    url: str, database: Database, day: str, hours: tuple[int, ...]
) -> None:
    """Some systems write the first or the last day of the calendar for an unknown time."""
    window = Feature.parse("heart_rate__count__6h").declaration()
    declaration = Declaration(Model("m", "1", [*FEATURES, window], RULE))
    stay: dict[str, Any] = {"date_admission": day, "day": day}
    sent = (
        *(at(hour, **stay) for hour in hours),
        acknowledgement(hours[-1], snooze_hours=12.0, **stay),
        other("discharge", age=63.2, date_discharge=day, **stay),
    )
    for after, one in enumerate(sent):
        # A new worker reads the stay from the tables.
        assert handler_of(database, declaration).handle(batch(after, one)).rejected == 0
    found = rows(url, "SELECT features FROM predictions ORDER BY seq")
    assert [json.loads(features)[-1] for (features,) in found] == [1, 2, 3]
    Alarms(database).compute()
    assert alarms(url) == [(2, "raise", 2), (4, "acknowledge", 2), (5, "clear", 2)]


def test_an_alarm_is_raised_acknowledged_and_cleared(
    url: str, database: Database, handler: DataHandler
) -> None:
    sent = (at(7), at(7.5), acknowledgement(8, snooze_hours=12.0), at(12), at(13, 40.0))
    handler.handle(batch(0, *sent))
    Alarms(database).compute()
    assert alarms(url) == [(2, "raise", 2), (3, "acknowledge", 2), (5, "clear", 2)]
    assert rows(url, "SELECT author FROM alarms WHERE author IS NOT NULL") == [("Ada",)]
    assert rows(url, "SELECT DISTINCT raised_seq, acknowledged_by FROM alarm_state") == [
        (None, None)
    ]
    alarm_oracle.check(url)


def test_a_snooze_ends_and_the_alarm_is_raised_again(
    url: str, database: Database, handler: DataHandler
) -> None:
    snooze = acknowledgement(8, snooze_hours=4.0, model="m")
    handler.handle(batch(0, at(7), at(7.5), snooze, at(11.5), at(12)))
    Alarms(database).compute()
    assert alarms(url) == [(2, "raise", 2), (3, "acknowledge", 2), (5, "again", 2)]
    found = rows(url, "SELECT raised_seq, acknowledged_by FROM alarm_state WHERE version = '1'")
    assert found == [(2, "Ada")]
    alarm_oracle.check(url)


def test_no_alarm_is_raised_beyond_the_learned_hours(url: str, database: Database) -> None:
    declaration = Declaration(
        Model("m", "1", FEATURES, msgspec.structs.replace(RULE, learned_hours=6))
    )
    database.remember_models(model_rows(declaration))
    handler = handler_of(database, declaration)
    handler.handle(batch(0, at(7), at(7.5), at(10.5)))
    Alarms(database).compute()
    # The next program starts with the state that is stored in the table.
    handler.handle(batch(3, at(13), at(13.5), at(14, 1.0), at(15, 300.0), at(16, 300.0)))
    Alarms(database).compute()
    assert alarms(url) == [(2, "raise", 2), (3, "again", 2), (6, "clear", 2)]
    alarm_oracle.check(url)


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        # A low prediction ends the time above the threshold.
        ([[at(7)], [at(7.25, 1.0)], [at(7.5, 300.0), at(7.75, 300.0), at(8, 300.0)]], [(5, 8.0)]),
        # The hours count from the stay's earliest prediction, even if it arrives late.
        ([[at(9, 1.0)], [at(5, 1.0)], [at(10.5, 300.0), at(11, 300.0)]], []),
        # A discharge sets the clock, even if only low predictions come with it.
        (
            [
                [discharge(20), other("admission", age=63.2, day="2150-03-01", hour=21), at(15, 1)],
                [at(16, 300.0), at(20.25, 300.0), at(20.5, 300.0)],
            ],
            [(6, 20.5)],
        ),
    ],
)
def test_rounds_with_only_low_predictions_count(
    rounds: list[list[bytes]], expected: list[tuple[int, float]], url: str, database: Database
) -> None:
    declaration = Declaration(
        Model("m", "1", FEATURES, msgspec.structs.replace(RULE, learned_hours=6))
    )
    database.remember_models(model_rows(declaration))
    handler, last = handler_of(database, declaration), 0
    for sent in rounds:
        handler.handle(batch(last, *sent))
        Alarms(database).compute()
        last += len(sent)
    found = rows(url, "SELECT seq, CAST(happened_at AS CHAR(19)) FROM alarms")
    assert [(seq, int(at[11:13]) + int(at[14:16]) / 60) for seq, at in found] == expected
    alarm_oracle.check(url)


def test_an_acknowledgement_of_another_model_changes_nothing(
    url: str, database: Database, handler: DataHandler
) -> None:
    handler.handle(batch(0, at(7), at(8), acknowledgement(8, model="n")))
    Alarms(database).compute()
    assert alarms(url) == [(2, "raise", 2)]


def test_a_discharge_clears_the_alarm_and_a_reopened_stay_can_have_one_again(
    url: str, database: Database, handler: DataHandler
) -> None:
    again = other("admission", age=63.2, day="2150-03-01", hour=21)
    handler.handle(batch(0, at(7), at(8), discharge(), again, at(22), at(23)))
    Alarms(database).compute()
    assert alarms(url) == [(2, "raise", 2), (3, "clear", 2), (6, "raise", 6)]
    alarm_oracle.check(url)


def test_a_model_outage_delays_alarms_but_changes_none(url: str, database: Database) -> None:
    client = Client(away=True)
    handler = handler_of(database, DECLARATION, client)
    computed = Alarms(database)
    handler.handle(batch(0, at(7), at(7.5), at(8, 40.0)))
    computed.compute()
    assert alarms(url) == []
    client.away = False
    handler.handle(batch(3, at(9, 200.0)))
    computed.compute()
    assert alarms(url) == []
    CatchUp(database, client).fill_in()  # type: ignore[arg-type]
    computed.compute()
    assert alarms(url)[:2] == [(2, "raise", 2), (3, "clear", 2)]
    alarm_oracle.check(url)


def test_a_new_rule_applies_to_later_predictions(
    url: str, database: Database, handler: DataHandler
) -> None:
    handler.handle(batch(0, at(7), at(8)))
    Alarms(database).compute()
    rule = msgspec.structs.replace(RULE, at=0.5, clear=0.5, revision=2)
    database.remember_models(model_rows(Declaration(Model("m", "1", FEATURES, rule))))
    handler.handle(batch(2, at(9)))
    Alarms(database).compute()
    found = rows(url, "SELECT kind, revision FROM alarms WHERE version = '1' ORDER BY seq")
    assert found == [("raise", 1), ("clear", 2)]


def test_a_replayed_message_does_not_change_alarms(
    url: str, database: Database, handler: DataHandler
) -> None:
    wrong = at(7.25, "none")  # type: ignore[arg-type]
    handler.handle(batch(0, at(7), wrong, at(7.5), at(8)))
    Alarms(database).compute()
    before = rows(url, ALARMS)
    handler.replay("s", 2, at(7.25, 10.0))
    Alarms(database).compute()
    assert rows(url, ALARMS) == before != []


def stream(draw: random.Random, count: int) -> list[bytes]:
    """Messages of five patients, some late, with acknowledgements, discharges and reopenings."""
    sent = []
    for number in range(count):
        stay = {"pat_id": draw.randrange(5), "date_admission": "2150-02-28"}
        minutes = max(0, 7 * number * 1400 // (7 * count) - draw.choice([0, 0, 0, 45]))
        when = {"day": "2150-03-01", "hour": minutes // 60, "minute": minutes % 60}
        kind = draw.choices(["reading", "ack", "discharge", "admission"], [30, 4, 1, 1])[0]
        if kind == "reading":
            sent.append(message(draw.gauss(80, 60) % 200, **stay, **when))
        elif kind == "ack":
            more = {"snooze_hours": draw.choice([0, 0.3, 4]), "model": draw.choice([None, "m"])}
            sent.append(other("acknowledgement", author="Ada", **stay, **when, **more))
        elif kind == "discharge":
            day = "2150-03-01"
            sent.append(other("discharge", age=63.2, date_discharge=day, **stay, **when))
        else:
            sent.append(other("admission", age=63.2, **stay, **when))
    return sent


class Killed(BaseException):
    """Stands for SIGKILL: no code of the tool handles this exception."""


@pytest.mark.parametrize("seed", range(3))
def test_the_same_stream_gives_the_same_alarms_after_outages_and_kills(
    seed: int, url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tool.alarms.STEP", 23)
    monkeypatch.setattr("tool.database.commit.GAP", 2)
    draw = random.Random(seed)
    sent = stream(draw, 400)
    numbered = [RawMessage(seq, 0.0, data) for seq, data in enumerate(sent, 1)]
    parts = {part: [r for r in numbered if partition_of(r.data, 2) == part] for part in (0, 1)}
    client = Client()
    # The first run has no faults. The second has small batches, outages and kills.
    for name, disturbed in (("calm", False), ("rough", True)):
        after, left = {0: 0, 1: 0}, {part: list(some) for part, some in parts.items()}
        handlers = {part: handler_of(database, DECLARATION, client) for part in parts}
        while any(left.values()):
            part = draw.choice([part for part, some in left.items() if some])
            size = draw.randrange(1, 40) if disturbed else 1000
            some, left[part] = left[part][:size], left[part][size:]
            client.away = disturbed and draw.random() < 0.4
            handlers[part].handle(Batch(name, part, after[part], some))
            after[part] = some[-1].seq
            if disturbed:
                compute_and_kill(draw, database)
                client.away = False
                if draw.random() < 0.5:
                    CatchUp(database, client).fill_in()  # type: ignore[arg-type]
                if draw.random() < 0.5:
                    Alarms(database).compute()
        CatchUp(database, client).fill_in()  # type: ignore[arg-type]
        Alarms(database).compute()
    calm, rough = of_stream(rows(url, ALARMS), "calm"), of_stream(rows(url, ALARMS), "rough")
    assert rough == calm
    assert of_stream(rows(url, STATES), "rough") == of_stream(rows(url, STATES), "calm")
    kinds = {row[4] for row in calm}
    assert kinds == {"raise", "again", "acknowledge", "clear"}
    alarm_oracle.check(url)


@pytest.mark.parametrize("before", [0, 2], ids=["new", "idle"])
def test_alarms_of_a_partition_that_was_idle_do_not_begin_at_its_last_message(
    url: str, database: Database, before: int
) -> None:
    far = 5_000_000
    sent = [RawMessage(seq, 0.0, at(7 + seq / 2)) for seq in (1, 2)]
    late = [RawMessage(far + seq, 0.0, at(9 + seq / 2, pat_id=18)) for seq in (1, 2)]
    handler = handler_of(database, DECLARATION)
    handler.handle(Batch("s", 0, 0, [*sent, RawMessage(far, 0.0, at(8, pat_id=19))]))
    if before:
        handler.handle(Batch("s", 1, 0, [RawMessage(2, 0.0, b"")]))
    Alarms(database).compute()
    assert alarms(url) == [(2, "raise", 2)]
    handler.handle(Batch("s", 1, before, late))
    positions = "SELECT DISTINCT part, seq FROM alarm_positions WHERE stream = 's' ORDER BY part"
    assert rows(url, positions) == [(0, far), (1, far)]
    Alarms(database).compute()
    assert alarms(url) == [(2, "raise", 2), (far + 2, "raise", far + 2)]


def test_messages_that_are_stored_while_alarms_are_computed_are_not_skipped(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(5)
    worker = connect(url)
    handler = handler_of(worker, DECLARATION)
    left: list[list[Batch]] = []
    session = database.session
    execute, writing = session.execute, False

    def store_next() -> None:
        waiting = [batches for batches in left if batches]
        if waiting and draw.random() < 0.2:
            [some] = draw.choices(waiting, [len(batches) for batches in waiting])
            handler.handle(some.pop(0))

    def store_before(name: str) -> None:
        begin = getattr(session, name)

        def begin_later(cursor: Any) -> None:
            nonlocal writing
            store_next()
            writing = name == "begin"
            begin(cursor)

        monkeypatch.setattr(session, name, begin_later)

    def execute_later(cursor: Any, *arguments: Any) -> None:
        if not (writing and url.startswith("sqlite")):  # SQLite has one writer at a time
            store_next()
        execute(cursor, *arguments)

    for name in ("begin", "begin_reading", "begin_snapshot"):
        store_before(name)
    monkeypatch.setattr(session, "execute", execute_later)
    for name in "abcdef":
        sent = stream(draw, 300)
        left = [batches(name, sent, part, size) for part, size in ((0, 30), (1, 6))]
        while any(left):
            Alarms(database).compute()
    Alarms(database).compute()
    worker.close()
    alarm_oracle.check(url)


def batches(name: str, sent: list[bytes], part: int, size: int) -> list[Batch]:
    """The messages of one of the two partitions, in batches of `size`."""
    numbered = [RawMessage(seq, 0.0, data) for seq, data in enumerate(sent, 1)]
    some = [raw for raw in numbered if partition_of(raw.data, 2) == part]
    starts = range(0, len(some), size)
    after = [0, *(some[start - 1].seq for start in starts[1:])]
    return [
        Batch(name, part, last, some[start : start + size])
        for start, last in zip(starts, after, strict=True)
    ]


def of_stream(found: list[tuple[Any, ...]], name: str) -> list[tuple[Any, ...]]:
    return [row[1:] for row in found if row[0] == name]


def compute_and_kill(draw: random.Random, database: Database) -> None:
    """Computes alarms until a simulated kill at one of the first inserts."""
    left = draw.randrange(6)
    execute = database.session.insert

    def failing(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        execute(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database.session, "insert", failing)
        with suppress(Killed):
            Alarms(database).compute()
