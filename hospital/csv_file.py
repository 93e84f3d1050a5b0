"""Reads one CSV as hospitals export it: in any usual encoding, with any usual separator.

The rows are returned in blocks of a few megabytes, as pandas categoricals. A block holds each
distinct text once, so `cleaning` parses each of them only once. `odd_lines` splits irregular lines
(with quotes, NUL bytes, or too few or too many fields) one by one.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from hospital.contents import FALLBACK, Contents, InputError, Progress
from hospital.odd_lines import LONGEST_RECORD, OddLines

BLOCK = 8_000_000  # characters read at a time
SEPARATORS = ";,\t|"
SEPARATOR_LINE = re.compile(r'"?sep=([^\w"\s]|\t)"?', re.ASCII | re.IGNORECASE)  # Excel's
# Matches a text that is certainly a whole cell, not the beginning of a longer one.
WHOLE_CELL = re.compile(r'"$|\d{4}-\d\d-\d\d$|\d[-/.]\d{4}$')

Array = npt.NDArray[Any]
Reject = Callable[[int, str, str, str], None]  # called with line, column, value and reason


@dataclass(frozen=True)
class Block:
    """Rows of a file: their line numbers, the hashes of the whole lines, and the wanted cells."""

    lines: Array
    hashes: Array
    cells: dict[str, Any]  # pandas Categoricals of texts


class CsvFile:
    """A CSV with the required `columns`, in any order and in upper or lower case.

    Raises InputError if the file cannot be read, has no header, lacks one of `columns`, or has two
    columns of the same required or optional name.
    """

    def __init__(
        self,
        path: Path,
        contents: Contents,
        columns: tuple[str, ...],
        optional: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.name = path.name
        self.contents = contents
        self.rows = 0  # rows read so far, including rejected ones
        with self._open() as file:
            self._header_line, header, separator = self._header(file)
        self.separator, names = self._names(header, separator, columns + optional)
        lacking = [column for column in columns if column not in names]
        if lacking:
            found = ", ".join(repr(name[:40]) for name in names[:30])
            raise InputError(f"{path} has no column {', '.join(lacking)}; its columns are {found}")
        self.columns = columns + tuple(column for column in optional if column in names)
        for column in self.columns:
            if names.count(column) > 1:
                raise InputError(f"{path} has {names.count(column)} columns named {column}")
        self.names = names
        self._position = {column: names.index(column) for column in self.columns}
        self._separators = len(names) - 1
        self._shape = (self.separator * self._separators + "\n").encode()
        self._not_shape = bytes(set(range(256)) - set(self._shape))

    def _open(self) -> TextIO:
        # Opened with universal newlines. Bytes that cannot be decoded become U+FFFD, which all
        # parsers reject.
        errors = FALLBACK if self.contents.encoding.startswith("utf-8") else "replace"
        try:
            return self.path.open(encoding=self.contents.encoding, errors=errors, newline=None)
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror}") from error

    def _header(self, file: TextIO) -> tuple[int, str, str]:
        """Returns the number and the text of the header line, and the separator if a line before
        it declares one.
        """
        separator = ""
        for number, line in enumerate(file, start=1):
            named = SEPARATOR_LINE.fullmatch(line.strip("\ufeff \r\n"))
            if named and not separator:
                separator = named[1]
            elif line.strip():
                return number, line.rstrip("\n"), separator
        raise InputError(f"{self.path} is empty: it has no header")

    def _names(self, header: str, separator: str, wanted: tuple[str, ...]) -> tuple[str, list[str]]:
        """Returns the separator that finds most of the wanted columns, and all column names."""
        readings = []
        for candidate in separator or SEPARATORS:
            fields = next(csv.reader([header[:10_000]], delimiter=candidate), [])
            readings.append(
                (candidate, [field.strip().strip('"\0\ufeff ').casefold() for field in fields])
            )
        return max(readings, key=lambda one: (len(set(wanted).intersection(one[1])), len(one[1])))

    def blocks(self, columns: tuple[str, ...], reject: Reject) -> Iterator[Block]:
        """Yields blocks of rows, in order within each block; calls `reject` for lines that cannot
        be split into cells, and for a last line that may be cut off."""
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
                    text = self._last_line(text, line, reject)
                count = text.count("\n")
                frame = self._quick(text, count, columns)
                if frame is None:
                    yield from self._odd_block(text, line, columns, reject)
                else:
                    yield self._block(frame, text, np.arange(line, line + count))
                line += count
                progress.at(file.buffer.tell(), self.contents.size)

    def _rest_of_record(self, text: str, file: TextIO) -> str:
        """Reads the rest of a record if a quoted line break ends the block."""
        rest, quotes = "", text.count('"')
        for _ in range(LONGEST_RECORD):
            if quotes % 2 == 0:
                break
            more = file.readline()
            rest, quotes = rest + more, quotes + more.count('"')
        return rest

    def _last_line(self, text: str, line: int, reject: Reject) -> str:
        """Rejects a last line that may be cut off within a cell (110.0 could become 11)."""
        start = text.rfind("\n") + 1
        row = text[start:]
        cells = row[-10_000:].split(self.separator)
        place = row.count(self.separator)
        column = self.names[place] if place < len(self.names) else ""
        if column not in self.columns or WHOLE_CELL.search(cells[-1]):
            return text + "\n"
        self.rows += 1
        reason = "the last line has no line end: it may be cut off"
        reject(line + text.count("\n"), column, cells[-1], reason)
        return text[:start]

    def _quick(self, text: str, count: int, columns: tuple[str, ...]) -> pd.DataFrame | None:
        """Returns the cells of a block, or None if one of its lines is irregular."""
        if not self._regular(text, count):
            return None
        try:
            frame = self._frame(text, columns)
        except pd.errors.ParserError:  # an unclosed quote
            return None
        return frame if len(frame) == count else None

    def _regular(self, text: str, count: int) -> bool:
        """Whether all lines have as many separators as the header, and quotes only around cells."""
        if "\0" in text:
            return False
        if '"' in text:
            if not self._plainly_quoted(text):
                return False
            text = text.replace('"', "")
        return text.encode().translate(None, self._not_shape) == self._shape * count

    def _plainly_quoted(self, text: str) -> bool:
        """Whether each quote begins or ends a cell."""
        opening = text.count(self.separator + '"') + text.count('\n"') + text.startswith('"')
        closing = text.count('"' + self.separator) + text.count('"\n')
        return opening + closing == text.count('"')

    def _frame(self, text: str, columns: tuple[str, ...]) -> pd.DataFrame:
        """Returns the cells of regular lines as categories of texts."""
        # read_csv converts a column to numbers (007 to 7) if all its texts are numeric. An extra
        # row of dashes, which is removed again, prevents that.
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
        self, text: str, first: int, columns: tuple[str, ...], reject: Reject
    ) -> Iterator[Block]:
        """Yields two blocks: the regular lines, and the other lines split one by one."""
        lines = text[:-1].split("\n")
        odd = OddLines(lines, self.separator, self.names, self._position, columns)
        for number, row, reason in odd.rejected:
            self.rows += 1
            reject(first + number, self._column_of_nul(row), row, reason)
        rows = "\n".join([lines[number] for number in odd.regular] + [""])
        numbers = first + np.array(odd.regular, np.int64)
        yield self._block(self._frame(rows, columns), rows, numbers)
        self.rows += len(odd.records)
        yield Block(
            first + np.array([record.line for record in odd.records], np.int64),
            np.array([hash(record.text) for record in odd.records], np.int64),
            {
                column: pd.Categorical([record.cells[place] for record in odd.records])
                for place, column in enumerate(columns)
            },
        )

    def _column_of_nul(self, row: str) -> str:
        before, nul, _ = row.partition("\0")
        place = before.count(self.separator)
        return self.names[place] if nul and place < len(self.names) else ""


def another_order(file: CsvFile, line: int, column: str, value: str) -> InputError:
    return InputError(
        f"{file.path} line {line}: {column} {value!r} is a date as mm/dd/YYYY, not as "
        "dd/mm/YYYY; set DATE_FORMAT to the format of the files (rows that do not fit are "
        "then rejected one by one)"
    )
