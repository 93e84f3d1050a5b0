"""Where hospital's own files go, and how they are put there."""

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from wire.settings import SettingError

DERIVED = ("rejected.csv", "patients.csv", "all_data.csv", "all_data.json")


def unfinished(folder: Path, name: str) -> Path:
    """Where a file is written before it is put in place."""
    return folder / f".{name}.part"


def create(path: Path) -> BinaryIO:
    """A new file to write; what is there is removed, and no link is followed.

    Otherwise a link planted under the name would direct the rows to another file.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def writable_folder(first: Path, spare: Path) -> Path:
    """`first` if a file can be made in it, else `spare`, which is made if missing.

    It tries, because permission bits do not show read-only mounts and other users.
    Raises SettingError if neither can be written.
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
