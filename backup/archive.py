"""A backup: a folder with one compressed file per part, and the digests of these files."""

import gzip
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

CONTENTS = "backup.json"
# Saved in this order, so that the gateway's log contains every message that the tables contain.
PARTS = ("tables", "models", "gateway", "login")
# `restore` does not replace one of these parts if it exists, because its entries later than the
# backup would be lost.
KEPT = ("gateway", "login")
BLOCK = 1 << 20
# Seconds between two lines that report the progress.
REPORT_EVERY = 10


class BackupError(Exception):
    """A backup cannot be made or restored. The text is one line."""


class Stack(Protocol):
    """A pipeline that can be backed up. kind: the format of its tables, mysql or sqlite."""

    kind: str

    def exists(self, part: str) -> bool:
        """Whether the stack has this part."""
        ...

    def read(self, part: str) -> AbstractContextManager[IO[bytes]]:
        """Opens a consistent copy of the part for reading. Raises BackupError."""
        ...

    def write(self, part: str, content: IO[bytes]) -> None:
        """Replaces the part. Raises BackupError."""
        ...

    def record(self, saved_at: int) -> None:
        """Stores the time of a backup for the tool's metrics, unless Redis is unavailable."""
        ...

    def stopped(self) -> AbstractContextManager[object]:
        """Stops the programs that write and then empties the queue; starts these programs again at
        the end of the context.

        The queue is emptied first, so that a restore that fails halfway leaves no positions in
        Redis that are later than the restored tables.

        Raises BackupError if they run and the user must stop them.
        """
        ...


class Progress:
    """A file that is read, and reports from time to time how much of it was read."""

    def __init__(self, content: IO[bytes], part: str, verb: str) -> None:
        self._content = content
        self._part = part
        self._verb = verb
        self._read = 0
        self._report_at = time.monotonic() + REPORT_EVERY

    def read(self, size: int = -1) -> bytes:
        block = self._content.read(size)
        self._read += len(block)
        if time.monotonic() >= self._report_at:
            print(f"{self._part}: {self._read / 1e6:,.0f} MB {self._verb}", file=sys.stderr)
            self._report_at = time.monotonic() + REPORT_EVERY
        return block


def save(stack: Stack, folder: Path) -> Path:
    """Writes a backup to a new folder inside `folder`; returns the new folder.

    Raises BackupError.
    """
    saved_at = datetime.now(UTC)
    name = saved_at.strftime("icu-%Y%m%dT%H%M%SZ")
    part_written = folder / f".{name}.part"
    try:
        # If another backup of the same second has this folder, it must not be removed below.
        part_written.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise BackupError(f"{error.filename or folder}: {error.strerror}") from None
    try:
        digests = {}
        for part in PARTS:
            if stack.exists(part):
                with (
                    stack.read(part) as content,
                    gzip.open(part_written / f"{part}.gz", "wb", compresslevel=5) as file,
                ):
                    shutil.copyfileobj(Progress(content, part, "saved"), file, BLOCK)
                digests[part] = _digest(part_written / f"{part}.gz")
        contents = {"saved_at": name, "tables": stack.kind, "sha256": digests}
        (part_written / CONTENTS).write_text(json.dumps(contents, indent=2) + "\n")
        saved = part_written.rename(folder / name)
        stack.record(int(saved_at.timestamp()))
        return saved
    except OSError as error:
        raise BackupError(f"{error.filename or folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(part_written, ignore_errors=True)


def restore(stack: Stack, folder: Path) -> Iterator[str]:
    """Restores a backup while the programs are stopped; yields one line of text per part.

    Raises BackupError; for a damaged backup, before anything is changed. A part of KEPT is restored
    only if the stack does not have it, because its entries later than the backup would be lost.
    From the gateway's log, the pipeline fills the tables again.
    """
    contents = _check(stack, folder)
    with stack.stopped():
        for part in PARTS:
            if part not in contents["sha256"]:
                if stack.exists(part):
                    yield f"kept the existing {part}: the backup has none"
                continue
            if part in KEPT and stack.exists(part):
                yield f"kept the existing {part}, which may have later entries"
                continue
            try:
                with gzip.open(folder / f"{part}.gz") as content:
                    stack.write(part, Progress(content, part, "restored"))  # type: ignore[arg-type]
            except OSError as error:
                raise BackupError(f"{error.filename or part}: {error.strerror}") from None
            except KeyboardInterrupt:
                raise BackupError("interrupted; the restore is incomplete") from None
            yield f"restored {part}, as saved at {contents['saved_at']}"


def kind(folder: Path) -> str:
    """The format of the tables in this backup, mysql or sqlite. Raises BackupError."""
    return str(_contents(folder)["tables"])


def _contents(folder: Path) -> dict[str, Any]:
    try:
        contents = json.loads((folder / CONTENTS).read_text())
        return {
            "saved_at": contents["saved_at"],
            "tables": contents["tables"],
            "sha256": dict(contents["sha256"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        raise BackupError(f"{folder}: is not a backup: it has no readable {CONTENTS}") from None


def _check(stack: Stack, folder: Path) -> dict[str, Any]:
    contents = _contents(folder)
    if contents["tables"] != stack.kind:
        raise BackupError(
            f"{folder}: its tables are of {contents['tables']}, and this stack has {stack.kind}"
        )
    for part, digest in contents["sha256"].items():
        file = folder / f"{part}.gz"
        if part not in PARTS or not file.is_file() or _digest(file) != digest:
            raise BackupError(f"{file} is missing or damaged; nothing was restored")
    return contents


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
