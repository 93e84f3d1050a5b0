"""The folders and the temporary names of the files that hospital writes."""

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from wire.settings import SettingError

DERIVED = ("rejected.csv", "patients.csv", "all_data.csv", "all_data.json")


def unfinished(folder: Path, name: str) -> Path:
    """The path of a file that is not complete yet."""
    return folder / f".{name}.part"


def create(path: Path) -> BinaryIO:
    """Creates a file for writing. Removes an existing file first, and follows no symbolic link.

    Otherwise somebody could place a link there that redirects the rows to another file.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def writable_folder(first: Path, spare: Path) -> Path:
    """Returns `first` if it is writable, otherwise `spare`, which is created if it is missing.

    It writes to find out, because permission bits do not show a read-only mount. Raises
    SettingError if neither is writable.
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
