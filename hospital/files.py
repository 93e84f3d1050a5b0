"""Folders and temporary names of hospital's own files."""

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from wire.settings import SettingError

DERIVED = ("rejected.csv", "patients.csv", "all_data.csv", "all_data.json")


def unfinished(folder: Path, name: str) -> Path:
    """The temporary path of a file until it is complete."""
    return folder / f".{name}.part"


def create(path: Path) -> BinaryIO:
    """Creates a file for writing; removes an existing one and follows no link.

    Otherwise a planted link could redirect the rows to another file.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def writable_folder(first: Path, spare: Path) -> Path:
    """`first` if it is writable, else `spare`, which is created if missing.

    Tries to write, because permission bits do not show read-only mounts and other users. Raises
    SettingError if neither can be written.
    """
    try:
        tempfile.TemporaryFile(dir=first).close()
        return first
    except OSError:
        pass
    try:
        spare.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=spare).close()
        return spare
    except OSError as error:
        raise SettingError(
            f"cannot write to PATIENT_DATA={first} nor to DERIVED_DATA={spare}: {error.strerror}"
        ) from error
