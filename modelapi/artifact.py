"""Reads and writes a model on disk: `models/<name>/<version>/`, described by manifest.json.

`models/README.md` documents the format.
"""

import hashlib
import os
import re
import shutil
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
    """An artifact is invalid; the message is one line with the file and the reason."""


@dataclass(frozen=True)
class Ref:
    """One version of one model, written `name/version`."""

    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"

    @classmethod
    def parse(cls, text: str) -> "Ref":
        """Parses `name/version`. Raises ValueError for text of another form."""
        model, slash, version = text.partition("/")
        if not (model and slash and version) or "/" in version:
            raise ValueError(f"{text!r} is not NAME/VERSION")
        return cls(model, version)


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One output of a model, a number or a text per row."""

    name: str
    datatype: Literal["FP64", "INT64", "BYTES"] = "FP64"
    description: str = ""


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A metric with its confidence interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A calibration of the model's log odds: intercept + slope * log odds."""

    intercept: float = 0.0
    slope: float = 1.0


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """manifest.json: the description of a model.

    significant_digits: the number of digits to which `modelapi.rounding` rounds the features before
    the model gets them; unset: no rounding. learned_hours: hours from a stay's first reading to the
    latest training rows; later predictions are extrapolated. alarm: the alarm rule; unset: no
    alarms. reference: figures of the training data by stay-day, with which the drift task
    compares the stream; unset: no drift figures.
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
            raise ValueError("features: at least one is required, and their names must differ")
        if not self.outputs or self.outputs[0] != Output(
            "probability", "FP64", self.outputs[0].description
        ):
            raise ValueError("outputs: the first must be the FP64 output 'probability'")
        taken = [output.name for output in self.outputs] + ["model", "version"]
        if len(set(taken)) < len(taken):
            raise ValueError("outputs: names must differ, and none may be 'model' or 'version'")
        for required in (MODEL_FILES[self.kind], "golden.json"):
            if required not in self.files:
                raise ValueError(f"files: {required} is missing")

    @property
    def base_rate(self) -> float | None:
        """The share of the training rows with the event; None if the manifest does not have it."""
        match self.training:
            case {"rows": int(rows), "events_among_rows": int(events)} if 0 <= events <= rows > 0:
                return events / rows
        return None


class GoldenRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of features, and the outputs that the model must return for it."""

    features: dict[str, float | None]
    outputs: dict[str, float | str]


class Artifact(msgspec.Struct, frozen=True):
    """An artifact read from disk, after a check of every file's digest."""

    manifest: Manifest
    digest: str
    files: dict[str, bytes]
    golden: tuple[GoldenRow, ...]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest_digest(folder: Path) -> str:
    """SHA-256 of manifest.json, which identifies the whole artifact through the digests of its
    files.
    """
    return sha256(_read(folder / "manifest.json"))


def read_artifact(folder: Path) -> Artifact:
    """Reads and checks `models/<name>/<version>`. Raises ArtifactError.

    Each file is read once, so that the bytes in use are the bytes that were checked.
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
    """Writes an artifact under `root`, with the files' digests in the manifest.

    The folder is written atomically. Returns the folder. Raises FileExistsError if the version
    exists with other content, and msgspec.ValidationError for an invalid manifest.
    """
    digests = {name: sha256(content) for name, content in sorted(files.items())}
    checked = msgspec.convert({**manifest, "files": digests}, Manifest)
    folder = root / checked.model / checked.version
    contents = {**files, "manifest.json": pretty(checked)}
    if folder.exists():
        if {path.name: path.read_bytes() for path in folder.iterdir()} == contents:
            return folder
        raise FileExistsError(f"{folder}: exists with other content; use another version")
    draft = folder.parent / f".{folder.name}.{os.getpid()}"
    draft.mkdir(parents=True, exist_ok=True)
    try:
        for name, content in contents.items():
            (draft / name).write_bytes(content)
        draft.rename(folder)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        if folder.exists():  # another program has just written it
            raise FileExistsError(f"{folder}: exists already; use another version") from None
        raise
    return folder


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from None


def _decode(content: bytes, shape: type[Shape], path: Path) -> Shape:
    try:
        return msgspec.json.decode(content, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: {error}") from None


def pretty(document: object) -> bytes:
    """A document as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
