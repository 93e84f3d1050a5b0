"""One CSV as hospitals export it: told its encoding and separator, read by columns' names.

Rows come in blocks of a few megabytes, as pandas categoricals: a cell's text is kept once a block,
so cleaning costs by distinct texts and not by rows. Lines that are not of the header's shape
(quotes, too few or many fields, NUL bytes) take a slower way, one by one.
"""

import codecs
import csv
import hashlib
import io
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from hospital.cells import AnotherOrder, Parse, Refused

log = logging.getLogger(__name__)

BLOCK = 8_000_000  # characters read at a time
LONGEST_RECORD = 100  # lines; a quote open for longer was never meant to be closed
SEPARATORS = ";,\t"
WHOLE_CELL = re.compile(r'"$|\d{4}-\d\d-\d\d$|\d[-/.]\d{4}$')  # can't be the start of a longer one

Array = npt.NDArray[Any]
Refuse = Callable[[int, str, str, str], None]  # line, column, value, reason


class InputError(Exception):
    """A file can't be used at all; the message is one line that names it."""


@dataclass(frozen=True)
class Contents:
    """What one pass over a file's bytes tells."""

    size: int
    sha256: str
    encoding: str
    lines: int  # at most
    has_comma: bool
    has_quote: bool


def examine(path: Path) -> Contents:
    """Fingerprint and encoding of a file: UTF-8 or UTF-16, with or without BOM, else Latin-1.

    Raises InputError when it cannot be read or is empty.
    """
    digest = hashlib.sha256()
    utf8 = codecs.getincrementaldecoder("utf-8")()
    encoding, size, lines, has_comma, has_quote = "", 0, 1, False, False
    progress = Progress(f"{path.name}: checking")
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            while block := file.read(BLOCK):
                encoding = encoding or _by_first_bytes(block)
                digest.update(block)
                size += len(block)
                lines += max(block.count(b"\n"), block.count(b"\r"))
                has_comma = has_comma or b"," in block
                has_quote = has_quote or b'"' in block
                if encoding == "utf-8":
                    try:
                        utf8.decode(block)
                    except UnicodeDecodeError:
                        encoding = "latin-1"
                progress.at(size, total)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if not size:
        raise InputError(f"{path} is empty: it has no header")
    return Contents(size, digest.hexdigest(), encoding, lines, has_comma, has_quote)


def _by_first_bytes(block: bytes) -> str:
    if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if block.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    head = block[:64]  # the header: ASCII in all files, so UTF-16 has a NUL beside each character
    if head[1::2].count(0) > len(head) / 4:
        return "utf-16-le"
    if head[0::2].count(0) > len(head) / 4:
        return "utf-16-be"
    return "utf-8"


class Progress:
    """A log line every two seconds, so that nothing is silent for longer."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = time.monotonic() + 2

    def at(self, done: float, total: float) -> None:
        if time.monotonic() >= self._next:
            log.info("%s: %d %%", self._what, 100 * done / max(total, 1))
            self._next = time.monotonic() + 2


@dataclass(frozen=True)
class Block:
    """Rows of a file: line numbers, hashes of the whole lines, and the cells asked for."""

    lines: Array
    hashes: Array
    cells: dict[str, Any]  # pandas Categoricals of texts


class CsvFile:
    """A CSV whose header names `columns` (in any order, case or company).

    Raises InputError when it cannot be read or lacks a column.
    """

    def __init__(self, path: Path, contents: Contents, columns: tuple[str, ...]) -> None:
        self.path = path
        self.name = path.name
        self.contents = contents
        self.columns = columns
        self.rows = 0  # read so far, refused ones included
        with self._open() as file:
            self._header_line, header = self._first_line(file)
        self.separator, names = self._names(header)
        lacking = [column for column in columns if column not in names]
        if lacking:
            found = ", ".join(repr(name[:40]) for name in names[:30])
            raise InputError(f"{path} has no column {', '.join(lacking)}; its columns are {found}")
        for column in columns:
            if names.count(column) > 1:
                raise InputError(f"{path} has {names.count(column)} columns named {column}")
        self.names = names
        self._position = {column: names.index(column) for column in columns}
        self._separators = len(names) - 1
        self._shape = (self.separator * self._separators + "\n").encode()
        self._not_shape = bytes(set(range(256)) - set(self._shape))

    def _open(self) -> TextIO:
        # Universal newlines; bytes that are no text become U+FFFD, which no parser takes.
        try:
            return self.path.open(encoding=self.contents.encoding, errors="replace", newline=None)
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror}") from error

    def _first_line(self, file: TextIO) -> tuple[int, str]:
        for number, line in enumerate(file, start=1):
            if line.strip():
                return number, line.rstrip("\n")
        raise InputError(f"{self.path} is empty: it has no header")

    def _names(self, header: str) -> tuple[str, list[str]]:
        """The separator that shows most of the columns, and the columns' names."""
        readings = []
        for separator in SEPARATORS:
            fields = next(csv.reader([header[:10_000]], delimiter=separator), [])
            readings.append(
                (separator, [field.strip().strip('"\0\ufeff ').casefold() for field in fields])
            )
        return max(
            readings, key=lambda one: (len(set(self.columns).intersection(one[1])), len(one[1]))
        )

    def blocks(self, columns: tuple[str, ...], refuse: Refuse) -> Iterator[Block]:
        """All usable rows, in order within each block; the others are told to `refuse`."""
        progress = Progress(f"{self.name}: reading")
        with self._open() as file:
            for _ in range(self._header_line):
                file.readline()
            line = self._header_line + 1
            while text := file.read(BLOCK):
                text += file.readline()
                if '"' in text:
                    text += self._rest_of_record(text, file)
                if not text.endswith("\n"):
                    text = self._last_line(text, line, refuse)
                count = text.count("\n")
                frame = self._quick(text, count, columns)
                if frame is None:
                    yield from self._odd_block(text, line, columns, refuse)
                else:
                    yield self._block(frame, text, np.arange(line, line + count))
                line += count
                progress.at(file.buffer.tell(), self.contents.size)

    def _rest_of_record(self, text: str, file: TextIO) -> str:
        """The further lines of a record whose quoted line break is where the block ends."""
        rest, quotes = "", text.count('"')
        for _ in range(LONGEST_RECORD):
            if quotes % 2 == 0:
                break
            more = file.readline()
            rest, quotes = rest + more, quotes + more.count('"')
        return rest

    def _last_line(self, text: str, line: int, refuse: Refuse) -> str:
        """Leave out a last line that may have been cut within a cell (110.0 would become 11)."""
        start = text.rfind("\n") + 1
        row = text[start:]
        cells = row[-10_000:].split(self.separator)
        place = row.count(self.separator)
        column = self.names[place] if place < len(self.names) else ""
        if column not in self.columns or WHOLE_CELL.search(cells[-1]):
            return text + "\n"
        self.rows += 1
        reason = "last line without a line end: may be cut off"
        refuse(line + text.count("\n"), column, cells[-1], reason)
        return text[:start]

    def _quick(self, text: str, count: int, columns: tuple[str, ...]) -> pd.DataFrame | None:
        """The cells of a block, or None unless each of its lines is a row of the header's shape."""
        if not self._regular(text, count):
            return None
        try:
            frame = self._frame(text, columns)
        except pd.errors.ParserError:  # a quote left open
            return None
        return frame if len(frame) == count else None

    def _regular(self, text: str, count: int) -> bool:
        """Whether every line has exactly the header's separators, and quotes around cells only."""
        if "\0" in text:
            return False
        if '"' in text:
            if not self._plainly_quoted(text):
                return False
            text = text.replace('"', "")
        return text.encode().translate(None, self._not_shape) == self._shape * count

    def _plainly_quoted(self, text: str) -> bool:
        """Whether each quote is first or last in a cell."""
        opening = text.count(self.separator + '"') + text.count('\n"') + text.startswith('"')
        closing = text.count('"' + self.separator) + text.count('"\n')
        return opening + closing == text.count('"')

    def _frame(self, text: str, columns: tuple[str, ...]) -> pd.DataFrame:
        """The cells of regular lines as categories of texts."""
        # read_csv would turn a column's texts to numbers (007 to 7) if all looked like it: one row
        # of words, taken off again, prevents that.
        words = self.separator.join(["-"] * len(self.names)) + "\n"
        frame = pd.read_csv(
            io.BytesIO((text + words).encode()),
            sep=self.separator,
            header=None,
            names=range(len(self.names)),
            index_col=False,
            usecols=[self._position[column] for column in columns],
            dtype="category",
            na_filter=False,
            quoting=csv.QUOTE_MINIMAL if '"' in text else csv.QUOTE_NONE,
            skip_blank_lines=False,
            low_memory=False,
            encoding="utf-8",
        )
        return frame[:-1].rename(columns={self._position[column]: column for column in columns})

    def _block(self, frame: pd.DataFrame, text: str, lines: Array) -> Block:
        self.rows += len(lines)
        hashes = np.fromiter(map(hash, text.split("\n")), np.int64, len(lines))
        return Block(lines, hashes, {str(column): frame[column].array for column in frame})

    def _odd_block(
        self, text: str, first: int, columns: tuple[str, ...], refuse: Refuse
    ) -> Iterator[Block]:
        """Two blocks: the regular lines together, the others split one by one."""
        lines = text[:-1].split("\n")
        regular: list[int] = []
        odd: list[int] = []
        odd_cells: list[list[str]] = []
        odd_hashes: list[int] = []
        at = 0
        while at < len(lines):
            row, number = lines[at], at
            at += 1
            if row.count(self.separator) == self._separators and not ('"' in row or "\0" in row):
                regular.append(number)
                continue
            if not row.strip():
                continue  # a blank line is no row
            try:
                if "\0" in row:
                    raise Refused("NUL byte")
                fields, end = self._fields(lines, number)
                odd_cells.append(self._pick(fields, columns))
            except Refused as error:
                self.rows += 1
                refuse(first + number, self._column_of_nul(row), row, str(error))
            else:
                odd.append(number)
                odd_hashes.append(hash("\n".join(lines[number:end])))
                at = end
        rows = "\n".join([lines[number] for number in regular] + [""])
        yield self._block(self._frame(rows, columns), rows, first + np.array(regular, np.int64))
        self.rows += len(odd)
        yield Block(
            first + np.array(odd, np.int64),
            np.array(odd_hashes, np.int64),
            {
                column: pd.Categorical([cells[place] for cells in odd_cells])
                for place, column in enumerate(columns)
            },
        )

    def _fields(self, lines: list[str], start: int) -> tuple[list[str], int]:
        """The fields of the record that starts at `start`, and the index of the next line."""
        if '"' not in lines[start]:
            return lines[start].split(self.separator), start + 1
        for end in range(start + 1, min(start + LONGEST_RECORD, len(lines)) + 1):
            if end > start + 1 and '"' not in lines[end - 1]:
                continue  # can't be the line where the quote is closed
            record = "\n".join(lines[start:end])
            try:
                return next(csv.reader([record], delimiter=self.separator, strict=True)), end
            except csv.Error as error:
                if "unexpected end" not in str(error):
                    break
        raise Refused("a quote that is not closed, or text behind one")

    def _pick(self, fields: list[str], columns: tuple[str, ...]) -> list[str]:
        while len(fields) > len(self.names) and not fields[-1].strip():
            fields.pop()
        if len(fields) > len(self.names):
            raise Refused("more fields than the header has")
        if len(fields) <= max(self._position.values()):
            raise Refused("fewer fields than the header has")
        cells = [fields[self._position[column]] for column in columns]
        if "\n" in "".join(cells):  # none of ours has any: so the quote was not meant
            raise Refused("a quote that is not closed, or text behind one")
        return cells

    def _column_of_nul(self, row: str) -> str:
        before, nul, _ = row.partition("\0")
        place = before.count(self.separator)
        return self.names[place] if nul and place < len(self.names) else ""


def clean(
    file: CsvFile, block: Block, parsers: Mapping[str, Parse], refuse: Refuse
) -> dict[str, Array]:
    """The block's rows whose cells can all be parsed, as numbers, with `line` and `hash`.

    A row is refused once, for the first of `parsers` that cannot use it.
    Raises InputError at a date that shows another order than day first.
    """
    keep = np.ones(len(block.lines), bool)
    columns: dict[str, Array] = {"line": block.lines.astype(np.int32), "hash": block.hashes}
    for column, parse in parsers.items():
        texts: list[str] = block.cells[column].categories.tolist()
        codes = np.asarray(block.cells[column].codes)
        numbers: list[float] = []
        refused: dict[int, Refused] = {}
        for code, text in enumerate(texts):
            try:
                numbers.append(parse(text))
            except Refused as error:
                numbers.append(0)
                refused[code] = error
        columns[column] = np.array(numbers or [0])[codes]
        if refused:
            bad = keep & np.isin(codes, list(refused))
            for row in np.flatnonzero(bad).tolist():
                line, why = int(block.lines[row]), refused[codes[row]]
                if isinstance(why, AnotherOrder):
                    raise another_order(file, line, column, texts[codes[row]])
                refuse(line, column, texts[codes[row]], str(why))
            keep &= ~bad
    if keep.all():
        return columns
    return {name: values[keep] for name, values in columns.items()}


def another_order(file: CsvFile, line: int, column: str, value: str) -> InputError:
    return InputError(
        f"{file.path} line {line}: {column} {value!r} is no date as dd/mm/YYYY, but is one as "
        "mm/dd/YYYY; set DATE_FORMAT to the one that the files use (rows that do not fit it are "
        "then refused one by one)"
    )
