"""A model on disk: `models/<name>/<version>/`, described by its manifest.json.

`models/README.md` tells the format to those who write artifacts.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from modelapi.features import Feature
from wire.alarms import Policy
from wire.drift import Reference

Shape = TypeVar("Shape")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MODEL_FILES = {"sklearn": "model.joblib", "linear": "linear.json", "scorecard": "scorecard.json"}


class ArtifactError(Exception):
    """An artifact that cannot be used; the message is one line naming file and fault."""


@dataclass(frozen=True)
class Ref:
    """One version of one model."""

    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One output of a model, a number or a text a row."""

    name: str
    datatype: Literal["FP64", "INT64", "BYTES"] = "FP64"
    description: str = ""


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A figure with its confidence interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line that the model's log odds go through: intercept + slope * log odds."""

    intercept: float = 0.0
    slope: float = 1.0


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """manifest.json: the description of a model.

    significant_digits: features are rounded to as many before the model sees them, by
    `modelapi.rounding`; unset: they are not. learned_hours: hours since the first reading of a stay
    that the training rows reach to; a later prediction is extrapolation. alarm: when its
    predictions ring; unset: never. reference: the training data by day, for drift; unset: no
    figures of drift.
    """

    format: Literal[1] = 1
    model: str
    version: str
    title: str
    kind: Literal["sklearn", "linear", "scorecard"]
    created: datetime
    features: tuple[Feature, ...]
    outputs: tuple[Output, ...]
    files: dict[str, str]
    libraries: dict[str, str] = {}
    significant_digits: Literal[9] | msgspec.UnsetType = msgspec.UNSET
    learned_hours: Annotated[float, msgspec.Meta(gt=0)] | msgspec.UnsetType = msgspec.UNSET
    calibration: Calibration | msgspec.UnsetType = msgspec.UNSET
    thresholds: dict[str, float] = {}
    alarm: Policy | msgspec.UnsetType = msgspec.UNSET
    metrics: dict[str, dict[str, Metric]] = {}
    reference: Reference | msgspec.UnsetType = msgspec.UNSET
    training: dict[str, Any] | None = None
    limits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind, name in (("model", self.model), ("version", self.version)):
            if not NAME.fullmatch(name):
                raise ValueError(f"{kind} {name!r}: letters, digits, '.', '_' and '-', at most 64")
        names = [feature.name for feature in self.features]
        if not names or len(set(names)) < len(names):
            raise ValueError("features: at least one, each once")
        if not self.outputs or self.outputs[0] != Output(
            "probability", "FP64", self.outputs[0].description
        ):
            raise ValueError("outputs: the first must be the FP64 output 'probability'")
        taken = [output.name for output in self.outputs] + ["model", "version"]
        if len(set(taken)) < len(taken):
            raise ValueError("outputs: each name once, and none may be 'model' or 'version'")
        for required in (MODEL_FILES[self.kind], "golden.json"):
            if required not in self.files:
                raise ValueError(f"files: {required} is missing")


class GoldenRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of features and the outputs that the model gave when it was made."""

    features: dict[str, float | None]
    outputs: dict[str, float | str]


class Artifact(msgspec.Struct, frozen=True):
    """An artifact as read from disk, every file checked against its digest."""

    manifest: Manifest
    digest: str
    files: dict[str, bytes]
    golden: tuple[GoldenRow, ...]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest_digest(folder: Path) -> str:
    """SHA-256 of manifest.json, which through its file digests stands for the whole artifact."""
    return sha256(_read(folder / "manifest.json"))


def read_artifact(folder: Path) -> Artifact:
    """Read and check `models/<name>/<version>`; raises ArtifactError.

    Each file is read once, so what was checked is what is used.
    """
    content = _read(folder / "manifest.json")
    manifest = _decode(content, Manifest, folder / "manifest.json")
    if (manifest.model, manifest.version) != (folder.parent.name, folder.name):
        raise ArtifactError(
            f"{folder / 'manifest.json'}: names {manifest.model}/{manifest.version}, "
            f"but lies in {folder.parent.name}/{folder.name}"
        )
    files = {}
    for name, digest in manifest.files.items():
        if Path(name).name != name:
            raise ArtifactError(f"{folder / 'manifest.json'}: files: {name!r} is not a file name")
        files[name] = _read(folder / name)
        if sha256(files[name]) != digest:
            raise ArtifactError(
                f"{folder / name}: SHA-256 is {sha256(files[name])}, the manifest says {digest}"
            )
    golden = _decode(files["golden.json"], tuple[GoldenRow, ...], folder / "golden.json")
    if not golden:
        raise ArtifactError(f"{folder / 'golden.json'}: has no rows")
    return Artifact(manifest, sha256(content), files, golden)


def write_artifact(root: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Path:
    """Write an artifact under `root`; the files' digests are filled into the manifest.

    The folder appears whole or not at all, and a version is never overwritten with
    other content: raises FileExistsError. Returns the folder.
    """
    digests = {name: sha256(content) for name, content in sorted(files.items())}
    checked = msgspec.convert({**manifest, "files": digests}, Manifest)
    folder = root / checked.model / checked.version
    contents = {**files, "manifest.json": _pretty(checked)}
    if folder.exists():
        if {path.name: path.read_bytes() for path in folder.iterdir()} == contents:
            return folder
        raise FileExistsError(f"{folder}: exists; give the model another version")
    draft = folder.parent / f".{folder.name}.{os.getpid()}"
    draft.mkdir(parents=True)
    for name, content in contents.items():
        (draft / name).write_bytes(content)
    draft.rename(folder)
    return folder


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from None


def _decode(content: bytes, shape: type[Shape], path: Path) -> Shape:
    try:
        return msgspec.json.decode(content, type=shape)
    except msgspec.MsgspecError as error:
        raise ArtifactError(f"{path}: {error}") from None


def _pretty(document: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
