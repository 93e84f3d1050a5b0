"""Requests the predictions of a batch. A question to a model has one row of features per
reading."""

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from math import nan
from operator import itemgetter

import msgspec
from msgspec.structs import replace

from tool.aggregates import Value
from tool.database import Changes
from tool.features import FeatureSet
from tool.model_client import Model, ModelClient, feature_set
from tool.result import Result
from wire.stored_features import own_places
from wire.tables import PendingRow, PredictionRow, ReadingRow

log = logging.getLogger("tool")

WAITING = "waiting for the model"

_json = msgspec.json.Encoder()


class Readers(msgspec.Struct):
    """Models that read the same features. pick: takes these features from the row of all models'
    features. fills: the values that replace missing values, by index. base: the model whose
    prediction has the array of features that the predictions of these models refer to. own: the
    places of the features that `base` does not have. See `wire.stored_features`.
    """

    features: FeatureSet
    models: list[Model]
    base: Model
    own: list[int] = []
    pick: Callable[[Sequence[Value]], tuple[Value, ...]] = tuple
    fills: list[tuple[int, float]] = []


def readers_of(models: Iterable[Model]) -> tuple[list[Readers], FeatureSet]:
    """Groups the models, in their order, by the features that they read; also returns the features
    of all models. All features are computed together, because models often read the same windows,
    which are expensive to compute. Raises ValueError for an invalid feature.
    """
    found: list[Readers] = []
    for model in models:
        same = [each for each in found if each.models[0].features == model.features]
        if same:
            same[0].models.append(model)
        else:
            found.append(Readers(feature_set(model), [model], model))
    features = [feature for each in found for feature in each.features.features]
    distinct = {feature.name: replace(feature, fill=None) for feature in features}
    place = {name: index for index, name in enumerate(distinct)}
    for each in found:
        read = each.features.features
        each.pick = _picker([place[feature.name] for feature in read])
        each.fills = [
            (i, feature.fill) for i, feature in enumerate(read) if feature.fill is not None
        ]
        _share(each, found[0])
    return found, FeatureSet(distinct.values(), missing=nan)


def _share(readers: Readers, first: Readers) -> None:
    """Lets the readers refer to the features of the first model, if these include at least half of
    theirs and the same values replace missing ones."""
    features, fills = readers.features.features, {f.name: f.fill for f in first.features.features}
    own = own_places(readers.features.names, first.features.names)
    same = all(feature.fill == fills.get(feature.name, feature.fill) for feature in features)
    if same and 2 * len(own) <= len(features):
        readers.base, readers.own = first.models[0], own


def _picker(places: Sequence[int]) -> Callable[[Sequence[Value]], tuple[Value, ...]]:
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple(values[place] for place in places)


class Questions(msgspec.Struct):
    """The readings for which the models of one `Readers` predict, each with its features, NaN where
    missing."""

    readers: Readers
    readings: list[ReadingRow] = []
    rows: list[tuple[Value, ...]] = []
    texts: list[str | None] = []  # `rows` as stored

    def add(self, reading: ReadingRow, values: Sequence[Value], changes: Changes) -> None:
        """Adds a reading with its features. If a required feature is missing, adds predictions
        without an output and with this reason to `changes`. values: the features of all models, NaN
        where missing.
        """
        row = self.readers.pick(values)
        if self.readers.fills:
            row = self._filled(row)
        text = self._text(row)
        reason = self.readers.features.missing(row)
        if reason is None:
            self.readings.append(reading)
            self.rows.append(row)
            self.texts.append(text)
            return
        changes.predictions += [
            self._prediction(model, reading, text, None, reason, changes.now)
            for model in self.readers.models
        ]

    def _text(self, row: Sequence[Value]) -> str | None:
        """The array for `base`, or the object for the others; NaN becomes null."""
        readers = self.readers
        if readers.base is readers.models[0]:
            return _json.encode(row).decode()
        if not readers.own:
            return None
        return _json.encode({place: row[place] for place in readers.own}).decode()

    def _filled(self, row: Sequence[Value]) -> tuple[Value, ...]:
        filled = list(row)
        for index, fill in self.readers.fills:
            if filled[index] != filled[index]:  # NaN
                filled[index] = fill
        return tuple(filled)

    def answer(
        self, model: Model, answers: list[float] | None, changes: Changes, result: Result
    ) -> None:
        """Adds a model's predictions to `changes`; if `answers` is None, they are pending."""
        if answers is None:
            result.waiting += len(self.rows)
            changes.pending += [
                PendingRow(reading.stream, reading.seq, model.model, model.version)
                for reading in self.readings
            ]
        else:
            result.predicted += len(self.rows)
        reason = WAITING if answers is None else None
        new = [
            self._prediction(model, reading, text, output, reason, changes.now)
            for reading, text, output in zip(
                self.readings, self.texts, answers or repeat(None, len(self.rows)), strict=True
            )
        ]
        changes.predictions += new
        if answers is not None and log.isEnabledFor(logging.DEBUG):
            for row in new:
                log.debug(
                    *("patient %d: %s %.4f", row.pat_id, row.model, row.output),
                    extra={"message_id": f"{row.stream}-{row.seq}"},
                )

    def _prediction(
        self,
        model: Model,
        reading: ReadingRow,
        text: str | None,
        output: float | None,
        reason: str | None,
        now: str,
    ) -> PredictionRow:
        base = self.readers.base
        shared = base is self.readers.models[0] and model is not base
        return PredictionRow(
            reading.stream,
            reading.seq,
            model.model,
            model.version,
            reading.pat_id,
            reading.date_admission,
            reading.measured_at,
            None if shared else text,
            output,
            reason,
            now,
            None if model is base else base.model,
            None if model is base else base.version,
        )


def ask(client: ModelClient, asked: Iterable[Questions], changes: Changes, result: Result) -> None:
    """Adds all predictions of a batch to `changes`. If a model does not answer, or rejects a row,
    all its predictions are pending."""
    calls = [(each, model) for each in asked if each.rows for model in each.readers.models]
    if not calls:
        return
    answers = client.predict_all([(model, questions.rows) for questions, model in calls])
    for (questions, model), answer in zip(calls, answers, strict=True):
        found = None if isinstance(answer, Exception) else answer
        questions.answer(model, found, changes, result)
