"""Reads many small files from a published folder or archive."""

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from training.importers.records import ImportFailure
from training.importers.tables import hidden

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
#: A stay's file has a few kilobytes. A file larger than this limit is rejected before it fills the
#: memory.
LARGEST = 16_000_000


def members(source: Path, suffix: str) -> Iterator[tuple[PurePosixPath, str]]:
    """Yields path and text of each file below `source` that ends in `suffix`.

    `source` is a folder, an archive, or a folder of archives. Folders are read in order of name.
    Archives are read sequentially and never unpacked to disk. If two files have the same name and
    the same folder name, only the first is read. Hidden files and `__MACOSX` are skipped.
    Raises ImportFailure if `source` is missing or has another format, an archive is damaged, or a
    file is larger than LARGEST.
    """
    seen: set[tuple[str, str]] = set()
    for name, text in _all_members(source, suffix):
        key = (name.parent.name, name.name)
        if key not in seen:
            seen.add(key)
            yield name, text


def _all_members(source: Path, suffix: str) -> Iterator[tuple[PurePosixPath, str]]:
    if not source.exists():
        raise ImportFailure(f"{source}: no such file or folder")
    if source.is_dir():
        yield from _of_folder(source, suffix)
    elif source.name.endswith(".zip"):
        yield from _of_zip(source, suffix)
    elif source.name.endswith(_TAR):
        yield from _of_tar(source, suffix)
    else:
        raise ImportFailure(f"{source}: neither a folder nor a .tar or .zip archive")


def _of_folder(source: Path, suffix: str) -> Iterator[tuple[PurePosixPath, str]]:
    for path in sorted(source.rglob("*")):
        name = PurePosixPath(path.relative_to(source).as_posix())
        if hidden(name.parts) or not path.is_file():
            continue
        if path.name.endswith((*_TAR, ".zip")):
            yield from _all_members(path, suffix)
        elif path.name.endswith(suffix):
            with path.open("rb") as file:
                yield name, _text(file, path)


def _of_zip(source: Path, suffix: str) -> Iterator[tuple[PurePosixPath, str]]:
    try:
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                name = PurePosixPath(entry.filename)
                if entry.filename.endswith(suffix) and not hidden(name.parts):
                    with archive.open(entry) as file:
                        yield name, _text(file, f"{source}/{name}")
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ImportFailure(f"{source}: not a whole archive ({error})") from error


def _of_tar(source: Path, suffix: str) -> Iterator[tuple[PurePosixPath, str]]:
    try:
        with tarfile.open(source, "r|*") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if not member.isfile() or not member.name.endswith(suffix) or hidden(name.parts):
                    continue
                if (file := tar.extractfile(member)) is not None:
                    yield name, _text(file, f"{source}/{name}")
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise ImportFailure(f"{source}: not a whole archive ({error})") from error


def _text(file: IO[bytes], name: object) -> str:
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ImportFailure(f"{name}: larger than {LARGEST:,} bytes, so not of this data set")
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")
