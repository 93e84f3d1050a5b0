"""Recalibrates a model on your own patients, and writes it as a new version."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from modelapi.artifact import GoldenRow, Ref, read_artifact, write_artifact
from modelapi.repository import Repository
from training import calibration, rows
from training.config import Split, in_next_version
from training.evaluate import Evaluation, predictor
from training.evaluation import Judge, Line, Scores
from training.stream import DataError

Kind = Literal["intercept", "line"]

HALVES = Split(by="patient", test_share=0.5)
METRICS = ("auroc", "brier", "calibration_slope", "calibration_intercept")


class Recalibration(NamedTuple):
    """A calibration of the log odds, and the figures before and after on patients that it was not
    fitted to.

    patients: the number of patients that it was fitted to. digest: the SHA-256 of each part of the
    data, joined by `-`.
    """

    ref: Ref
    intercept: float
    slope: float
    patients: int
    digest: str
    before: Line
    after: Line


def recalibrate(evaluation: Evaluation, models: Path, kind: Kind) -> Path:
    """Fits the intercept, or intercept and slope, on half of the patients; writes a new version.

    Adds to the evaluation the figures of the other half before and after recalibration. Returns
    the folder of the new version. Raises DataError if the calibration is not estimable, or a half
    has only one outcome; ArtifactError as `write` does.
    """
    predict = predictor(evaluation.model)
    past, now = (
        Scores(part.y, predict(part.x), part.patients)
        for part in rows.split(evaluation.rows, HALVES)
    )
    ref, digest = evaluation.model.ref, evaluation.digest
    found = fit(ref, past, now, kind, evaluation.question.judge, digest)
    evaluation.recalibrated = [found.before, found.after]
    folder = write(found, models)
    evaluation.version = folder.name
    return folder


def fit(
    ref: Ref, past: Scores, now: Scores, kind: Kind, judge: Judge, digest: str
) -> Recalibration:
    """Fits the calibration on `past` and evaluates it on `now`, which has other patients. Raises
    DataError if the calibration is not estimable.
    """
    y, p, weight = past.y, past.probability, past.weights
    if kind == "intercept":
        intercept, slope = calibration.shift(y, p, weight), 1.0
    else:
        intercept, slope = calibration.line(y, p, weight)
    if not np.isfinite([intercept, slope]).all():
        raise DataError("recalibration is not estimable: too few events, or separated outcomes")
    moved = calibration.moved(now.probability, intercept, slope)
    after = Scores(now.y, moved, now.patients, now.weight)
    note = "Patients that the calibration was not fitted to"
    return Recalibration(
        ref,
        intercept,
        slope,
        len(np.unique(past.patients)),
        digest,
        judge.line("before", now, METRICS, note),
        judge.line("after", after, METRICS, f"intercept {intercept:+.3f}, slope {slope:.3f}"),
    )


def write(found: Recalibration, models: Path) -> Path:
    """Writes the model with its calibration under the next free version; returns the folder.

    Raises ArtifactError if the model cannot be read or the new version cannot be served.
    """
    return in_next_version(models, found.ref.model, partial(_write, found, models))


def _write(found: Recalibration, models: Path, version: str) -> Path:
    ref, intercept, slope = found.ref, found.intercept, found.slope
    artifact = read_artifact(models / ref.model / ref.version)
    manifest = msgspec.to_builtins(artifact.manifest)
    old = manifest.get("calibration") or {"intercept": 0.0, "slope": 1.0}
    source = {"from": str(ref), "sha256": found.digest, "patients": found.patients}
    training = dict(manifest.get("training") or {}) | {"recalibrated": source}
    # The thresholds are moved, so that they flag the same rows as before. The alarm rule keeps its
    # probabilities.
    named = manifest.get("thresholds") or {}
    thresholds = {name: _moved(at, intercept, slope) for name, at in named.items()}
    manifest |= {
        "version": version,
        "created": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "calibration": {
            "intercept": intercept + slope * old["intercept"],
            "slope": slope * old["slope"],
        },
        "thresholds": thresholds,
        "training": training,
        "metrics": {
            f"recalibration, {line.name}": {
                name: {"value": round(figure.value, 4)}
                for name, figure in line.figures.items()
                if figure.estimable
            }
            for line in (found.before, found.after)
        },
    }
    golden = [_moved_row(row, intercept, slope) for row in artifact.golden]
    if reference := manifest.get("reference"):
        # The bands of the mean prediction are those of the old probabilities; the mean of the new
        # ones cannot be computed from them.
        risk = {"value": _moved(reference["risk"]["value"], intercept, slope), "bands": []}
        manifest["reference"] = reference | {"risk": risk}
    card = artifact.files.get("MODEL_CARD.md", b"")
    files = artifact.files | {
        "golden.json": msgspec.json.format(msgspec.json.encode(golden), indent=1) + b"\n",
        "MODEL_CARD.md": card + _section(found, version),
    }
    folder = write_artifact(models, manifest, files)
    Repository(models).load(Ref(ref.model, version))
    return folder


def _moved(probability: Any, intercept: float, slope: float) -> float:
    return float(calibration.moved(np.array([probability], np.float64), intercept, slope)[0])


def _moved_row(row: GoldenRow, intercept: float, slope: float) -> Any:
    """A golden row, as builtins, with the recalibrated probability."""
    probability = _moved(row.outputs["probability"], intercept, slope)
    outputs = row.outputs | {"probability": probability}
    return msgspec.to_builtins(row) | {"outputs": outputs}


def _section(found: Recalibration, version: str) -> bytes:
    lines = [
        f"\n## Recalibration (version {version})\n",
        f"This is version {found.ref.version} with log odds that were recalibrated on other data "
        f"(SHA-256 {found.digest}). The figures above are those of that version. On "
        f"{found.before.rows:,} rows of patients that the recalibration did not use:\n",
        "| | " + " | ".join(name.replace("_", " ") for name in METRICS) + " |",
        "|---" * (len(METRICS) + 1) + "|",
        *(
            f"| {line.name} | " + " | ".join(str(line.figures[name]) for name in METRICS) + " |"
            for line in (found.before, found.after)
        ),
    ]
    return ("\n".join(lines) + "\n").encode()
