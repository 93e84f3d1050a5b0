"""Marks a ward as synthetic by means of synthetic.json, which has the digests of the CSVs."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from hospital.files import unfinished

NAME = "synthetic.json"
INPUTS = ("age.csv", "admission.csv", "signal.csv")


def mark(folder: Path, **options: int) -> None:
    """Writes synthetic.json for the ward's unfinished files. options: the options that the ward was
    made with."""
    digests = {}
    for name in INPUTS:
        with unfinished(folder, name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    (folder / NAME).write_text(json.dumps({**options, "sha256": digests}, indent=1) + "\n")


def is_synthetic(folder: Path, digests: Mapping[str, str]) -> bool:
    """Whether any of the files has the content for which synthetic.json was written. digests: the
    SHA-256 of each file, by name."""
    try:
        known = json.loads((folder / NAME).read_text(encoding="utf-8"))["sha256"]
        return any(known.get(name) == digest for name, digest in digests.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
