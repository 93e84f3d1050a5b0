"""Processes one batch in one transaction: decode, load, walk, predict, commit."""

import logging
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from tool.database import Changes, Database
from tool.features import FeatureSet, Stay, widest
from tool.known_stay import KnownStay, StayKey
from tool.model_client import (
    Declaration,
    Model,
    ModelClient,
    ModelRefused,
    ModelUnavailable,
    feature_set,
)
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
from wire.tables import (
    AcknowledgementRow,
    DischargeRow,
    OutcomeRow,
    PendingRow,
    PredictionRow,
    ReadingRow,
)

log = logging.getLogger("tool")

WAITING = "waiting for the model"

Decoded = list[tuple[RawMessage, Message]]
Loaded = dict[StayKey, KnownStay]
# These messages change the row of their stay.
OF_A_STAY = (Reading, Discharge, Admission)
# A reading, and the features as of that reading.
Question = tuple[ReadingRow, str]
Asked = list[tuple[Model, FeatureSet, list[Question]]]


class BatchProcessor:
    """Converts messages to rows, with the features and predictions of the declared models."""

    def __init__(self, database: Database, stays: Stays, client: ModelClient) -> None:
        self._database = database
        self._stays = stays
        self._client = client
        self._models: list[tuple[Model, FeatureSet]] = []

    def declare(self, declaration: Declaration) -> None:
        """Sets the models whose features are computed."""
        models = [declaration.champion, *declaration.shadows]
        if [model for model, _ in self._models] == models:
            return
        self._models = [(model, feature_set(model)) for model in models]
        self._stays.keep(widest(features for _, features in self._models))

    def process(self, messages: Sequence[RawMessage], changes: Changes) -> Result:
        """Stores the next messages of a partition. Raises as `Database.commit` does."""
        result = Result(changes.last, received=Counter(map(attrgetter("received"), messages)))
        decoded = self._decode(messages, changes, result)
        stays = self._load(decoded, changes.stream)
        asked = self._walk(decoded, stays, changes, result)
        for model, _, questions in asked:
            self._predict(model, questions, changes, result)
        self._stays.commit(changes, stays)
        result.stored = len(changes.readings)
        return result

    def repeat(self, raw: RawMessage, changes: Changes) -> None:
        """Moves the position past a message that is already stored.

        Messages of the same stay that leave no row are also sent again, so this one must set age
        and discharge again.
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

    def _walk(self, decoded: Decoded, stays: Loaded, changes: Changes, result: Result) -> Asked:
        """Applies the messages in order; returns the questions for each model."""
        stream = changes.stream
        asked: Asked = [(model, features, []) for model, features in self._models]
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
                _ask(reading, known.stay, asked, changes)
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

    def _predict(
        self, model: Model, questions: list[Question], changes: Changes, result: Result
    ) -> None:
        """Adds the model's predictions, or marks them as pending."""
        if not questions:
            return
        try:
            rows = [features for _, features in questions]
            probabilities = self._client.predict(model.model, model.version, rows)
        except (ModelUnavailable, ModelRefused):
            for reading, features in questions:
                row = _prediction(model, reading, features, None, WAITING, changes.now)
                changes.predictions.append(row)
                changes.pending.append(PendingRow(row.stream, row.seq, row.model, row.version))
            result.waiting += len(questions)
            return
        changes.predictions += [
            _prediction(model, reading, features, probability, None, changes.now)
            for (reading, features), probability in zip(questions, probabilities, strict=True)
        ]
        result.predicted += len(questions)
        if log.isEnabledFor(logging.DEBUG):
            for (reading, _), probability in zip(questions, probabilities, strict=True):
                log.debug(
                    *("patient %d: %s %.4f", reading.pat_id, model.model, probability),
                    extra={"message_id": f"{reading.stream}-{reading.seq}"},
                )


def _ask(reading: ReadingRow, stay: Stay, asked: Asked, changes: Changes) -> None:
    """Computes the features for each model; if required ones are missing, stores the reason."""
    for model, features, questions in asked:
        row = features.row(stay)
        reason = features.missing(row)
        encoded = features.encode(row)
        if reason is None:
            questions.append((reading, encoded))
        else:
            prediction = _prediction(model, reading, encoded, None, reason, changes.now)
            changes.predictions.append(prediction)


def _reject(raw: RawMessage, error: Rejected, changes: Changes, result: Result) -> None:
    changes.rejected.append(rejected_row(changes.stream, raw, str(error), changes.now))
    result.codes[error.code] += 1


def _prediction(
    model: Model,
    reading: ReadingRow,
    features: str,
    probability: float | None,
    reason: str | None,
    now: str,
) -> PredictionRow:
    return PredictionRow(
        reading.stream,
        reading.seq,
        model.model,
        model.version,
        reading.pat_id,
        reading.date_admission,
        reading.measured_at,
        features,
        probability,
        reason,
        now,
    )
