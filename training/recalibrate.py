"""Recalibrates a model on one's own patients, and writes it as a new version."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from modelapi.artifact import Ref, read_artifact, write_artifact
from modelapi.predictor import log_odds, logistic
from modelapi.repository import Repository
from training import calibration, rows
from training.config import Split, free_version
from training.evaluate import Evaluation, predictor
from training.evaluation import Scores
from training.stream import DataError

Kind = Literal["intercept", "line"]

HALVES = Split(by="patient", test_share=0.5)
METRICS = ("auroc", "brier", "calibration_slope", "calibration_intercept")


def recalibrate(evaluation: Evaluation, models: Path, kind: Kind) -> Path:
    """Fits the intercept, or intercept and slope, on half of the patients; writes a new version.

    The evaluation gets the figures of the other half, before and after. Raises DataError when the
    line is not estimable.
    """
    past, now = rows.split(evaluation.rows, HALVES)
    predict = predictor(evaluation.model)
    intercept, slope = _fit(past.y, predict(past.x), kind)
    if not np.isfinite([intercept, slope]).all():
        raise DataError("recalibration is not estimable: too few events, or separated outcomes")
    before = Scores(now.y, predict(now.x), now.patients)
    moved = logistic(intercept + slope * calibration.log_odds(before.probability))
    after = Scores(now.y, moved, now.patients)
    judge = evaluation.question.judge
    evaluation.recalibrated = [
        judge.line("before", before, METRICS, "patients that the line was not fitted to"),
        judge.line("after", after, METRICS, f"intercept {intercept:+.3f}, slope {slope:.3f}"),
    ]
    folder = _write(evaluation, models, intercept, slope, len(np.unique(past.patients)))
    evaluation.version = folder.name
    return folder


def _fit(y: Any, p: Any, kind: Kind) -> tuple[float, float]:
    weight = np.ones(len(y))
    if kind == "intercept":
        return calibration.shift(y, p, weight), 1.0
    return calibration.line(y, p, weight)


def _write(
    evaluation: Evaluation, models: Path, intercept: float, slope: float, patients: int
) -> Path:
    ref = evaluation.model.ref
    artifact = read_artifact(models / ref.model / ref.version)
    manifest = msgspec.to_builtins(artifact.manifest)
    version = free_version(models, ref.model)
    old = manifest.get("calibration") or {"intercept": 0.0, "slope": 1.0}
    line = {
        "intercept": intercept + slope * old["intercept"],
        "slope": slope * old["slope"],
    }
    training = dict(manifest.get("training") or {})
    training["recalibrated"] = {
        "from": str(ref),
        "sha256": evaluation.digest,
        "patients": patients,
    }
    manifest |= {
        "version": version,
        "created": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "calibration": line,
        "training": training,
        "metrics": {
            f"recalibration, {each.name}": {
                name: {"value": round(figure.value, 4)}
                for name, figure in each.figures.items()
                if figure.estimable
            }
            for each in evaluation.recalibrated
        },
    }
    golden = [
        msgspec.to_builtins(row)
        | {"outputs": row.outputs | {"probability": _moved(row, intercept, slope)}}
        for row in artifact.golden
    ]
    files = artifact.files | {
        "golden.json": msgspec.json.format(msgspec.json.encode(golden), indent=1) + b"\n",
        "MODEL_CARD.md": artifact.files.get("MODEL_CARD.md", b"") + _section(evaluation, version),
    }
    folder = write_artifact(models, manifest, files)
    Repository(models).load(Ref(ref.model, version))
    return folder


def _moved(row: Any, intercept: float, slope: float) -> float:
    p = np.clip(np.array([row.outputs["probability"]], dtype=np.float64), 1e-9, 1 - 1e-9)
    return float(logistic(intercept + slope * log_odds(p))[0])


def _section(evaluation: Evaluation, version: str) -> bytes:
    before, after = evaluation.recalibrated
    lines = [
        f"\n## Recalibration (version {version})\n",
        f"Version {evaluation.model.ref.version}, its log odds recalibrated on other data "
        f"(SHA-256 {evaluation.digest}). The figures above are those of that version. On "
        f"{before.rows:,} rows of patients that the recalibration did not use:\n",
        "| | " + " | ".join(name.replace("_", " ") for name in METRICS) + " |",
        "|---" * (len(METRICS) + 1) + "|",
        *(
            f"| {line.name} | " + " | ".join(str(line.figures[name]) for name in METRICS) + " |"
            for line in (before, after)
        ),
    ]
    return ("\n".join(lines) + "\n").encode()
