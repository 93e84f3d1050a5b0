"""One batch: from raw messages to one transaction."""

import logging
from collections import Counter, OrderedDict
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
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
    """A stay in memory, and what of it the tables do not have yet."""

    __slots__ = ("admitted", "changed", "discharge", "stay", "touched")

    def __init__(self, stay: Stay, admitted: int, discharge: str | None, new: bool) -> None:
        self.stay = stay
        self.admitted = admitted
        self.discharge = discharge
        self.changed = new
        self.touched: set[str] = set()


StayKey = tuple[str, int, str]  # stream, pat_id, date_admission


class DataHandler:
    """Turns batches into rows. One for each worker: it remembers its partitions' stays."""

    def __init__(self, database: Database, client: ModelClient) -> None:
        self._database = database
        self._client = client
        self._stays: OrderedDict[StayKey, KnownStay] = OrderedDict()
        self._positions: dict[tuple[str, int], int] = {}
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
        self._stays.clear()

    def handle(self, batch: Batch, unusable: Exception | None = None) -> Outcome:
        """Stores the batch's messages that are not stored yet.

        With `unusable`, sets its only message aside for that reason instead. Raises Early when
        messages before them are missing, and Unavailable when the database does not answer;
        nothing has changed then.
        """
        key = (batch.stream, batch.part)
        position = self._positions.get(key)
        if position is None or position != batch.after:
            # Not where this worker left off: another one was here, or it is a new start.
            position = self._database.position(*key)
            if self._positions.get(key) != position:
                self._forget(batch.stream)
        if position < batch.after:
            raise Early(f"stream {batch.stream} part {batch.part} is at {position}")
        messages = [message for message in batch.messages if message[0] > position]
        outcome = Outcome(position)
        try:
            if messages and unusable:
                outcome += self._set_aside(*key, position, messages[0], unusable)
            elif messages:
                outcome += self._halving(batch.stream, batch.part, position, messages)
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
            return self._store(stream, None, seq, [(seq, 0.0, message)])
        except BaseException:
            self._forget(stream)
            raise

    def _forget(self, stream: str) -> None:
        for key in [key for key in self._stays if key[0] == stream]:
            del self._stays[key]

    def _halving(self, stream: str, part: int, after: int, messages: list[Raw]) -> Outcome:
        """Stores the messages; of those that cannot be processed, halving finds each one."""
        try:
            return self._store(stream, part, after, messages)
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
            outcome = self._halving(stream, part, after, messages[:half])
            outcome += self._halving(stream, part, outcome.position, messages[half:])
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
            self._database.commit(changes)
            return Outcome(seq)
        reason = f"{SET_ASIDE}{type(error).__name__}: {error}"
        changes.rejected.append(_rejected(stream, seq, data, reason, changes.now))
        self._database.commit(changes)
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
    ) -> Outcome:
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
        self._collect(touched, changes)
        self._database.commit(changes)
        for known in touched.values():
            known.changed = False
            known.touched.clear()
        while len(self._stays) > STAYS_IN_MEMORY:
            self._stays.popitem(last=False)
        return Outcome(
            messages[-1][0],
            stored=len(changes.readings),
            predicted=sum(len(rows) for rows in asked) - waiting,
            waiting=waiting,
            rejected=len(changes.rejected),
            received=Counter(map(itemgetter(1), messages)),
            kinds=kinds,
        )

    def _load(self, stream: str, keys: set[tuple[int, str]]) -> dict[StayKey, KnownStay]:
        """The stays of these patients and admissions, from memory or from the database."""
        touched: dict[StayKey, KnownStay] = {}
        missing = []
        for pat_id, admission in keys:
            key = (stream, pat_id, admission)
            known = self._stays.get(key)
            if known is None:
                missing.append(key)
            else:
                self._stays.move_to_end(key)
                touched[key] = known
        for start in range(0, len(missing), 500):
            some = missing[start : start + 500]
            stays, vitals = self._database.stays(stream, sorted({key[1] for key in some}))
            rows = {(stream, row[0], row[1]): row for row in stays}
            statistics: dict[StayKey, dict[str, Vital]] = {}
            for row in vitals:
                key = (stream, row[0], row[1])
                statistics.setdefault(key, {})[row[2]] = _vital(row, ordinal(row[1]))
            for key in some:
                known = self._known(key, rows.get(key), statistics.get(key, {}))
                self._stays[key] = touched[key] = known
        return touched

    def _known(self, key: StayKey, row: Row | None, vitals: dict[str, Vital]) -> KnownStay:
        stream, pat_id, admission = key
        admitted = ordinal(admission)
        age, discharge = row[2:] if row else (None, None)
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
        return KnownStay(stay, admitted, discharge, new=row is None)

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
                named = dict(zip(features.names, row, strict=True))
                place = (seq, pat_id, admission, measured_at, named)
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
            probabilities = self._client.predict(
                model.model, model.version, [row[-1] for row in rows]
            )
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

    def _collect(self, touched: dict[StayKey, KnownStay], changes: Changes) -> None:
        for (stream, pat_id, admission), known in sorted(touched.items(), key=lambda item: item[0]):
            if known.changed:
                changes.stays.append((stream, pat_id, admission, known.stay.age, known.discharge))
            for parameter in sorted(known.touched):
                vital = known.stay.vitals[parameter]
                changes.vitals.append(
                    (stream, pat_id, admission, parameter, *_columns(vital, known.admitted))
                )


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
        msgspec.json.encode(features).decode(),
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
    n, mean, m2, minimum, maximum, first_value, first_at, last_value, last_at, *time = row[3:]
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
        *time,
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
