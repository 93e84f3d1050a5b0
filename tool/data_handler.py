"""One batch: from raw messages to one transaction."""

import logging
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Any

import msgspec

from tool.db_connector import Changes, Database, Moved, Row, Unavailable
from tool.features import FeatureSet, Stay, Vital, widest
from tool.messages import Discharge, Id, Message, Unusable, decode, ordinal
from tool.model_client import (
    Declaration,
    Model,
    ModelClient,
    ModelRefused,
    ModelUnavailable,
    feature_set,
)

log = logging.getLogger("tool")

WAITING = "waiting for the model"
SET_ASIDE = "cannot be processed: "

# Stays kept in memory by each worker; about 2 kB each.
STAYS_IN_MEMORY = 10_000
# Seconds that table `vitals` may be behind while further batches wait: most of what every
# batch would write there is written over by the next.
VITALS_EVERY = 5.0


Raw = tuple[int, float, bytes]  # seq, when the buffer received it, JSON


class Batch(msgspec.Struct, array_like=True):
    """A job's messages."""

    stream: str
    part: int
    after: int
    messages: list[Raw]


class Early(Exception):
    """Messages before this batch have not arrived yet."""


class Outcome(msgspec.Struct):
    """What became of a batch. `position`: the partition's last message in the database."""

    position: int
    stored: int = 0
    predicted: int = 0
    waiting: int = 0
    rejected: int = 0
    set_aside: int = 0
    received: Counter[float] = msgspec.field(default_factory=Counter)
    kinds: Counter[str] = msgspec.field(default_factory=Counter)

    def __iadd__(self, other: "Outcome") -> "Outcome":
        self.position = max(self.position, other.position)
        self.stored += other.stored
        self.predicted += other.predicted
        self.waiting += other.waiting
        self.rejected += other.rejected
        self.set_aside += other.set_aside
        self.received += other.received
        self.kinds += other.kinds
        return self


class KnownStay:
    """A stay in memory, and what of it the tables do not have yet.

    seq: the last message that its rows of `vitals` hold. touched: parameters that have come
    further since.
    """

    __slots__ = ("admitted", "changed", "discharge", "seq", "stay", "touched")

    def __init__(
        self, stay: Stay, admitted: int, discharge: str | None, seq: int, new: bool
    ) -> None:
        self.stay = stay
        self.admitted = admitted
        self.discharge = discharge
        self.seq = seq
        self.changed = new
        self.touched: set[str] = set()


StayKey = tuple[str, int, str]  # stream, pat_id, date_admission
Part = tuple[str, int | None]  # stream, partition


class DataHandler:
    """Turns batches into rows. One for each worker: it remembers its partitions' stays.

    While further batches wait, table `vitals` is written every few seconds only. What it
    lacks is in `readings`; whoever takes the stream up next makes up for it.
    """

    def __init__(self, database: Database, client: ModelClient) -> None:
        self._database = database
        self._client = client
        self._stays: OrderedDict[StayKey, KnownStay] = OrderedDict()
        self._positions: dict[Part, int] = {}
        # Streams of which `vitals` has all that is not in memory.
        self._whole: set[str] = set()
        self._unwritten: defaultdict[Part, dict[StayKey, KnownStay]] = defaultdict(dict)
        self._complete_at: dict[Part, float] = {}
        # Partitions that `vitals` is behind, and whether those of earlier workers are among them.
        self._behind: set[Part] = set()
        self._looked = False
        self._models: list[tuple[Model, FeatureSet]] = []
        self._windows: dict[str, int] = {}

    def declare(self, declaration: Declaration) -> None:
        """From now on, compute these models' features."""
        models = [declaration.champion, *declaration.shadows]
        if [model for model, _ in self._models] == models:
            return
        self._models = [(model, feature_set(model)) for model in models]
        self._windows = widest(features for _, features in self._models)
        # The stays in memory have not kept what the new windows need.
        for stream in list(self._whole):
            self._forget(stream)

    def handle(
        self, batch: Batch, unusable: Exception | None = None, more: bool = False
    ) -> Outcome:
        """Stores the batch's messages that are not stored yet.

        With `unusable`, sets its only message aside for that reason instead. `more`: further
        batches wait. Raises Early when messages before these are missing, and Unavailable when
        the database does not answer; nothing has changed then.
        """
        key = (batch.stream, batch.part)
        position = self._positions.get(key)
        if position is None or position != batch.after:
            # Not where this worker left off: another one was here, or it is a new start.
            position = self._database.position(batch.stream, batch.part)
            if self._positions.get(key) != position:
                self._forget(batch.stream)
        if position < batch.after:
            raise Early(f"stream {batch.stream} part {batch.part} is at {position}")
        messages = [message for message in batch.messages if message[0] > position]
        outcome = Outcome(position)
        try:
            if messages and unusable:
                outcome += self._set_aside(
                    batch.stream, batch.part, position, messages[0], unusable
                )
            elif messages:
                outcome += self._halving(batch.stream, batch.part, position, messages, more)
        except BaseException:
            # What is in memory may not be what is in the database: the next try looks.
            self._positions.pop(key, None)
            self._forget(batch.stream)
            raise
        self._positions[key] = outcome.position
        return outcome

    def replay(self, stream: str, seq: int, message: bytes) -> Outcome:
        """Takes a rejected message up again, as one that arrives late.

        Raises Moved when it is not in `rejected` any more, Unavailable, or what the message
        still fails of; nothing has changed then.
        """
        # Another worker may have been at this stream since: the database knows best.
        self._forget(stream)
        try:
            return self._store(stream, None, seq, [(seq, 0.0, message)], more=False)
        except BaseException:
            self._forget(stream)
            raise

    def complete(self) -> None:
        """Brings table `vitals` up to the readings. Raises Moved or Unavailable."""
        if not self._looked:
            # What a killed worker left, which nobody may take up again.
            self._behind.update(self._database.parts_behind())
            self._looked = True
        for stream, part in sorted(self._behind, key=str):
            try:
                position = self._positions.get((stream, part))
                if stream in self._whole and position is not None:
                    changes = Changes(stream, part, position, position, _now(), complete=True)
                    self._commit(changes, self._unwritten[stream, part])
                else:
                    self._catch_up(stream)
            except BaseException:
                self._positions.pop((stream, part), None)
                self._forget(stream)
                raise

    def _forget(self, stream: str) -> None:
        self._whole.discard(stream)
        for key in [key for key in self._stays if key[0] == stream]:
            del self._stays[key]
        for part in [part for part in self._unwritten if part[0] == stream]:
            del self._unwritten[part]

    def _halving(
        self, stream: str, part: int, after: int, messages: list[Raw], more: bool
    ) -> Outcome:
        """Stores the messages; of those that cannot be processed, halving finds each one."""
        try:
            return self._store(stream, part, after, messages, more)
        except (Moved, Unavailable):
            # Another worker got there first, or the database is away: not the messages' fault.
            raise
        except Exception as error:
            # Not a retry's business: something in these messages does not go through.
            log.debug("stream %s: messages from %d on", stream, messages[0][0], exc_info=True)
            self._forget(stream)
            failure = error
        if len(messages) == 1:
            outcome = self._set_aside(stream, part, after, messages[0], failure)
        else:
            half = len(messages) // 2
            outcome = self._halving(stream, part, after, messages[:half], True)
            outcome += self._halving(stream, part, outcome.position, messages[half:], more)
        return outcome

    def _set_aside(
        self,
        stream: str,
        part: int,
        after: int,
        message: Raw,
        error: Exception,
    ) -> Outcome:
        seq, received, data = message
        changes = Changes(stream, part, after, seq, _now())
        if self._database.is_stored(stream, seq):
            # Sent again to another partition than the first time: there is nothing to add.
            self._commit(changes, {})
            return Outcome(seq)
        reason = f"{SET_ASIDE}{type(error).__name__}: {error}"
        changes.rejected.append(_rejected(stream, seq, data, reason, changes.now))
        self._commit(changes, {})
        message_id = f"{stream}-{seq}"
        log.error(
            "message %s is set aside: %s", message_id, reason, extra={"message_id": message_id}
        )
        return Outcome(
            seq,
            rejected=1,
            set_aside=1,
            received=Counter([received]),
            kinds=Counter(["set_aside"]),
        )

    def _store(
        self,
        stream: str,
        part: int | None,
        after: int,
        messages: Sequence[Raw],
        more: bool,
    ) -> Outcome:
        if stream not in self._whole:
            self._catch_up(stream)
        changes = Changes(stream, part, after, messages[-1][0], _now())
        decoded: list[tuple[int, Message]] = []
        kinds: Counter[str] = Counter()
        for seq, _, data in messages:
            try:
                decoded.append((seq, decode(data)))
            except Unusable as error:
                changes.rejected.append(_rejected(stream, seq, data, str(error), changes.now))
                kinds[error.kind] += 1
                message_id = f"{stream}-{seq}"
                log.debug(
                    "message %s is rejected: %s",
                    message_id,
                    error,
                    extra={"message_id": message_id},
                )
        touched = self._load(stream, {(m.pat_id, m.date_admission) for _, m in decoded})
        asked = self._walk(decoded, touched, changes)
        waiting = 0
        for (model, _), rows in zip(self._models, asked, strict=True):
            waiting += self._predict(model, rows, changes)
        for (_, pat_id, admission), known in touched.items():
            if known.changed:
                row = (stream, pat_id, admission, known.stay.age, known.discharge)
                changes.stays.append(row)
        unwritten = self._unwritten[stream, part]
        unwritten.update((key, known) for key, known in touched.items() if known.touched)
        leaving = list(islice(self._stays, max(0, len(self._stays) - STAYS_IN_MEMORY)))
        complete_at = self._complete_at.get((stream, part), 0.0)
        changes.complete = not more or time.monotonic() - complete_at > VITALS_EVERY
        if changes.complete:
            self._commit(changes, unwritten)
        else:
            self._commit(changes, {key: unwritten[key] for key in leaving if key in unwritten})
        for known in touched.values():
            known.changed = False
        for key in leaving:
            left = self._stays.pop(key, None)
            if left is not None and left.touched:
                self._forget(key[0])  # of another partition, whose position was not looked at
        return Outcome(
            messages[-1][0],
            stored=len(changes.readings),
            predicted=sum(len(rows) for rows in asked) - waiting,
            waiting=waiting,
            rejected=len(changes.rejected),
            received=Counter(map(itemgetter(1), messages)),
            kinds=kinds,
        )

    def _commit(self, changes: Changes, written: dict[StayKey, KnownStay]) -> None:
        """Commits the changes, and with them the vitals of some stays of the partition."""
        for (stream, pat_id, admission), known in sorted(written.items(), key=itemgetter(0)):
            for parameter in sorted(known.touched):
                columns = _columns(known.stay.vitals[parameter], known.admitted)
                seq = max(known.seq, changes.last)
                changes.vitals.append((stream, pat_id, admission, parameter, *columns, seq))
        changes.stays.sort()
        self._database.commit(changes)
        part = (changes.stream, changes.part)
        unwritten = self._unwritten[part]
        for key, known in list(written.items()):
            known.seq = max(known.seq, changes.last)
            known.touched.clear()
            del unwritten[key]
        if changes.complete:
            self._complete_at[part] = time.monotonic()
            self._behind.discard(part)
        else:
            self._behind.add(part)

    def _catch_up(self, stream: str) -> None:
        """Brings table `vitals` up to the readings, from what is in the tables alone."""
        positions, readings = self._database.behind(stream)
        later: defaultdict[tuple[int, str], list[Row]] = defaultdict(list)
        for seq, pat_id, admission, *reading in readings:
            later[pat_id, admission].append((seq, *reading))
        rows: list[Row] = []
        for some in _chunks(later):
            _, statistics = self._rows(stream, some)
            for key in some:
                admitted = ordinal(key[1])
                vitals = statistics.get(key, {})
                changed = set()
                for seq, measured_at, parameter, value in later[key]:
                    vital, reached = vitals.get(parameter) or (Vital(), 0)
                    if seq > reached:
                        vital.add(_hours(measured_at, admitted), value)
                        vitals[parameter] = vital, seq
                        changed.add(parameter)
                for parameter in sorted(changed):
                    vital, seq = vitals[parameter]
                    rows.append((stream, *key, parameter, *_columns(vital, admitted), seq))
        if positions:
            rows.sort(key=itemgetter(1, 2, 3))
            self._database.catch_up(stream, positions, rows)
            log.info("stream %s: brought %d vitals up to the readings", stream, len(rows))
        self._whole.add(stream)
        self._behind = {part for part in self._behind if part[0] != stream}

    def _rows(
        self, stream: str, keys: Sequence[tuple[int, str]]
    ) -> tuple[dict[tuple[int, str], Row], dict[tuple[int, str], dict[str, tuple[Vital, int]]]]:
        """What the tables have of these stays: the row, and by parameter the vital and its seq."""
        stays, vitals = self._database.stays(stream, sorted({pat_id for pat_id, _ in keys}))
        statistics: defaultdict[tuple[int, str], dict[str, tuple[Vital, int]]] = defaultdict(dict)
        for row in vitals:
            statistics[row[0], row[1]][row[2]] = _vital(row, ordinal(row[1])), row[-1]
        return {(row[0], row[1]): row for row in stays}, statistics

    def _load(self, stream: str, keys: set[tuple[int, str]]) -> dict[StayKey, KnownStay]:
        """The stays of these patients and admissions, from memory or from the database."""
        touched: dict[StayKey, KnownStay] = {}
        missing: list[tuple[int, str]] = []
        for pat_id, admission in keys:
            key = (stream, pat_id, admission)
            known = self._stays.get(key)
            if known is None:
                missing.append((pat_id, admission))
            else:
                self._stays.move_to_end(key)
                touched[key] = known
        for some in _chunks(missing):
            rows, statistics = self._rows(stream, some)
            for pat_id, admission in some:
                key = (stream, pat_id, admission)
                row = rows.get((pat_id, admission))
                known = self._known(key, row, statistics.get((pat_id, admission), {}))
                self._stays[key] = touched[key] = known
        return touched

    def _known(
        self, key: StayKey, row: Row | None, statistics: dict[str, tuple[Vital, int]]
    ) -> KnownStay:
        stream, pat_id, admission = key
        admitted = ordinal(admission)
        age, discharge = row[2:] if row else (None, None)
        vitals = {parameter: vital for parameter, (vital, _) in statistics.items()}
        seq = max((seq for _, seq in statistics.values()), default=0)
        stay = Stay(self._windows, age=age, vitals=vitals)
        if self._windows and vitals:
            since = _moment(admitted, stay.clock - max(self._windows.values()))
            recent = self._database.recent(stream, pat_id, admission, since)
            for parameter in self._windows:
                stay.recall(
                    parameter,
                    [
                        (_hours(at, admitted), value)
                        for at, name, value in recent
                        if name == parameter
                    ],
                )
        return KnownStay(stay, admitted, discharge, seq, new=row is None)

    def _walk(
        self,
        decoded: list[tuple[int, Message]],
        touched: dict[StayKey, KnownStay],
        changes: Changes,
    ) -> list[list[Row]]:
        """Takes the messages in one by one. For each model: rows of features to be predicted."""
        stream = changes.stream
        asked: list[list[Row]] = [[] for _ in self._models]
        for seq, message in decoded:
            pat_id, admission = message.pat_id, message.date_admission
            known = touched[stream, pat_id, admission]
            stay = known.stay
            if message.age is not None and message.age != stay.age:
                stay.age = message.age
                known.changed = True
            if message.date_discharge is not None and message.date_discharge != known.discharge:
                known.discharge = message.date_discharge
                known.changed = True
            if isinstance(message, Discharge):
                continue
            hour, parameter, value = message.hour, message.parameter, message.value
            measured_at = f"{message.day} {hour:02}:00:00"
            stay.add((ordinal(message.day) - known.admitted) * 24.0 + hour, parameter, value)
            known.touched.add(parameter)
            changes.readings.append((stream, seq, pat_id, admission, measured_at, parameter, value))
            if known.discharge is not None:
                continue
            for (model, features), rows in zip(self._models, asked, strict=True):
                row = features.row(stay)
                reason = features.missing(row)
                place = (seq, pat_id, admission, measured_at, features.encode(row))
                if reason is None:
                    rows.append(place)
                else:
                    changes.predictions.append(_prediction(changes, model, place, None, reason))
        return asked

    def _predict(self, model: Model, rows: list[Row], changes: Changes) -> int:
        """Adds the rows' predictions; gives the number of those that must wait."""
        if not rows:
            return 0
        try:
            asked = [row[-1] for row in rows]
            probabilities = self._client.predict(model.model, model.version, asked)
        except (ModelUnavailable, ModelRefused):
            changes.predictions += [_prediction(changes, model, row, None, WAITING) for row in rows]
            changes.pending += [(changes.stream, row[0], model.model) for row in rows]
            return len(rows)
        changes.predictions += [
            _prediction(changes, model, row, probability, None)
            for row, probability in zip(rows, probabilities, strict=True)
        ]
        if log.isEnabledFor(logging.DEBUG):
            for row, probability in zip(rows, probabilities, strict=True):
                log.debug(
                    "patient %d: %s %s",
                    row[1],
                    model.model,
                    f"{probability:.4f}",
                    extra={"message_id": f"{changes.stream}-{row[0]}"},
                )
        return 0


def _chunks(keys: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Stays by so many as one query may ask for."""
    rest = iter(keys)
    while some := list(islice(rest, 500)):
        yield some


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _rejected(stream: str, seq: int, data: bytes, reason: str, now: str) -> Row:
    try:
        pat_id = msgspec.json.decode(data, type=_Patient).pat_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        pat_id = None
    return (stream, seq, pat_id, reason[:255], data.decode("utf-8", "backslashreplace"), now)


class _Patient(msgspec.Struct):
    pat_id: Id


def _prediction(
    changes: Changes, model: Model, row: Row, probability: float | None, reason: str | None
) -> Row:
    seq, pat_id, admission, measured_at, features = row
    return (
        changes.stream,
        seq,
        model.model,
        model.version,
        pat_id,
        admission,
        measured_at,
        features,
        probability,
        reason,
        changes.now,
    )


# Table `vitals` has times as dates, a stay as hours since the day of its admission began.


@lru_cache(maxsize=100_000)
def _moment(admitted: int, hours: float) -> str:
    days, hour = divmod(int(hours), 24)
    return f"{date.fromordinal(admitted + days).isoformat()} {hour:02}:00:00"


def _hours(moment: str, admitted: int) -> float:
    return (ordinal(moment[:10]) - admitted) * 24.0 + int(moment[11:13])


def _vital(row: Row, admitted: int) -> Vital:
    n, mean, m2, minimum, maximum, first_value, first_at, last_value, last_at, *hours = row[3:-1]
    return Vital(
        n,
        mean,
        m2,
        minimum,
        maximum,
        first_value,
        _hours(first_at, admitted),
        last_value,
        _hours(last_at, admitted),
        *hours,
    )


def _columns(vital: Vital, admitted: int) -> tuple[Any, ...]:
    return (
        vital.n,
        vital.mean,
        vital.m2,
        vital.minimum,
        vital.maximum,
        vital.first_value,
        _moment(admitted, vital.first_at),
        vital.last_value,
        _moment(admitted, vital.last_at),
        vital.hours_mean,
        vital.hours_m2,
        vital.covariance,
        vital.mean_low,
    )
