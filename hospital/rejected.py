"""The rows that hospital does not send, each with its reason."""

import csv
from collections import Counter
from typing import TextIO

SHOWN = 200  # characters of a value


class Rejected:
    """Writes rejected.csv while the files are read, and counts by file and reason."""

    def __init__(self, stream: TextIO) -> None:
        self._csv = csv.writer(stream, delimiter=";", lineterminator="\n")
        self._csv.writerow(["file", "line", "column", "value", "reason"])
        self.counts: Counter[tuple[str, str]] = Counter()
        self.first_line: dict[tuple[str, str], int] = {}

    def add(self, file: str, line: int, column: str, value: str, reason: str) -> None:
        if len(value) > SHOWN:
            value = value[:SHOWN] + "…"
        self._csv.writerow([file, line, column, value.replace("\0", "\\0"), reason])
        self.counts[file, reason] += 1
        self.first_line.setdefault((file, reason), line)

    def of(self, file: str) -> int:
        """How many rows of one file were refused."""
        return sum(count for (name, _), count in self.counts.items() if name == file)
