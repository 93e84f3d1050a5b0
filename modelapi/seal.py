"""Completes a model that was written by hand: `python -m modelapi seal models/NAME/VERSION`."""

import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelapi.artifact import (
    MODEL_FILES,
    Artifact,
    ArtifactError,
    GoldenRow,
    Manifest,
    Ref,
    pretty,
    write_artifact,
)
from modelapi.features import Feature, unit_of
from modelapi.repository import Model, Repository, predictor_of
from modelapi.sklearn_model import libraries
from wire.vitals import vital

# Aggregations whose values lie on the scale of the vital.
VALUES = {"last", "first", "min", "max", "mean"}


class Row(msgspec.Struct, forbid_unknown_fields=True):
    """A golden row whose outputs may be missing, because sealing computes them."""

    features: dict[str, float | None]
    outputs: dict[str, float | str] = {}


def seal(folder: Path) -> Model:
    """Completes the version in `folder`, and returns the model as it will be served. Fills in the
    digests, the golden rows, and each member of the manifest that the folder, its files, or the
    name of a feature determines. Loads the model's file; a joblib file can run code. Raises
    ArtifactError, and changes nothing, if the version would not be served or is already sealed.
    """
    path, ref = folder / "manifest.json", Ref(folder.parent.name, folder.name)
    try:
        draft = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        files = {
            file.name: file.read_bytes()
            for file in folder.iterdir()
            if file != path and file.is_file() and not file.name.startswith(".")
        }
        if draft.pop("files", None):
            raise ArtifactError(f"{folder}: is sealed; copy it to a new version to change it")
        draft = _implied(ref, files, folder) | draft
        features = _features(draft.get("features"))
        rows = _rows(files, features)
        checked = msgspec.convert(
            {**draft, "features": features, "files": dict.fromkeys({*files, "golden.json"}, "")},
            Manifest,
        )
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise ArtifactError(f"{path}: {error}") from None
    files["golden.json"] = pretty(_answered(Artifact(checked, "", files, rows), folder))
    # The version is loaded as by the server before anything changes.
    with tempfile.TemporaryDirectory(prefix=".seal-", dir=folder.parent) as root:
        sealed = write_artifact(Path(root), msgspec.to_builtins(checked), files)
        try:
            model = Repository(Path(root)).load(ref)
        except ArtifactError as error:
            text = str(error).replace(root, str(folder.parent.parent))
            raise ArtifactError(text) from None
        for name in ("golden.json", "manifest.json"):
            os.replace(sealed / name, folder / name)
    return model


def _implied(ref: Ref, files: Mapping[str, bytes], folder: Path) -> dict[str, Any]:
    """The members of the manifest that the folder and its files determine."""
    kinds = [kind for kind, name in MODEL_FILES.items() if name in files]
    if len(kinds) != 1:
        names = ", ".join(MODEL_FILES.values())
        raise ArtifactError(f"{folder}: needs exactly one of {names}")
    implied = {
        "model": ref.model,
        "version": ref.version,
        "title": ref.model,
        "kind": kinds[0],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "outputs": [{"name": "probability"}],
    }
    return {**implied, "libraries": libraries()} if kinds[0] == "sklearn" else implied


def _features(declared: object) -> list[Feature]:
    """The declared features. An entry may be the feature's name alone. Raises ValueError with all
    errors."""
    if not isinstance(declared, list) or not declared:
        raise ValueError("features: expected a list of names or objects")
    found, errors = [], []
    for each in declared:
        try:
            members = {"name": each} if isinstance(each, str) else dict(each)
            feature = Feature.from_declaration(members)
            if "unit" not in members:
                feature = msgspec.structs.replace(feature, unit=unit_of(feature))
            found.append(feature)
        except (TypeError, ValueError) as error:
            errors.append(str(error))
    if errors:
        raise ValueError("; ".join(errors))
    return found


def _rows(files: Mapping[str, bytes], features: list[Feature]) -> tuple[GoldenRow, ...]:
    """The rows of golden.json, or else rows with ordinary and missing values."""
    if "golden.json" not in files:
        return tuple(GoldenRow(row, {}) for row in _ordinary(features))
    rows = msgspec.json.decode(files["golden.json"], type=list[Row])
    names = [feature.name for feature in features]
    for number, row in enumerate(rows, 1):
        if unknown := sorted(row.features.keys() - set(names)):
            raise ValueError(f"golden.json, row {number}: no feature {', '.join(unknown)}")
    if not rows:
        raise ValueError("golden.json: has no rows")
    return tuple(GoldenRow({n: row.features.get(n) for n in names}, row.outputs) for row in rows)


def _ordinary(features: list[Feature]) -> list[dict[str, float | None]]:
    """Three rows, with low, middle and high values, and a row in which all optional values are
    missing."""
    values = {feature.name: _values(feature) for feature in features}
    rows: list[dict[str, float | None]] = [
        {name: three[place] for name, three in values.items()} for place in range(3)
    ]
    absent = {feature.name for feature in features if not feature.required}
    return [*rows, {name: None if name in absent else values[name][1] for name in values}]


def _values(feature: Feature) -> tuple[float, float, float]:
    if feature.parameter is None:
        low, high = feature.range or ((20.0, 90.0) if feature.name == "age" else (0.0, 48.0))
    else:
        scale = vital(feature.parameter).scale if feature.aggregation in VALUES else None
        low, high = feature.range or scale or (0.0, 4.0)
    return low, (low + high) / 2, high


def _answered(artifact: Artifact, folder: Path) -> list[GoldenRow]:
    """The golden rows. Those without outputs get the model's outputs. Raises ArtifactError."""
    model = Model(artifact, predictor_of(artifact, folder))
    rows = np.array([list(row.features.values()) for row in artifact.golden], dtype=np.float64)
    try:
        outputs = model.predict(rows)
    except Exception as error:  # an estimator may raise anything
        raise ArtifactError(f"{folder}: {type(error).__name__}: {error}") from None
    return [
        GoldenRow(row.features, row.outputs or {name: outputs[name][i].item() for name in outputs})
        for i, row in enumerate(artifact.golden)
    ]
