"""Splits irregular lines: those with quotes, NUL bytes, or too few or too many fields."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass

from hospital.cell_errors import RejectedCell

LONGEST_RECORD = 100  # lines; a quote that stays open for longer is treated as a stray quote


@dataclass(frozen=True)
class Record:
    """A row, which may have several lines. line: the index of its first line."""

    line: int
    text: str
    cells: list[str]


class OddLines:
    """Sorts the lines of a block into `regular` (their indices), `records` (irregular lines, split
    into cells) and `rejected`. Blank lines are dropped.
    """

    def __init__(
        self,
        lines: list[str],
        separator: str,
        names: list[str],
        position: Mapping[str, int],
        columns: tuple[str, ...],
    ) -> None:
        self.regular: list[int] = []
        self.records: list[Record] = []
        self.rejected: list[tuple[int, str, str]] = []  # index, text, reason
        self._lines = lines
        self._separator = separator
        self._width = len(names)
        self._fewest = max(position.values()) + 1
        self._places = [position[column] for column in columns]
        at = 0
        while at < len(lines):
            at = self._sort(at)

    def _sort(self, at: int) -> int:
        """Sorts the record that starts at this index; returns the index of the next record."""
        row = self._lines[at]
        special = '"' in row or "\0" in row
        if row.count(self._separator) == self._width - 1 and not special:
            self.regular.append(at)
        elif row.strip():  # a blank line is not a row
            try:
                if "\0" in row:
                    raise RejectedCell("NUL byte")
                fields, end = self._fields(at)
                cells = self._pick(fields)
            except RejectedCell as error:
                self.rejected.append((at, row, str(error)))
            else:
                self.records.append(Record(at, "\n".join(self._lines[at:end]), cells))
                return end
        return at + 1

    def _fields(self, start: int) -> tuple[list[str], int]:
        """Returns the fields of the record at `start`, and the index of the line after it."""
        lines = self._lines
        if '"' not in lines[start]:
            return lines[start].split(self._separator), start + 1
        for end in range(start + 1, min(start + LONGEST_RECORD, len(lines)) + 1):
            if end > start + 1 and '"' not in lines[end - 1]:
                continue  # this line cannot close the quote
            record = "\n".join(lines[start:end])
            try:
                return next(csv.reader([record], delimiter=self._separator, strict=True)), end
            except csv.Error as error:
                if "unexpected end" not in str(error):
                    break
        raise RejectedCell("a quote that is not closed, or text after a closing quote")

    def _pick(self, fields: list[str]) -> list[str]:
        while len(fields) > self._width and not fields[-1].strip():
            fields.pop()
        if len(fields) > self._width:
            raise RejectedCell("more fields than the header has")
        if len(fields) < self._fewest:
            raise RejectedCell("fewer fields than the header has")
        cells = [fields[place] for place in self._places]
        if "\n" in "".join(cells):  # no valid cell has a line break, so this is a stray quote
            raise RejectedCell("a quote that is not closed, or text after a closing quote")
        return cells
