"""Evaluates a finished model on your own patients, without training."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelapi.artifact import Ref
from modelapi.repository import Model, Repository
from training import outcomes, rows, stream
from training.arrays import Floats
from training.config import Data, Label
from training.evaluation import Line
from training.judgement import Judgement, Question, judge
from training.removal import channels
from training.rows import Rows
from training.stream import DataError
from wire.alarms import Policy
from wire.features import Feature


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A model and the data to evaluate it on. label, hour: if set, they replace those in the
    manifest. database: the database with the readings, as in a config; then only outcome.csv is
    read from `folder`.
    """

    model: str
    folder: Path
    models: Path = Path("models")
    database: str | None = None
    stream: str = ""
    label: str | None = None
    hour: int | None = None
    resamples: int = 500


@dataclass
class Evaluation:
    """The result of an evaluation. warnings: shown at the top of the report. recalibrated: the
    figures before and after recalibration. version: the new version, if one was written."""

    model: Model
    question: Question
    rows: Rows
    judgement: Judgement
    left_out: dict[str, int]
    digest: str
    warnings: list[str] = field(default_factory=list)
    recalibrated: list[Line] = field(default_factory=list)
    version: str = ""


def run(request: Request) -> Evaluation:
    """Computes all figures of the report for a model of the repository on the data of a folder.
    Raises ArtifactError or DataError with a one-line message; a database that cannot be read is a
    DataError.
    """
    name, _, version = request.model.partition("/")
    model = Repository(request.models).load(Ref(name, version))
    features = [Feature.from_declaration(each.declaration()) for each in model.manifest.features]
    names = {feature.name for feature in features}
    trained = model.manifest.training or {}
    label = _label(request, trained)
    hours = tuple(trained.get("sample_hours") or (request.hour or 24,))
    data = Data(
        folder=request.folder,
        database=request.database,
        stream=request.stream,
        # `hour` counts from the first reading of any parameter.
        parameters=() if "hour" in names else tuple(channels(features)),
        sample_hours=hours,
        carry_forward=bool(trained.get("carry_forward")),
    )
    readings = stream.read(data)
    found = outcomes.match(outcomes.read(request.folder, label, readings.identifiers), readings)
    sampled = rows.sample(readings, hours, carry_forward=data.carry_forward)
    every = rows.assemble(readings, found.table, label, features, sampled)
    required = [feature.name for feature in features if feature.required]
    test = rows.predictable(every, features, required)
    question = Question(
        stream=readings,
        outcomes=found.table,
        label=label,
        features=features,
        hours=hours,
        hour=_hour(request, trained, test),
        resamples=request.resamples,
        # With the seed of the training, the same stays and bootstraps are drawn as for its report.
        seed=int(trained.get("seed", 0)),
        alarm=_alarm(model),
    )
    left_out = readings.left_out | found.left_out
    if absent := len(every.y) - len(test.y):
        left_out["row without a value that the model requires"] = absent
    digest = f"{readings.digest}-{found.digest}"
    thresholds = dict(model.manifest.thresholds)
    judgement = judge(question, predictor(model), test, str(model.ref), thresholds)
    warnings = list(_warnings(model, digest))
    return Evaluation(model, question, test, judgement, left_out, digest, warnings)


def predictor(model: Model) -> Any:
    """Returns a function that computes the model's probability for each row, as in service."""

    def predict(x: Floats) -> Floats:
        return model.predict(x)["probability"].astype(np.float64)

    return predict


def _label(request: Request, trained: dict[str, Any]) -> Label:
    if request.label is not None:
        return Label(column=request.label, event=request.label.replace("_", " "))
    if "label" not in trained:
        raise DataError(
            f"{request.model}: its manifest names no column of outcome.csv; name it with --label"
        )
    return msgspec.convert(trained["label"], Label)


def _alarm(model: Model) -> Policy | None:
    rule = model.manifest.alarm
    if not rule:
        return None
    return msgspec.structs.replace(rule, learned_hours=model.manifest.learned_hours or None)


def _hour(request: Request, trained: dict[str, Any], test: Rows) -> int:
    """The hour for most figures: the requested hour, or else that of training, or else the last
    hour with rows."""
    if not len(test.y):
        raise DataError(f"{request.folder}: no row at the model's sample hours")
    there = sorted(test.about["hour"].unique())
    wanted = request.hour or trained.get("hour") or there[-1]
    if wanted not in there:
        raise DataError(
            f"{request.folder}: no row at hour {wanted}, only at {', '.join(map(str, there))}"
        )
    return int(wanted)


def _warnings(model: Model, digest: str) -> list[str]:
    trained = model.manifest.training or {}
    parts = set(digest.split("-"))
    seen = set(str(trained.get("sha256", "")).split("-"))
    seen |= set(str(trained.get("recalibrated", {}).get("sha256", "")).split("-"))
    found = []
    if parts & seen:
        found.append("The model was trained on these data, so the figures are too good.")
    return found + list(model.manifest.limits)
