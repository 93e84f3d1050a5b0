"""One batch after the other through the handler, on SQLite and MySQL, in good order and in bad."""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import fsum
from typing import Any

import pytest

from tests.support.servers import rows
from tool.attendant import Attendant
from tool.data_handler import Batch, DataHandler, Early
from tool.database import Changes, Database, Moved, Unavailable, connect
from tool.model_client import Declaration, Model, ModelUnavailable

pytestmark = pytest.mark.timeout(60, func_only=True)

FEATURES: list[dict[str, Any]] = [
    {
        "name": name,
        "parameter": parameter,
        "aggregation": aggregation,
        "window_hours": None,
        "fill": None,
        "required": True,
    }
    for name, parameter, aggregation in (
        ("age", None, None),
        ("heart_rate__mean", "heart_rate", "mean"),
        ("heart_rate__count", "heart_rate", "count"),
    )
]
DECLARATION = Declaration(Model("m", "1", FEATURES))


class Client:
    """Answers the mean divided by 1000, and is away when told to."""

    def __init__(self, away: bool = False) -> None:
        self.away = away
        self.calls: list[tuple[str, int]] = []

    def predict(self, model: str, version: str, asked: Sequence[str]) -> list[float]:
        self.calls.append((model, len(asked)))
        if self.away:
            raise ModelUnavailable
        return [(json.loads(row)["heart_rate__mean"] or 0.0) / 1000 for row in asked]


def message(value: object = 80.0, **other: Any) -> bytes:
    found = {
        "type": "reading",
        "pat_id": 17,
        "age": 63.2,
        "date_admission": "2150-02-28",
        "date_discharge": None,
        "day": "2150-03-01",
        "hour": 7,
        "parameter": "heart_rate",
        "value": value,
    }
    return json.dumps(found | other).encode()


def batch(after: int, *messages: bytes, stream: str = "s") -> Batch:
    numbered = [(after + place, 0.0, data) for place, data in enumerate(messages, start=1)]
    return Batch(stream, 0, after, numbered)


def handler_of(database: Database) -> DataHandler:
    found = DataHandler(database, Client())  # type: ignore[arg-type]
    found.declare(DECLARATION)
    return found


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = connect(url)
    yield opened
    opened.close()


@pytest.fixture
def other(url: str) -> Iterator[Database]:
    """A second worker's connection."""
    opened = connect(url)
    yield opened
    opened.close()


FIRST = batch(0, message(80.0), message(90.0))
SECOND = batch(2, message(100.0), message(70.0))


def stored(url: str, stream: str = "s") -> list[Any]:
    """All that a stream's batches leave, but for when."""
    return [
        rows(url, f"SELECT {columns} FROM {table} WHERE stream = '{stream}' ORDER BY 1, 2")
        for table, columns in (
            ("readings", "seq, value"),
            ("vitals", "n, mean, m2, minimum, maximum"),
            ("stays", "pat_id, age"),
            ("predictions", "seq, probability, reason"),
            ("positions", "part, seq"),
            ("rejected", "seq, reason"),
        )
    ]


@pytest.fixture
def undisturbed(url: str, database: Database) -> list[Any]:
    handler = handler_of(database)
    for one in (FIRST, SECOND):
        handler.handle(Batch("calm", 0, one.after, one.messages))
    return stored(url, "calm")


def test_the_undisturbed_run_is_what_it_should_be(undisturbed: list[Any]) -> None:
    readings, vitals, stays, predictions, positions, rejected = undisturbed
    assert readings == [(1, 80.0), (2, 90.0), (3, 100.0), (4, 70.0)]
    assert vitals == [(4, 85.0, 500.0, 70.0, 100.0)]
    assert stays == [(17, 63.2)]
    assert predictions == [(1, 0.08, None), (2, 0.085, None), (3, 0.09, None), (4, 0.085, None)]
    assert positions == [(0, 4)]
    assert rejected == []


def test_a_batch_before_its_turn_changes_nothing(
    url: str,
    database: Database,
    undisturbed: list[Any],
) -> None:
    handler = handler_of(database)
    with pytest.raises(Early):
        handler.handle(SECOND)
    assert stored(url) == [[], [], [], [], [], []]
    handler.handle(FIRST)
    handler.handle(SECOND)
    assert stored(url) == undisturbed


def test_batches_that_come_again_or_overlap_add_only_what_is_new(
    url: str,
    database: Database,
    undisturbed: list[Any],
) -> None:
    handler = handler_of(database)
    whole = batch(0, *(data for _, _, data in (*FIRST.messages, *SECOND.messages)))
    for one in (FIRST, FIRST, whole, SECOND, FIRST, whole):
        handler.handle(one)
    assert stored(url) == undisturbed


def test_a_worker_whose_memory_is_old_sees_it(
    url: str,
    database: Database,
    other: Database,
    undisturbed: list[Any],
) -> None:
    zombie, successor = handler_of(database), handler_of(other)
    zombie.handle(FIRST)
    successor.handle(SECOND)
    # It believes to be where SECOND begins, and knows the stay as it was then.
    with pytest.raises(Moved):
        zombie.handle(SECOND)
    zombie.handle(SECOND)
    assert stored(url) == undisturbed
    successor.handle(batch(4, message(60.0)))
    zombie.handle(batch(5, message(61.0)))
    assert rows(url, "SELECT n FROM vitals WHERE stream = 's'") == [(6,)]


def choking(database: Database) -> DataHandler:
    found = Choking(database, Client())  # type: ignore[arg-type]
    found.declare(DECLARATION)
    return found


STATISTICS = (
    "pat_id, parameter, n, ROUND(mean, 9), minimum, maximum, `last_value`,"
    " CAST(last_at AS CHAR(19))"
)
BEHIND = "SELECT part FROM positions WHERE vitals_seq < seq"


def test_vitals_may_wait_while_batches_do_and_the_next_worker_makes_up_for_them(
    url: str,
    database: Database,
    other: Database,
    undisturbed: list[Any],
) -> None:
    killed = handler_of(database)
    killed.handle(FIRST, more=True)  # the first is always written: nothing was before
    killed.handle(SECOND, more=True)
    assert rows(url, "SELECT n, seq FROM vitals WHERE stream = 's'") == [(2, 2)]
    assert rows(url, BEHIND) == [(0,)]
    # Nothing of it is left but the tables.
    successor = handler_of(other)
    successor.handle(batch(4, message(60.0)), more=True)
    assert rows(url, "SELECT n, mean, seq FROM vitals WHERE stream = 's'") == [(5, 80.0, 5)]
    successor.handle(batch(5, message(140.0)), more=True)
    successor.complete()
    assert rows(url, "SELECT n, mean, seq FROM vitals WHERE stream = 's'") == [(6, 90.0, 6)]
    assert rows(url, BEHIND) == []
    # The killed one was only asleep. What it has in memory is old by now.
    with pytest.raises(Moved):
        killed.complete()
    killed.complete()
    assert rows(url, "SELECT n, mean, seq FROM vitals WHERE stream = 's'") == [(6, 90.0, 6)]


def test_a_message_that_is_set_aside_does_not_speak_for_the_vitals(
    url: str, database: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = choking(database)
    killed.handle(batch(0, message(80.0)), more=True)
    killed.handle(batch(1, message(81.0)), more=True)
    monkeypatch.setattr("tool.stays.VITALS_EVERY", 0.0)
    killed.handle(batch(2, message(90.5)), more=True)
    handler_of(other).handle(batch(3, message(82.0)))
    assert rows(url, "SELECT n, mean FROM vitals") == [(3, 81.0)]


def test_a_worker_with_nothing_to_do_makes_up_for_a_killed_one(
    url: str, database: Database, other: Database
) -> None:
    killed = handler_of(database)
    killed.handle(FIRST, more=True)
    killed.handle(SECOND, more=True)
    handler_of(other).complete()
    assert rows(url, "SELECT n, seq FROM vitals") == [(4, 4)]
    assert rows(url, BEHIND) == []


def test_a_stay_that_leaves_memory_is_written_first(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tool.stays.STAYS_IN_MEMORY", 3)
    made_up_for: list[Any] = []
    monkeypatch.setattr(database, "catch_up", lambda *given: made_up_for.append(given))
    handler = handler_of(database)
    for turn in range(20):
        sent = [message(70.0 + turn, pat_id=(2 * turn + place) % 7) for place in range(2)]
        handler.handle(batch(2 * turn, *sent), more=True)
    written = rows(url, "SELECT pat_id, n FROM vitals WHERE seq = (SELECT MAX(seq) FROM vitals)")
    assert len(written) < 7
    handler.complete()
    assert made_up_for == []
    counts = rows(url, "SELECT pat_id, COUNT(*) FROM readings GROUP BY pat_id ORDER BY pat_id")
    assert rows(url, "SELECT pat_id, n FROM vitals ORDER BY pat_id") == counts


def test_one_worker_of_many_streams_lets_none_of_their_stays_go_unwritten(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tool.stays.STAYS_IN_MEMORY", 2)
    handler = handler_of(database)
    for turn in range(9):
        stream = "abc"[turn % 3]
        handler.handle(batch(turn // 3, message(70.0 + turn), stream=stream), more=True)
    for stream in "abc":
        handler.handle(batch(3, message(70.0, pat_id=18), stream=stream))
    found = rows(url, "SELECT stream, pat_id, n FROM vitals ORDER BY stream, pat_id")
    assert found == [(stream, *one) for stream in "abc" for one in ((17, 3), (18, 1))]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_befalls_the_workers_the_vitals_end_as_the_readings_say(
    url: str,
    database: Database,
    other: Database,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr("tool.stays.STAYS_IN_MEMORY", chance.choice([2, 5, 1000]))
    monkeypatch.setattr("tool.stays.VITALS_EVERY", chance.choice([0.0, 0.01, 1000.0]))
    sent: dict[int, list[tuple[int, float, bytes]]] = {0: [], 1: []}
    expected: dict[tuple[int, str], list[tuple[int, float, int]]] = {}
    for seq in range(1, 301):
        pat_id, parameter = chance.randrange(8), chance.choice(["heart_rate", "spo2"])
        value, hour = float(chance.randrange(40, 90)), chance.randrange(24)
        data = message(value, pat_id=pat_id, parameter=parameter, hour=hour)
        if chance.random() < 0.02:
            data = b"not a message"
        elif chance.random() < 0.02:
            data = message(90.5, pat_id=pat_id)  # on which a worker chokes
        else:
            expected.setdefault((pat_id, parameter), []).append((hour, value, seq))
        sent[pat_id % 2].append((seq, 0.0, data))
    workers = {0: choking(database), 1: choking(other)}
    at = {0: 0, 1: 0}
    while any(at[part] < len(sent[part]) for part in at):
        part = chance.choice([part for part in at if at[part] < len(sent[part])])
        begin, end = at[part], at[part] + chance.randrange(1, 20)
        if begin and chance.random() < 0.2:
            begin = max(0, begin - 5)  # some come again
        after = sent[part][begin - 1][0] if begin else 0
        again = Batch("s", part, after, sent[part][begin:end])
        try:
            match chance.randrange(12):
                case 0:
                    workers[part] = choking([database, other][part])
                case 1:
                    workers = {0: workers[1], 1: workers[0]}
                case 2:
                    changed = Declaration(Model("m", str(end), FEATURES))
                    workers[part].declare(changed)
                case 3:
                    workers[part].complete()
            workers[part].handle(again, more=chance.random() < 0.8)
        except Moved:
            continue  # it comes again, as it does from Redis
        at[part] = min(end, len(sent[part]))
    for worker in workers.values():
        with suppress(Moved):
            worker.complete()
    choking(database).handle(Batch("s", 0, sent[0][-1][0], [(999, 0.0, b"the last word")]))
    assert rows(url, BEHIND) == []
    wanted = []
    for (pat_id, parameter), values in sorted(expected.items()):
        numbers = [value for _, value, _ in values]
        hour, last, _ = max(values, key=lambda found: (found[0], found[2]))
        mean = round(fsum(numbers) / len(numbers), 9)
        extremes = (min(numbers), max(numbers))
        place = f"2150-03-01 {hour:02}:00:00"
        wanted.append((pat_id, parameter, len(numbers), mean, *extremes, last, place))
    assert rows(url, f"SELECT {STATISTICS} FROM vitals ORDER BY pat_id, parameter") == wanted


class FailsOnce:
    """A database that is away for one commit, before or after it is done."""

    def __init__(self, database: Database, after: bool) -> None:
        self._commit, self._after, self._done = database.commit, after, False

    def __call__(self, changes: Changes) -> None:
        if self._done:
            self._commit(changes)
            return
        self._done = True
        if self._after:
            self._commit(changes)
        raise Unavailable("on purpose")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after, unheard"])
def test_a_commit_without_an_answer_is_tried_again(
    url: str,
    database: Database,
    undisturbed: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
) -> None:
    handler = handler_of(database)
    handler.handle(FIRST)
    monkeypatch.setattr(database, "commit", FailsOnce(database, after))
    with pytest.raises(Unavailable):
        handler.handle(SECOND)
    handler.handle(SECOND)
    assert stored(url) == undisturbed


class Choking(DataHandler):
    """Cannot process the value 90, or 90.5."""

    def _walk(self, decoded: Any, *rest: Any) -> Any:
        if any(getattr(m, "value", 0) in (90.0, 90.5) for _, m in decoded):
            raise RuntimeError("a value like no other")
        return super()._walk(decoded, *rest)


def test_of_a_batch_only_the_message_that_cannot_be_processed_is_set_aside(
    url: str,
    database: Database,
) -> None:
    handler = Choking(database, Client())  # type: ignore[arg-type]
    handler.declare(DECLARATION)
    outcome = handler.handle(batch(0, *(message(float(value)) for value in range(85, 96))))
    assert (outcome.position, outcome.stored, outcome.set_aside) == (11, 10, 1)
    assert rows(url, "SELECT seq, pat_id, reason FROM rejected") == [
        (6, 17, "cannot be processed: RuntimeError: a value like no other")
    ]
    assert rows(url, "SELECT n FROM vitals") == [(10,)]

    mended = handler_of(database)
    [row] = database.rejected("cannot be processed")
    mended.replay("s", row.seq, row.message.encode())
    assert rows(url, "SELECT n, mean FROM vitals") == [(11, 90.0)]
    assert rows(url, "SELECT seq FROM rejected") == []
    assert rows(url, "SELECT value FROM readings WHERE seq = 6") == [(90.0,)]
    assert rows(url, "SELECT probability FROM predictions WHERE seq = 6") == [(0.09,)]
    with pytest.raises(Moved):
        mended.replay("s", row.seq, row.message.encode())
    mended.handle(batch(11, message(90.0)))
    assert rows(url, "SELECT n FROM vitals") == [(12,)]


def test_a_poisoned_batch_that_another_has_stored_does_not_go_round_for_ever(
    url: str,
    database: Database,
    other: Database,
) -> None:
    slow = Choking(database, Client())  # type: ignore[arg-type]
    slow.declare(DECLARATION)
    slow.handle(batch(0, message(80.0)))
    poisoned = batch(1, message(90.0))
    handler_of(other).handle(poisoned)
    with pytest.raises(Moved):
        slow.handle(poisoned)
    assert slow.handle(poisoned).position == 2
    assert rows(url, "SELECT seq FROM rejected") == []


HOSTILE = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"x":' * 50_000,
    message(x={}).replace(b"{}", b'{"x":' * 5_000 + b"1" + b"}" * 5_000),
    message(date_admission="2150-W09-6"),
    message(day="２150-03-01"),
    message(parameter="hr "),
    message(parameter="h\0r"),
    message(pat_id=2**63),
    message(pat_id=10**40),
    message(pat_id="17"),
    message(pat_id=True),
    message(value="80"),
    message(value=None),
    message().replace(b"80.0", b"NaN"),
    message().replace(b"80.0", b"1e999"),
    message(parameter=""),
    message(parameter="x" * 65),
    message(parameter="x").replace(b'"x"', b'"\\ud800"'),
    message(date_admission="2150-02-30"),
    message(day="0000-00-00"),
    message(day="2150-02-27"),
    message(hour=24),
    message(hour=-1),
    message(type="obituary"),
    message(value=999.0),
]


def test_hostile_messages_are_rejected_each_for_itself(
    url: str,
    database: Database,
) -> None:
    handler = handler_of(database)
    mixed = [data for one in HOSTILE for data in (one, message())]
    outcome = handler.handle(batch(0, *mixed))
    assert (outcome.position, outcome.stored) == (len(mixed), len(HOSTILE))
    found = rows(url, "SELECT seq, reason FROM rejected ORDER BY seq")
    assert [seq for seq, _ in found] == list(range(1, len(mixed), 2))
    assert all(reason for _, reason in found)
    assert outcome.set_aside == 0


def test_values_whose_squares_are_beyond_a_double_hold_up_nothing(
    url: str,
    database: Database,
) -> None:
    handler = handler_of(database)
    huge = [message(value, parameter="x") for value in (1e308, -1e308, 1e308)]
    assert handler.handle(batch(0, *huge, message())).position == 4
    assert handler.handle(batch(4, message(1.0, parameter="x"), message())).position == 6
    assert rows(url, "SELECT n FROM vitals WHERE parameter = 'heart_rate'") == [(2,)]


def test_predictions_catch_up_with_one_call_a_model(
    url: str,
    database: Database,
) -> None:
    client = Client(away=True)
    handler = DataHandler(database, client)  # type: ignore[arg-type]
    handler.declare(Declaration(Model("m", "1", FEATURES), [Model("n", "1", FEATURES)]))
    handler.handle(batch(0, *(message(float(value)) for value in range(50, 100))))
    assert rows(url, "SELECT COUNT(*) FROM pending") == [(100,)]
    client.away, client.calls = False, []
    # The attendant writes this table before a worker hears of a model.
    database.remember_models([(name, "1", "shadow", "[]", "2026-01-01") for name in "mn"])
    Attendant(None, database, client).catch_up()  # type: ignore[arg-type]
    assert client.calls == [("m", 50), ("n", 50)]
    assert rows(url, "SELECT COUNT(*) FROM pending") == [(0,)]
    assert rows(url, "SELECT probability FROM predictions WHERE seq = 50") == [(0.0745,)] * 2


def test_a_message_that_is_stored_and_comes_again_in_another_partition_is_left_alone(
    url: str,
    database: Database,
) -> None:
    stored = message()
    handler_of(database).handle(batch(0, stored))
    again = Batch("s", 1, 0, batch(0, stored).messages)
    outcome = handler_of(database).handle(again)
    assert (outcome.stored, outcome.rejected, outcome.set_aside) == (0, 0, 0)
    assert rows(url, "SELECT COUNT(*) FROM readings") == [(1,)]
    assert rows(url, "SELECT n FROM vitals") == [(1,)]
    assert rows(url, "SELECT COUNT(*) FROM rejected") == [(0,)]
