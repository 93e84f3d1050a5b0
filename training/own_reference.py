"""Writes a model with a drift reference from your own patients, as a new version."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from modelapi.artifact import Ref, read_artifact, write_artifact
from modelapi.repository import Repository
from training.config import in_next_version
from training.evaluate import Evaluation
from training.reference import reference
from training.removal import channels
from wire.drift import Reference


def reference_of(evaluation: Evaluation) -> Reference:
    """The drift reference of the evaluated stays. `risk` is computed from the model's predictions
    for them."""
    question = evaluation.question
    return reference(
        question.stream,
        channels(question.features),
        evaluation.judgement.test,
        evaluation.judgement.scores,
        question.label.column,
        float(max(question.hours)),
    )


def write(evaluation: Evaluation, models: Path) -> Path:
    """Writes the next free version of the evaluated model, with the reference; returns the folder.

    Raises ArtifactError if the model cannot be read or the new version cannot be served.
    """
    model = evaluation.model.ref.model
    folder = in_next_version(models, model, partial(_write, evaluation, models))
    evaluation.version = folder.name
    return folder


def _write(evaluation: Evaluation, models: Path, version: str) -> Path:
    ref = evaluation.model.ref
    artifact = read_artifact(models / ref.model / ref.version)
    manifest = msgspec.to_builtins(artifact.manifest)
    manifest |= {
        "version": version,
        "created": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "reference": reference_of(evaluation),
        "training": (manifest.get("training") or {})
        | {"reference": {"from": str(ref), "sha256": evaluation.digest}},
    }
    folder = write_artifact(models, manifest, artifact.files)
    Repository(models).load(Ref(ref.model, version))
    return folder
