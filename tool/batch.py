"""Processes one batch: decode, load, walk, predict, and commit in one transaction."""

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from tool import metrics
from tool.database import Changes, Database
from tool.features import FeatureSet
from tool.known_stay import KnownStay, StayKey
from tool.model_client import Declaration, Model, ModelClient
from tool.questions import Questions, Readers, ask, readers_of
from tool.rejections import rejected_row
from tool.result import Result
from tool.stays import Stays
from tool.times import hours_of_day, text_of, text_on
from tool.withdrawals import withdraw
from wire.batches import RawMessage
from wire.messages import (
    Acknowledgement,
    Admission,
    Discharge,
    Message,
    Outcome,
    Reading,
    Rejected,
    Withdrawal,
    decode,
    ordinal,
)
from wire.tables import AcknowledgementRow, DischargeRow, OutcomeRow, ReadingRow

Decoded = list[tuple[RawMessage, Message]]
Loaded = dict[StayKey, KnownStay]
# Messages of these types change the row of their stay.
OF_A_STAY = (Reading, Discharge, Admission)


class BatchProcessor:
    """Converts messages to rows, with the features and predictions of the declared models."""

    def __init__(self, database: Database, stays: Stays, client: ModelClient) -> None:
        self._database = database
        self._stays = stays
        self._client = client
        self._models: list[Model] = []
        self._readers: list[Readers] = []
        self._features = FeatureSet([])

    def declare(self, declaration: Declaration) -> None:
        """Sets the models whose features are computed."""
        models = [declaration.champion, *declaration.shadows]
        if models == self._models:
            return
        self._models = models
        self._readers, self._features = readers_of(models)
        self._stays.keep(self._features.windows)

    def process(self, messages: Sequence[RawMessage], changes: Changes) -> Result:
        """Stores the next messages of a partition, or a replayed message. Raises the errors of
        `Database.commit`.
        """
        result = Result(changes.last, received=Counter(map(attrgetter("received"), messages)))
        with metrics.working("features"):
            decoded = self._decode(messages, changes, result)
        with metrics.working("database"):
            stays = self._load(decoded, changes.stream)
        with metrics.working("features"):
            questions = self._walk(decoded, stays, changes, result)
        with metrics.working("model"):
            ask(self._client, questions, changes, result)
        with metrics.working("database"):
            self._stays.commit(changes, stays)
        result.stored = len(changes.readings)
        return result

    def repeat(self, raw: RawMessage, changes: Changes) -> None:
        """Moves the position past a message that is already stored, and sets the stay's age and
        discharge from it again. The buffer sends all messages of the stay again, and no table
        records admissions, so a repeated admission may have reopened the stay.
        """
        decoded = self._decode([raw], changes, Result(changes.last))
        stays = self._load(decoded, changes.stream)
        for _, message in decoded:
            if isinstance(message, Reading | Discharge):
                known = stays[changes.stream, message.pat_id, message.date_admission]
                known.update(message.age, message.date_discharge)
        self._stays.commit(changes, stays)

    def _decode(self, messages: Sequence[RawMessage], changes: Changes, result: Result) -> Decoded:
        decoded: Decoded = []
        for raw in messages:
            try:
                decoded.append((raw, decode(raw.data)))
            except Rejected as error:
                _reject(raw, error, changes, result)
        return decoded

    def _load(self, decoded: Decoded, stream: str) -> Loaded:
        return self._stays.load(
            stream,
            {
                (message.pat_id, message.date_admission)
                for _, message in decoded
                if isinstance(message, OF_A_STAY)
            },
        )

    def _walk(
        self, decoded: Decoded, stays: Loaded, changes: Changes, result: Result
    ) -> list[Questions]:
        """Applies the messages in order; returns the questions for the models."""
        stream = changes.stream
        asked = [Questions(readers) for readers in self._readers]
        times: dict[tuple[str, int, int, int], tuple[str, float, float]] = {}
        for raw, message in decoded:
            if not isinstance(message, Reading):
                try:
                    self._apply(raw.seq, message, stays, changes)
                except Rejected as error:
                    _reject(raw, error, changes, result)
                continue
            pat_id, admission = message.pat_id, message.date_admission
            parameter, value = message.parameter, message.value
            known = stays[stream, pat_id, admission]
            if known.withdrawn:
                self._stays.fold_again(known, changes)
            known.update(message.age, message.date_discharge)
            at = (message.day, message.hour, message.minute, message.second)
            if at not in times:
                times[at] = (text_on(*at), ordinal(message.day) * 24.0, hours_of_day(*at[1:]))
            measured_at, midnight, hours = times[at]
            known.stay.add(midnight - known.admitted * 24.0 + hours, parameter, value)
            known.touched.add(parameter)
            reading = ReadingRow(stream, raw.seq, pat_id, admission, measured_at, parameter, value)
            changes.readings.append(reading)
            if known.discharge is None:
                values = self._features.row(known.stay)
                for questions in asked:
                    questions.add(reading, values, changes)
        for known in stays.values():
            if known.withdrawn:
                self._stays.fold_again(known, changes)
        return asked

    def _apply(self, seq: int, message: Message, stays: Loaded, changes: Changes) -> None:
        """Applies a message other than a reading. Raises Rejected for a withdrawal of an unknown
        reading.
        """
        stay = (message.pat_id, message.date_admission)
        match message:
            case Discharge():
                stays[changes.stream, *stay].update(message.age, message.date_discharge)
                hours = hours_of_day(message.hour, message.minute, message.second)
                at = text_of(ordinal(message.day), hours)
                changes.discharges.append(DischargeRow(changes.stream, seq, *stay, at, changes.now))
            case Admission():
                stays[changes.stream, *stay].admit(message)
            case Withdrawal():
                parameter = withdraw(self._database, changes, seq, message)
                if parameter is not None:
                    stays.update(self._stays.load(changes.stream, [stay]))
                    known = stays[changes.stream, *stay]
                    known.withdrawn.add(parameter)
                    known.touched.add(parameter)
            case Outcome():
                at = text_on(message.day, message.hour, message.minute, message.second)
                row = (changes.stream, seq, *stay, message.name, message.value, at)
                changes.outcomes.append(OutcomeRow(*row))
            case Acknowledgement():
                at = text_on(message.day, message.hour, message.minute, message.second)
                changes.acknowledgements.append(
                    AcknowledgementRow(
                        *(changes.stream, seq, *stay),
                        *(message.model, message.author, at, message.snooze_hours),
                    )
                )


def _reject(raw: RawMessage, error: Rejected, changes: Changes, result: Result) -> None:
    changes.rejected.append(rejected_row(changes.stream, raw, str(error), changes.now))
    result.codes[error.code] += 1
