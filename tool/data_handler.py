"""One batch: from raw messages to one transaction."""

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import itemgetter

import msgspec

from tool.database import Changes, Database, Moved, Unavailable
from tool.features import FeatureSet, widest
from tool.messages import Discharge, Id, Message, Unusable, decode, ordinal
from tool.model_client import (
    Declaration,
    Model,
    ModelClient,
    ModelRefused,
    ModelUnavailable,
    feature_set,
)
from tool.stays import KnownStay, Part, StayKey, Stays
from wire.tables import PendingRow, PredictionRow, ReadingRow, RejectedRow

log = logging.getLogger("tool")

WAITING = "waiting for the model"
SET_ASIDE = "cannot be processed: "


Raw = tuple[int, float, bytes]  # seq, when the buffer received it, JSON
# seq, pat_id, date_admission, measured_at, features as JSON
Computed = tuple[int, int, str, str, str]


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


class DataHandler:
    """Turns batches into rows. One for each worker: it remembers its partitions' stays."""

    def __init__(self, database: Database, client: ModelClient) -> None:
        self._database = database
        self._client = client
        self._stays = Stays(database)
        self._positions: dict[Part, int] = {}
        self._models: list[tuple[Model, FeatureSet]] = []

    def declare(self, declaration: Declaration) -> None:
        """From now on, compute these models' features."""
        models = [declaration.champion, *declaration.shadows]
        if [model for model, _ in self._models] == models:
            return
        self._models = [(model, feature_set(model)) for model in models]
        self._stays.keep(widest(features for _, features in self._models))

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
                self._stays.forget(batch.stream)
        if position < batch.after:
            raise Early(f"stream {batch.stream} part {batch.part} is at {position}")
        messages = [message for message in batch.messages if message[0] > position]
        try:
            if not messages:
                outcome = Outcome(position)
            elif unusable:
                outcome = self._set_aside(batch.stream, batch.part, position, messages[0], unusable)
            else:
                outcome = self._halving(batch.stream, batch.part, position, messages, more)
        except BaseException:
            # What is in memory may not be what is in the database: the next try looks.
            self._positions.pop(key, None)
            self._stays.forget(batch.stream)
            raise
        self._positions[key] = outcome.position
        return outcome

    def replay(self, stream: str, seq: int, message: bytes) -> Outcome:
        """Takes a rejected message up again, as one that arrives late.

        Raises Moved when it is not in `rejected` any more, Unavailable, or what the message
        still fails of; nothing has changed then.
        """
        # Another worker may have been at this stream since: the database knows best.
        self._stays.forget(stream)
        try:
            return self._store(stream, None, seq, [(seq, 0.0, message)], more=False)
        except BaseException:
            self._stays.forget(stream)
            raise

    def complete(self) -> None:
        """Brings table `vitals` up to the readings. Raises Moved or Unavailable."""
        self._stays.complete(self._positions, _now())

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
            self._stays.forget(stream)
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
            self._stays.commit(changes, {})
            return Outcome(seq)
        reason = f"{SET_ASIDE}{type(error).__name__}: {error}"
        changes.rejected.append(_rejected(stream, seq, data, reason, changes.now))
        self._stays.commit(changes, {})
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
        touched = self._stays.load(stream, {(m.pat_id, m.date_admission) for _, m in decoded})
        asked = self._walk(decoded, touched, changes)
        waiting = 0
        for (model, _), rows in zip(self._models, asked, strict=True):
            waiting += self._predict(model, rows, changes)
        self._stays.commit(changes, touched, more)
        return Outcome(
            messages[-1][0],
            stored=len(changes.readings),
            predicted=sum(len(rows) for rows in asked) - waiting,
            waiting=waiting,
            rejected=len(changes.rejected),
            received=Counter(map(itemgetter(1), messages)),
            kinds=kinds,
        )

    def _walk(
        self,
        decoded: list[tuple[int, Message]],
        touched: dict[StayKey, KnownStay],
        changes: Changes,
    ) -> list[list[Computed]]:
        """Takes the messages in one by one. For each model: rows of features to be predicted."""
        stream = changes.stream
        asked: list[list[Computed]] = [[] for _ in self._models]
        moments: dict[tuple[str, int], tuple[str, float]] = {}
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
            parameter, value = message.parameter, message.value
            moment = (message.day, message.hour)
            if moment not in moments:
                text = f"{message.day} {message.hour:02}:00:00"
                moments[moment] = (text, ordinal(message.day) * 24.0 + message.hour)
            measured_at, hours = moments[moment]
            stay.add(hours - known.admitted * 24.0, parameter, value)
            known.touched.add(parameter)
            changes.readings.append(
                ReadingRow(stream, seq, pat_id, admission, measured_at, parameter, value)
            )
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

    def _predict(self, model: Model, rows: list[Computed], changes: Changes) -> int:
        """Adds the rows' predictions; gives the number of those that must wait."""
        if not rows:
            return 0
        try:
            asked = [row[-1] for row in rows]
            probabilities = self._client.predict(model.model, model.version, asked)
        except (ModelUnavailable, ModelRefused):
            changes.predictions += [_prediction(changes, model, row, None, WAITING) for row in rows]
            changes.pending += [
                PendingRow(changes.stream, row[0], model.model, model.version) for row in rows
            ]
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


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _rejected(stream: str, seq: int, data: bytes, reason: str, now: str) -> RejectedRow:
    try:
        pat_id = msgspec.json.decode(data, type=_Patient).pat_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pat_id = None
    text = data.decode("utf-8", "backslashreplace")
    return RejectedRow(stream, seq, pat_id, reason[:255], text, now)


class _Patient(msgspec.Struct):
    pat_id: Id


def _prediction(
    changes: Changes, model: Model, row: Computed, probability: float | None, reason: str | None
) -> PredictionRow:
    seq, pat_id, admission, measured_at, features = row
    return PredictionRow(
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
