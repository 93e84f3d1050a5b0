"""Reading many small files from a folder or from an archive as it was published."""

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from training.importers.records import ImportFailure

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


def members(source: Path, suffix: str) -> Iterator[tuple[PurePosixPath, str]]:
    """Yield each file ending in `suffix` below `source`: its path there and its text.

    `source` is a folder, an archive, or a folder of archives. Archives are
    read front to back and never unpacked to disk; folders in order of name.
    """
    if not source.exists():
        raise ImportFailure(f"{source}: no such file or folder")
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.name.endswith((*_TAR, ".zip")):
                yield from members(path, suffix)
            elif path.name.endswith(suffix):
                name = PurePosixPath(path.relative_to(source).as_posix())
                yield name, path.read_text(encoding="utf-8")
    elif source.name.endswith(".zip"):
        with zipfile.ZipFile(source) as archive:
            for entry in archive.namelist():
                if entry.endswith(suffix):
                    yield PurePosixPath(entry), archive.read(entry).decode("utf-8")
    elif source.name.endswith(_TAR):
        try:
            with tarfile.open(source, "r|*") as tar:
                for member in tar:
                    if not (member.isfile() and member.name.endswith(suffix)):
                        continue
                    if (file := tar.extractfile(member)) is not None:
                        yield PurePosixPath(member.name), file.read().decode("utf-8")
        except (tarfile.TarError, EOFError) as error:
            raise ImportFailure(f"{source}: not a whole archive ({error})") from error
    else:
        raise ImportFailure(f"{source}: neither a folder nor a .tar or .zip archive")
