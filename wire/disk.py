"""Measures the disk of a file or folder."""

import shutil
from pathlib import Path
from typing import NamedTuple


class Disk(NamedTuple):
    """The size of a disk and its free space, in bytes."""

    total: int
    free: int


def disk_of(path: Path) -> Disk:
    """The disk on which `path` is, or will be once it is created."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    usage = shutil.disk_usage(path)
    return Disk(usage.total, usage.free)
