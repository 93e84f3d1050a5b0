"""Writes the rejected rows, each with the reason."""

import csv
import re
from collections import Counter
from typing import TextIO

from hospital.cells import NUMBER

SHOWN = 200  # maximum number of characters of a value
# Excel runs a cell that starts like this as a formula. It may also split the line at another
# separator, so the beginning of each part counts.
FORMULA = re.compile(r"(^|[,;|\t\n\r])(\s*)(?=[=+\-@＝＋－＠\t\r])")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Rejected:
    """Writes rejected.csv while the files are read, and counts its rows by file and reason.

    counts: the number of rows of rejected.csv. dropped: the number of those for which only a cell
    is dropped. first_line: the line of the first row, by file, reason and row_is_used.
    """

    def __init__(self, stream: TextIO) -> None:
        self._csv = csv.writer(stream, delimiter=";", lineterminator="\n")
        self._csv.writerow(["file", "line", "column", "value", "reason"])
        self.counts: Counter[tuple[str, str]] = Counter()
        self.dropped: Counter[tuple[str, str]] = Counter()
        self.first_line: dict[tuple[str, str, bool], int] = {}

    def add(
        self,
        file: str,
        line: int,
        column: str,
        value: str,
        reason: str,
        row_is_used: bool = False,
    ) -> None:
        """Writes one row. row_is_used: whether only the cell is dropped, not the row."""
        if len(value) > SHOWN:
            value = value[:SHOWN] + "…"
        self._csv.writerow([file, line, harmless(column), harmless(value), reason])
        self.counts[file, reason] += 1
        self.dropped[file, reason] += row_is_used
        self.first_line.setdefault((file, reason, row_is_used), line)

    def of(self, file: str) -> int:
        """The number of rejected rows of one file; a dropped cell is not a rejected row."""
        written = self.counts - self.dropped
        return sum(count for (name, _), count in written.items() if name == file)


def harmless(text: str) -> str:
    """A text without spreadsheet formulas and terminal control codes.

    >>> harmless("=1+1"), harmless("-1.5"), harmless("x,@SUM(A1)"), harmless("\\x1b[2J")
    ("'=1+1", '-1.5', "x,'@SUM(A1)", '\\\\x1b[2J')
    """
    text = CONTROL.sub(lambda found: "\\0" if found[0] == "\0" else f"\\x{ord(found[0]):02x}", text)
    if NUMBER.fullmatch(text) or text in ("-", "--"):
        return text
    return FORMULA.sub(r"\1\2'", text)
