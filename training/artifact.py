"""Writes the artifact: manifest, model, golden rows and model card, in the format of modelapi."""

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np

from modelapi.artifact import Ref, write_artifact
from modelapi.features import unit_of
from modelapi.repository import Repository
from modelapi.rounding import significant
from modelapi.sklearn_model import libraries
from training.card import model_card
from training.evaluation import Figure, Line
from training.reference import reference
from training.removal import channels
from training.train import Result
from wire.drift import Reference

GOLDEN_ROWS = 12


def write(result: Result, version: str) -> Path:
    """Writes the artifact under the config's models folder, loads it as modelapi does, and returns
    its folder.

    Raises FileExistsError if the version exists with other content, ArtifactError if it would not
    be served.
    """
    config = result.config
    created = datetime.now(UTC).replace(microsecond=0)
    features = [_declaration(result, number) for number in range(len(result.features))]
    manifest: dict[str, Any] = {
        "model": config.model.name,
        "version": version,
        "title": config.model.title,
        "kind": "sklearn",
        "created": created.isoformat(),
        "features": features,
        "outputs": [{"name": "probability", "description": f"probability of {config.label.event}"}],
        "libraries": libraries(),
        "significant_digits": 9,
        "learned_hours": config.data.learned_hours,
        "calibration": {"intercept": result.model.intercept, "slope": result.model.slope},
        **_thresholds(result),
        "metrics": _metrics(result),
        "reference": _reference(result),
        "training": {
            "sha256": result.digest,
            "source": result.question.stream.source,
            "label": msgspec.to_builtins(config.label),
            "hour": config.report.hour,
            "event": config.label.event,
            "kind": config.model.kind,
            "seed": config.model.seed,
            "stays": len(result.final.about.groupby(["pat_id", "date_admission"])),
            "rows": len(result.final.y),
            "events_among_rows": int(result.final.y.sum()),
            "sample_hours": sorted({*config.data.hours, *config.data.more_hours}),
            "carry_forward": config.data.carry_forward,
            "left_out": result.left_out,
        },
        "limits": list(config.card.limits),
    }
    files = {
        "model.joblib": _dump(result.model.estimator),
        "golden.json": _golden(result, features),
        "MODEL_CARD.md": model_card(result, version, created.date()).encode(),
    }
    folder = write_artifact(config.output.models, manifest, files)
    Repository(config.output.models).load(Ref(config.model.name, version))
    return folder


def _thresholds(result: Result) -> dict[str, Any]:
    """The thresholds and, if the config has one, the alarm rule."""
    thresholds = {name: point.threshold for name, point in result.judgement.points.items()}
    alarm = result.config.alarm
    if alarm is None:
        return {"thresholds": thresholds}
    return {"thresholds": thresholds, "alarm": msgspec.to_builtins(alarm.policy(thresholds))}


def _reference(result: Result) -> Reference:
    """The drift reference over all stays of the data. Its `risk` comes from predictions for the
    test rows by the evaluated model, which was fitted to the training rows only.
    """
    question = result.question
    return reference(
        question.stream,
        channels(question.features),
        result.judgement.test,
        result.judgement.scores,
        question.label.column,
        result.config.data.learned_hours,
    )


def _declaration(result: Result, number: int) -> dict[str, Any]:
    feature = result.features[number]
    column = result.final.x[:, number]
    known = column[~np.isnan(column)]
    return {
        "name": feature.name,
        "parameter": feature.parameter,
        "aggregation": feature.aggregation,
        "window_hours": feature.window_hours,
        "fill": feature.fill,
        "required": feature.name in result.config.features.required,
        "unit": unit_of(feature),
        "range": [float(known.min()), float(known.max())],
        "reference": float(np.median(known)),
    }


def _metrics(result: Result) -> dict[str, dict[str, Mapping[str, float]]]:
    lines: list[Line] = [*result.headline]
    lines += [
        Line(f"hour {line.name}", line.rows, line.events, line.figures)
        for line in result.judgement.hours
    ]
    return {
        line.name: {
            metric: _figure(figure) for metric, figure in line.figures.items() if figure.estimable
        }
        for line in lines
    }


def _figure(figure: Figure) -> Mapping[str, float]:
    names = ("value", "low", "high") if figure.bounded else ("value",)
    return {name: round(getattr(figure, name), 4) for name in names}


def _dump(model: Any) -> bytes:
    # The estimator's folds are dropped, because they identify rows of the data.
    if "cv" in model.get_params(deep=False):
        model.set_params(cv=None)
    content = io.BytesIO()
    joblib.dump(model, content, compress=("xz", 6), protocol=4)
    return content.getvalue()


def _golden(result: Result, features: list[dict[str, Any]]) -> bytes:
    """Makes synthetic rows: each value is drawn independently from the training values of its
    feature. The first row lacks every value that may be missing."""
    draw = np.random.default_rng(result.config.model.seed)
    x = np.column_stack([draw.choice(column, GOLDEN_ROWS) for column in result.final.x.T])
    names = [feature["name"] for feature in features]
    may_miss = [not feature["required"] for feature in features]
    x[0, may_miss] = np.nan
    probabilities = result.model.predict(significant(x)).tolist()
    rows = [
        {
            "features": dict(
                zip(names, [None if np.isnan(v) else float(v) for v in row], strict=True)
            ),
            "outputs": {"probability": probability},
        }
        for row, probability in zip(x, probabilities, strict=True)
    ]
    return msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n"
