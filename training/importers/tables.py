"""Reads tables of a data set from .csv or .csv.gz files below a folder."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from training.importers.records import ImportFailure

Row = Mapping[str, str]

#: Spellings of a missing cell.
MISSING = frozenset(["", "null", "nan", "nat", "none", "na", "n/a", "\\n", "<na>", "(null)"])


def hidden(parts: tuple[str, ...]) -> bool:
    """Whether a path is hidden, or was added to an archive by macOS."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def find(source: Path, name: str) -> Path | None:
    """The first file of the table in order of path, or None; duplicates are ignored."""
    wanted = {f"{name}.csv".casefold(), f"{name}.csv.gz".casefold()}
    found = sorted(
        path
        for path in source.rglob("*")
        if path.name.casefold() in wanted
        and path.is_file()
        and not hidden(path.relative_to(source).parts)
    )
    return found[0] if found else None


def read(source: Path, name: str) -> Iterator[Row]:
    """Yields a table's rows. Column names become upper case, and spellings of NULL become empty
    texts. The text is UTF-8 with or without a byte order mark; bytes that are not UTF-8 are read as
    Latin-1. Raises ImportFailure if the file is missing or truncated, or if a line has more or
    fewer cells than the header.
    """
    path = find(source, name)
    if path is None:
        raise ImportFailure(f"{source}: no {name}.csv or {name}.csv.gz here")
    number = 1
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            rows = csv.reader(_lines(file))
            header = [column.strip().upper() for column in next(rows, [])]
            for row in rows:
                number = rows.line_num
                if len(row) != len(header):
                    raise ImportFailure(
                        f"{path} line {number}: {len(row)} columns, the header has {len(header)}"
                    )
                cells = ("" if cell.strip().casefold() in MISSING else cell for cell in row)
                yield dict(zip(header, cells, strict=True))
    except (EOFError, gzip.BadGzipFile, zlib.error, csv.Error) as error:
        raise ImportFailure(f"{path} after line {number}: not a complete file ({error})") from None


def _lines(file: io.BufferedIOBase | gzip.GzipFile) -> Iterator[str]:
    for number, line in enumerate(file):
        if not number:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError:
            yield line.decode("latin-1")


def whole(text: str) -> int:
    """Parses a whole number; pandas' spelling with a decimal point is accepted too. Raises
    ValueError.

    >>> whole("30001.0")
    30001
    """
    number = text.strip()
    if number.endswith(".0"):
        number = number[:-2]
    return int(number)


def time(text: str) -> datetime:
    """Parses a time to the minute, without its time zone. Seconds are dropped, so that two
    pressures of the same minute have the same time.

    >>> time("2164-10-23 21:09:30 UTC")
    datetime.datetime(2164, 10, 23, 21, 9)
    """
    stripped = text.strip().removesuffix("UTC").strip()
    return datetime.fromisoformat(stripped).replace(second=0, microsecond=0, tzinfo=None)
