"""Lists the models in the folder, and loads them."""

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelapi import linear, rules, sklearn_model
from modelapi.artifact import NAME, Artifact, ArtifactError, Ref, read_artifact
from modelapi.predictor import Explanation, Predictor, Rows, log_odds, logistic
from modelapi.rounding import significant

GOLDEN_TOLERANCE = 1e-9
TINY = 1e-9  # so that log odds are finite


class Model:
    """A verified model that can be served."""

    def __init__(self, artifact: Artifact, predictor: Predictor) -> None:
        self.manifest = manifest = artifact.manifest
        self.digest = artifact.digest
        self.example = msgspec.json.encode(artifact.golden[0].features).decode()
        self.predictor = predictor
        self.ref = Ref(manifest.model, manifest.version)
        # The highest number of points of a score; None if the model predicts a probability.
        self.maximum = predictor.maximum if isinstance(predictor, rules.Scorecard) else None
        self.names = tuple(feature.name for feature in manifest.features)
        self.required = np.array([feature.required for feature in manifest.features])
        self._fills = [
            (i, feature.fill)
            for i, feature in enumerate(manifest.features)
            if feature.fill is not None
        ]

    def predict(self, rows: Rows) -> dict[str, NDArray[np.generic]]:
        """Computes the outputs, by name, each of shape (rows,). rows: shape (rows, features)."""
        outputs = self.predictor.outputs(self._prepared(rows))
        if line := self.manifest.calibration:
            raw = np.clip(outputs["probability"].astype(np.float64), TINY, 1 - TINY)
            outputs["probability"] = logistic(line.intercept + line.slope * log_odds(raw))
        return outputs

    def explain(self, rows: Rows) -> Explanation:
        """Computes the contribution of each feature to each row's value."""
        found = self.predictor.explain(self._prepared(rows))
        line = self.manifest.calibration
        if not line or found.scale != "log odds":
            return found
        return replace(
            found,
            base=line.intercept + line.slope * found.base,
            contributions=line.slope * found.contributions,
        )

    def _prepared(self, rows: Rows) -> Rows:
        if self.manifest.significant_digits:
            rows = significant(rows)
        if not self._fills or not np.isnan(rows).any():
            return rows
        rows = rows.copy()
        for column, fill in self._fills:
            rows[np.isnan(rows[:, column]), column] = fill
        return rows


class Repository:
    """The models under one folder, `<name>/<version>/manifest.json`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def refs(self) -> list[Ref]:
        """All versions of all models, in order of name and of version (1.9 before 1.10)."""
        found = [
            Ref(path.parent.parent.name, path.parent.name)
            for path in self.root.glob("*/*/manifest.json")
        ]
        valid = [ref for ref in found if NAME.fullmatch(ref.model) and NAME.fullmatch(ref.version)]
        return sorted(valid, key=lambda ref: (ref.model, _natural(ref.version)))

    def folder(self, ref: Ref) -> Path:
        return self.root / ref.model / ref.version

    def load(self, ref: Ref) -> Model:
        """Verifies and loads an artifact. Raises ArtifactError with a one-line reason."""
        folder = self.folder(ref)
        artifact = read_artifact(folder)
        model = Model(artifact, predictor_of(artifact, folder))
        _replay_golden(model, artifact, folder)
        return model


def _natural(version: str) -> list[tuple[bool, int, str]]:
    """A sort key that puts 1.10 after 1.9."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else 0, part)
        for part in re.findall(r"\d+|\D+", version)
    ]


def predictor_of(artifact: Artifact, folder: Path) -> Predictor:
    """Loads the model's file. Raises ArtifactError."""
    manifest, files = artifact.manifest, artifact.files
    features = manifest.features
    try:
        if manifest.kind == "sklearn":
            return sklearn_model.from_joblib(files["model.joblib"], features, manifest.libraries)
        if manifest.kind == "linear":
            return linear.from_json(files["linear.json"], features)
        return rules.from_json(files["scorecard.json"], features)
    except Exception as error:  # an artifact may raise anything; the old model must keep serving
        raise ArtifactError(f"{folder}: {_line(error)}") from None


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _replay_golden(model: Model, artifact: Artifact, folder: Path) -> None:
    """Checks that the model returns the declared outputs, reproduces its golden rows, and accepts
    missing values of all features that are not required. Raises ArtifactError."""
    path = folder / "golden.json"
    rows = []
    for number, golden in enumerate(artifact.golden, 1):
        if set(golden.features) != set(model.names):
            raise ArtifactError(f"{path}: row {number}: its features are not the manifest's")
        rows.append([golden.features[name] for name in model.names])
    missing = np.where(model.required, 1.0, np.nan)
    batch = np.vstack([np.array(rows, dtype=np.float64), missing])
    try:
        outputs = model.predict(batch)
    except Exception as error:
        raise ArtifactError(f"{folder}: fails on its golden rows: {_line(error)}") from None
    names = [output.name for output in model.manifest.outputs]
    if list(outputs) != names:
        raise ArtifactError(f"{folder}: returns {', '.join(outputs)}, declares {', '.join(names)}")
    if not np.isfinite(outputs["probability"][-1]):
        raise ArtifactError(
            f"{folder}: fails without a feature that is neither required nor filled"
        )
    for number, golden in enumerate(artifact.golden, 1):
        for name, expected in golden.outputs.items():
            got = outputs[name][number - 1].item() if name in outputs else None
            if not _same(got, expected):
                raise ArtifactError(
                    f"{path}: row {number}: {name} is {got!r}, must be {expected!r}"
                )


def _same(got: object, expected: float | str) -> bool:
    if isinstance(expected, str) or not isinstance(got, int | float):
        return got == expected
    return abs(got - expected) <= GOLDEN_TOLERANCE
