"""Tests the handler of a worker on SQLite and MySQL, with batches in order and out of order."""

import random
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import fsum
from typing import Any

import pytest

from tests.support.batches import (
    DECLARATION,
    FEATURES,
    Client,
    batch,
    handler_of,
    message,
    remember,
    write_vitals_every,
)
from tests.support.servers import rows
from tool import data_handler
from tool.batch import BatchProcessor
from tool.data_handler import DataHandler, Early
from tool.database import Changes, Database, Moved, Unavailable, connect
from tool.model_client import Declaration, Model
from tool.pending import CatchUp
from tool.rejections import DEAD_LETTER
from tool.result import Result
from wire.batches import Batch, RawMessage

pytestmark = pytest.mark.timeout(60, func_only=True)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = connect(url)
    yield opened
    opened.close()


@pytest.fixture
def other(url: str) -> Iterator[Database]:
    """A connection to the database for a second worker."""
    opened = connect(url)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _vitals_are_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While more batches wait, `vitals` is written for the first batch only, however long a test
    takes."""
    write_vitals_every(1e9, monkeypatch)


FIRST = batch(0, message(80.0), message(90.0))
SECOND = batch(2, message(100.0), message(70.0))


def stored(url: str, stream: str = "s") -> list[Any]:
    """The rows of a stream, without the times at which they were written."""
    return [
        rows(url, f"SELECT {columns} FROM {table} WHERE stream = '{stream}' ORDER BY 1, 2")
        for table, columns in (
            ("readings", "seq, value"),
            ("vitals", "n, mean, m2, minimum, maximum"),
            ("stays", "pat_id, age"),
            ("predictions", "seq, output, reason"),
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


def test_batches_in_order_leave_the_expected_rows(undisturbed: list[Any]) -> None:
    readings, vitals, stays, predictions, positions, rejected = undisturbed
    assert readings == [(1, 80.0), (2, 90.0), (3, 100.0), (4, 70.0)]
    assert vitals == [(4, 85.0, 500.0, 70.0, 100.0)]
    assert stays == [(17, 63.2)]
    assert predictions == [(1, 0.08, None), (2, 0.085, None), (3, 0.09, None), (4, 0.085, None)]
    assert positions == [(0, 4)]
    assert rejected == []


def test_a_batch_that_arrives_too_early_changes_nothing(
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


def test_batches_that_repeat_or_overlap_add_only_new_messages(
    url: str,
    database: Database,
    undisturbed: list[Any],
) -> None:
    handler = handler_of(database)
    whole = batch(0, *(raw.data for raw in (*FIRST.messages, *SECOND.messages)))
    for one in (FIRST, FIRST, whole, SECOND, FIRST, whole):
        handler.handle(one)
    assert stored(url) == undisturbed


def test_a_worker_with_outdated_memory_reads_the_database_again(
    url: str,
    database: Database,
    other: Database,
    undisturbed: list[Any],
) -> None:
    zombie, successor = handler_of(database), handler_of(other)
    zombie.handle(FIRST)
    successor.handle(SECOND)
    # The zombie still has in memory the position and the stay as they were before SECOND.
    with pytest.raises(Moved):
        zombie.handle(SECOND)
    zombie.handle(SECOND)
    assert stored(url) == undisturbed
    successor.handle(batch(4, message(60.0)))
    zombie.handle(batch(5, message(61.0)))
    assert rows(url, "SELECT n FROM vitals WHERE stream = 's'") == [(6,)]


def failing(database: Database) -> DataHandler:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_handler, "BatchProcessor", Failing)
        found = DataHandler(database, Client())  # type: ignore[arg-type]
    found.declare(DECLARATION)
    return found


def backlogged(handler: DataHandler) -> DataHandler:
    """A handler for which more batches wait."""
    handler.backlog = True
    return handler


STATISTICS = (
    "pat_id, parameter, n, ROUND(mean, 9), minimum, maximum, `last_value`,"
    " CAST(last_at AS CHAR(19))"
)
BEHIND = "SELECT part FROM positions WHERE vitals_seq < seq"


def test_vitals_behind_the_readings_are_completed_by_the_next_worker(
    url: str,
    database: Database,
    other: Database,
    undisturbed: list[Any],
) -> None:
    killed = handler_of(database)
    backlogged(killed).handle(FIRST)  # a worker always writes the vitals of its first batch
    killed.handle(SECOND)
    assert rows(url, "SELECT n, seq FROM vitals WHERE stream = 's'") == [(2, 2)]
    assert rows(url, BEHIND) == [(0,)]
    # The killed worker has left only the tables.
    successor = handler_of(other)
    backlogged(successor).handle(batch(4, message(60.0)))
    assert rows(url, "SELECT n, mean, seq FROM vitals WHERE stream = 's'") == [(5, 80.0, 5)]
    successor.handle(batch(5, message(140.0)))
    successor.complete()
    assert rows(url, "SELECT n, mean, seq FROM vitals WHERE stream = 's'") == [(6, 90.0, 6)]
    assert rows(url, BEHIND) == []
    # If the first worker was only paused and now continues, its memory is outdated.
    with pytest.raises(Moved):
        killed.complete()
    killed.complete()
    assert rows(url, "SELECT n, mean, seq FROM vitals WHERE stream = 's'") == [(6, 90.0, 6)]


def test_a_dead_letter_does_not_mark_the_vitals_as_complete(
    url: str, database: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = failing(database)
    backlogged(killed).handle(batch(0, message(80.0)))
    killed.handle(batch(1, message(81.0)))
    write_vitals_every(0.0, monkeypatch)
    killed.handle(batch(2, message(90.5)))
    handler_of(other).handle(batch(3, message(82.0)))
    assert rows(url, "SELECT n, mean FROM vitals") == [(3, 81.0)]


def test_an_idle_worker_completes_the_vitals_of_a_killed_one(
    url: str, database: Database, other: Database
) -> None:
    killed = handler_of(database)
    backlogged(killed).handle(FIRST)
    killed.handle(SECOND)
    handler_of(other).complete()
    assert rows(url, "SELECT n, seq FROM vitals") == [(4, 4)]
    assert rows(url, BEHIND) == []


def test_a_batch_that_is_stored_while_vitals_are_completed_is_counted_once(
    url: str, database: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(number: int, after: int, pat_id: int, *numbers: int) -> Batch:
        raw = [RawMessage(seq, 0.0, message(float(seq), pat_id=pat_id)) for seq in numbers]
        return Batch("s", number, after, raw)

    killed = backlogged(handler_of(database))
    killed.handle(part(0, 0, 17, 1, 2))
    killed.handle(part(1, 0, 18, 10))
    killed.handle(part(1, 10, 18, 11))
    assert rows(url, BEHIND) == [(1,)]
    execute = other.session.execute

    def interrupted(cursor: Any, statement: str, values: Sequence[Any] = ()) -> None:
        execute(cursor, statement, values)
        if "FROM positions WHERE stream" in statement:
            monkeypatch.setattr(other.session, "execute", execute)
            # Some of these messages come before the other partition's position, one after it.
            killed.handle(part(0, 2, 17, 3, 4, 12))

    monkeypatch.setattr(other.session, "execute", interrupted)
    handler_of(other).complete()
    handler_of(other).complete()
    found = rows(url, "SELECT pat_id, n, mean, seq FROM vitals ORDER BY pat_id")
    assert found == [(17, 5, 4.4, 12), (18, 2, 10.5, 11)]


def test_a_stay_is_written_before_it_leaves_memory(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tool.stays.STAYS_IN_MEMORY", 3)
    caught_up: list[Any] = []
    monkeypatch.setattr(database, "catch_up", lambda *given: caught_up.append(given))
    handler = backlogged(handler_of(database))
    for turn in range(20):
        sent = [message(70.0 + turn, pat_id=(2 * turn + place) % 7) for place in range(2)]
        handler.handle(batch(2 * turn, *sent))
    written = rows(url, "SELECT pat_id, n FROM vitals WHERE seq = (SELECT MAX(seq) FROM vitals)")
    assert len(written) < 7
    handler.complete()
    assert caught_up == []
    counts = rows(url, "SELECT pat_id, COUNT(*) FROM readings GROUP BY pat_id ORDER BY pat_id")
    assert rows(url, "SELECT pat_id, n FROM vitals ORDER BY pat_id") == counts


def test_a_worker_of_several_streams_writes_all_their_stays(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tool.stays.STAYS_IN_MEMORY", 2)
    handler = backlogged(handler_of(database))
    for turn in range(9):
        stream = "abc"[turn % 3]
        handler.handle(batch(turn // 3, message(70.0 + turn), stream=stream))
    handler.backlog = False
    for stream in "abc":
        handler.handle(batch(3, message(70.0, pat_id=18), stream=stream))
    found = rows(url, "SELECT stream, pat_id, n FROM vitals ORDER BY stream, pat_id")
    assert found == [(stream, *one) for stream in "abc" for one in ((17, 3), (18, 1))]


@pytest.mark.parametrize("seed", range(40))
def test_vitals_equal_the_readings_after_any_history_of_workers(
    url: str,
    database: Database,
    other: Database,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr("tool.stays.STAYS_IN_MEMORY", chance.choice([2, 5, 1000]))
    write_vitals_every(chance.choice([0.0, 0.01, 1e9]), monkeypatch)
    sent: dict[int, list[RawMessage]] = {0: [], 1: []}
    expected: dict[tuple[int, str], list[tuple[int, float, int]]] = {}
    for seq in range(1, 301):
        pat_id, parameter = chance.randrange(8), chance.choice(["heart_rate", "spo2"])
        value, hour = float(chance.randrange(40, 90)), chance.randrange(24)
        data = message(value, pat_id=pat_id, parameter=parameter, hour=hour)
        if chance.random() < 0.02:
            data = b"not a message"
        elif chance.random() < 0.02:
            data = message(90.5, pat_id=pat_id)  # which fails
        else:
            expected.setdefault((pat_id, parameter), []).append((hour, value, seq))
        sent[pat_id % 2].append(RawMessage(seq, 0.0, data))
    workers = {0: failing(database), 1: failing(other)}
    at = {0: 0, 1: 0}
    while any(at[part] < len(sent[part]) for part in at):
        part = chance.choice([part for part in at if at[part] < len(sent[part])])
        begin, end = at[part], at[part] + chance.randrange(1, 20)
        if begin and chance.random() < 0.2:
            begin = max(0, begin - 5)  # some batches are delivered again
        after = sent[part][begin - 1].seq if begin else 0
        again = Batch("s", part, after, sent[part][begin:end])
        try:
            match chance.randrange(12):
                case 0:
                    workers[part] = failing([database, other][part])
                case 1:
                    workers = {0: workers[1], 1: workers[0]}
                case 2:
                    changed = Declaration(Model("m", str(end), FEATURES))
                    workers[part].declare(changed)
                case 3:
                    workers[part].complete()
            workers[part].backlog = chance.random() < 0.8
            workers[part].handle(again)
        except Moved:
            continue  # Redis delivers the batch again
        at[part] = min(end, len(sent[part]))
    for worker in workers.values():
        with suppress(Moved):
            worker.complete()
    failing(database).handle(
        Batch("s", 0, sent[0][-1].seq, [RawMessage(999, 0.0, b"the last word")])
    )
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
    """A commit whose first call fails, before or after the changes are stored."""

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


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_commit_without_an_answer_can_be_retried(
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


class Failing(BatchProcessor):
    """Processing that fails for the values 90 and 90.5."""

    def process(self, messages: Sequence[RawMessage], changes: Changes) -> Result:
        if any(re.search(rb'"value": 90.[05]', raw.data) for raw in messages):
            raise RuntimeError("a value that fails")
        return super().process(messages, changes)


def test_only_the_message_that_cannot_be_processed_becomes_a_dead_letter(
    url: str,
    database: Database,
) -> None:
    outcome = failing(database).handle(
        batch(0, *(message(float(value)) for value in range(85, 96)))
    )
    assert (outcome.position, outcome.stored, outcome.dead_letters) == (11, 10, 1)
    [(seq, pat_id, reason)] = rows(url, "SELECT seq, pat_id, reason FROM rejected")
    assert (seq, pat_id) == (6, 17)
    assert reason.startswith(f"{DEAD_LETTER}RuntimeError")
    assert outcome.codes == {"dead_letter": 1}
    assert rows(url, "SELECT n FROM vitals") == [(10,)]

    mended = handler_of(database)
    [row] = database.rejected("cannot be processed")
    mended.replay("s", row.seq, row.message.encode())
    assert rows(url, "SELECT n, mean FROM vitals") == [(11, 90.0)]
    assert rows(url, "SELECT seq FROM rejected") == []
    assert rows(url, "SELECT value FROM readings WHERE seq = 6") == [(90.0,)]
    assert rows(url, "SELECT output FROM predictions WHERE seq = 6") == [(0.09,)]
    with pytest.raises(Moved):
        mended.replay("s", row.seq, row.message.encode())
    mended.handle(batch(11, message(90.0)))
    assert rows(url, "SELECT n FROM vitals") == [(12,)]


def test_a_failing_batch_that_another_worker_has_stored_is_skipped(
    url: str,
    database: Database,
    other: Database,
) -> None:
    slow = failing(database)
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


def test_hostile_messages_are_rejected_one_by_one(
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
    assert outcome.dead_letters == 0


def test_values_with_overflowing_squares_do_not_block_the_batch(
    url: str,
    database: Database,
) -> None:
    handler = handler_of(database)
    huge = [message(value, parameter="x") for value in (1e308, -1e308, 1e308)]
    assert handler.handle(batch(0, *huge, message())).position == 4
    assert handler.handle(batch(4, message(1.0, parameter="x"), message())).position == 6
    assert rows(url, "SELECT n FROM vitals WHERE parameter = 'heart_rate'") == [(2,)]


def test_pending_predictions_are_filled_in_with_one_call_per_version(
    url: str,
    database: Database,
) -> None:
    client = Client(away=True)
    shadows = [Model("m", "2", FEATURES), Model("n", "1", FEATURES)]
    declaration = Declaration(Model("m", "1", FEATURES), shadows)
    handler = handler_of(database, declaration, client)
    handler.handle(batch(0, *(message(float(value)) for value in range(50, 100))))
    assert rows(url, "SELECT COUNT(*) FROM pending") == [(150,)]
    client.away, client.calls = False, []
    versions = (("m", "1"), ("m", "2"), ("n", "1"))
    remember(database, declaration)
    CatchUp(database, client).fill_in()  # type: ignore[arg-type]
    assert client.calls == [(*of, 50) for of in versions]
    assert rows(url, "SELECT COUNT(*) FROM pending") == [(0,)]
    assert rows(url, "SELECT output FROM predictions WHERE seq = 50") == [(0.0745,)] * 3


def test_a_stored_message_sent_again_to_another_partition_is_skipped(
    url: str,
    database: Database,
) -> None:
    stored = message()
    handler_of(database).handle(batch(0, stored))
    outcome = handler_of(database).handle(batch(0, stored, part=1))
    assert (outcome.stored, outcome.rejected, outcome.dead_letters) == (0, 0, 0)
    assert rows(url, "SELECT COUNT(*) FROM readings") == [(1,)]
    assert rows(url, "SELECT n FROM vitals") == [(1,)]
    assert rows(url, "SELECT COUNT(*) FROM rejected") == [(0,)]


def test_after_the_number_of_partitions_changes_a_worker_reads_the_stays_again(
    url: str, database: Database, other: Database
) -> None:
    """The patient moves to the partition of another worker and back."""
    worker, second = handler_of(database), handler_of(other)
    # The handler, the number of partitions, and the batch.
    for handler, partitions, (part, after, seq, pat_id, value) in (
        (worker, 1, (0, 0, 1, 17, 80.0)),
        (second, 2, (1, 0, 2, 17, 90.0)),
        (worker, 2, (0, 1, 3, 18, 50.0)),
        (worker, 1, (0, 3, 4, 17, 100.0)),
    ):
        sent = [RawMessage(seq, 0.0, message(value, pat_id=pat_id))]
        handler.handle(Batch("s", part, after, sent, partitions))
    assert rows(url, "SELECT n, mean FROM vitals WHERE pat_id = 17") == [(3, 90.0)]


@pytest.mark.parametrize("url", ["mysql"], indirect=True)
def test_a_connection_that_is_lost_at_the_commit_makes_no_dead_letter(
    url: str, database: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = handler_of(database)
    handler.handle(batch(0, message(80.0)))
    session: Any = database.session
    commit, number = session.commit, session._connection.connection_id

    def commit_without_connection() -> None:
        with other.session.transaction() as cursor:
            cursor.execute(f"KILL {number}")
        while rows(url, f"SELECT id FROM information_schema.processlist WHERE id = {number}"):
            time.sleep(0.01)
        commit()

    with monkeypatch.context() as patch:
        patch.setattr(session, "commit", commit_without_connection)
        with pytest.raises(Unavailable):
            handler.handle(batch(1, message(90.0)))
    handler.handle(batch(1, message(90.0)))
    readings, *_, rejected = stored(url)
    assert readings == [(1, 80.0), (2, 90.0)]
    assert rejected == []
