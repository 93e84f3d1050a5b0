"""Reads outcome.csv, the outcome of each stay, by the same rules as the other CSVs."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hospital.cell_errors import AnotherOrder, RejectedCell
from hospital.cells import Dates, Numbers, missing, patient
from hospital.contents import InputError, examine
from hospital.csv_file import CsvFile, another_order
from training.config import Label
from training.database import KEY
from training.stream import DataError, Stream

log = logging.getLogger(__name__)

YES = frozenset(["1", "yes", "y", "true", "t", "ja", "oui", "dead", "died"])
NO = frozenset(["0", "no", "n", "false", "f", "nein", "non", "alive", "survived"])
NAMED = 3  # maximum number of examples in a message
#: A file is rejected if a smaller share of its rows matches, because it then belongs to other
#: stays.
FEWEST_MATCHES = 0.5


@dataclass(frozen=True)
class Outcomes:
    """The content of the file at `path`. table: its columns by (pat_id, date_admission); the label
    is 0 or 1. left_out: the number of unused rows, by reason. digest: SHA-256 of the file.
    """

    path: Path
    table: pd.DataFrame
    left_out: dict[str, int]
    digest: str


@dataclass
class _Rows:
    """The accepted rows by stay, and the number of unused ones with examples."""

    by_stay: dict[tuple[int, Any], tuple[Any, ...]] = field(default_factory=dict)
    contradicted: set[tuple[int, Any]] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, example: str) -> None:
        self.left_out[reason] += 1
        self.examples.setdefault(reason, []).append(example)

    def log(self, path: Path) -> None:
        for reason, count in self.left_out.items():
            some = ", ".join(self.examples[reason][:NAMED])
            log.warning("%s: %d x %s: %s", path, count, reason, some)

    def add(self, key: tuple[int, Any], row: tuple[Any, ...], line: str) -> None:
        if key in self.contradicted:
            self.leave_out("outcome that another row of the stay contradicts", line)
        elif key not in self.by_stay:
            self.by_stay[key] = row
        elif self.by_stay[key] == row:
            self.leave_out("repeated outcome", line)
        else:
            del self.by_stay[key]
            self.contradicted.add(key)
            for _ in range(2):
                self.leave_out("outcome that another row of the stay contradicts", line)


def check(folder: Path, label: Label) -> None:
    """Raises DataError if outcome.csv cannot be read or lacks a column of the label."""
    path = folder / "outcome.csv"
    try:
        CsvFile(path, examine(path), (*KEY, *(name.casefold() for name in _numeric(label))))
    except InputError as error:
        raise DataError(str(error)) from None


def _numeric(label: Label) -> dict[str, Callable[[str], float]]:
    """The parser of each column that the label needs."""
    parsers: dict[str, Callable[[str], float]] = {label.column: yes_or_no}
    if label.after_column is not None:
        parsers[label.after_column] = _number_or_missing
    return parsers


def read(folder: Path, label: Label, identifiers: Mapping[str, int] | None = None) -> Outcomes:
    """Reads outcome.csv with hospital's rules for dates, ids, numbers and missing cells. A label is
    0 or 1, or one of the words in NO and YES. identifiers: the pat_id of each identifier. Rejected
    rows are counted by reason, and logged with examples. Raises DataError if the file cannot be
    read, lacks a column, or has dates as mm/dd/YYYY without DATE_FORMAT.
    """
    path = folder / "outcome.csv"
    numeric = _numeric(label)
    try:
        contents = examine(path)
        file = CsvFile(path, contents, (*KEY, *(name.casefold() for name in numeric)))
        names = tuple(dict.fromkeys(name for name in file.names if name))
        file = CsvFile(path, contents, names)
        rows = _read_rows(file, names, numeric, identifiers or {})
    except InputError as error:
        raise DataError(str(error)) from None
    others = [name for name in names if name not in KEY]
    columns = [next((n for n in numeric if n.casefold() == name), name) for name in others]
    patients, days = zip(*rows.by_stay, strict=True) if rows.by_stay else ((), ())
    index = [np.array(patients, np.int64), pd.DatetimeIndex(days).as_unit("s")]
    stays = pd.MultiIndex.from_arrays(index, names=KEY)
    table = pd.DataFrame(list(rows.by_stay.values()), stays, columns)
    rows.log(path)
    return Outcomes(path, table, dict(rows.left_out), contents.sha256)


def match(outcomes: Outcomes, stream: Stream) -> Outcomes:
    """Returns the outcomes of the stream's stays; counts the outcomes without a stay and the stays
    without an outcome. Raises DataError if fewer than half of the outcomes belong to a stay of the
    stream: in this case, the ids or dates of the file differ from those of the stream.
    """
    days = stream.readings["date_admission"].dt.normalize()
    stays = pd.MultiIndex.from_arrays([stream.readings["pat_id"], days]).unique()
    table, rows = outcomes.table, _Rows()
    known = table.index.isin(stays)
    for reason, some in (
        ("outcome of a stay without readings", table.index[~known]),
        ("stay without an outcome", stays[~stays.isin(table.index)]),
    ):
        for pat_id, day in some:
            rows.leave_out(reason, f"pat_id {pat_id} of {day:%Y-%m-%d}")
    if known.sum() < FEWEST_MATCHES * len(table) or not known.any():
        some = rows.examples.get("outcome of a stay without readings", [])[:NAMED]
        raise DataError(
            f"{outcomes.path}: {known.sum():,} of {len(table):,} outcomes belong to a stay with "
            f"readings; none for {', '.join(some) or 'any stay'}"
        )
    rows.log(outcomes.path)
    left_out = outcomes.left_out | rows.left_out
    return Outcomes(outcomes.path, table[known], left_out, outcomes.digest)


def yes_or_no(text: str) -> float:
    """1 for yes, 0 for no, NaN for a missing cell; raises RejectedCell for another text.

    >>> yes_or_no("Yes"), yes_or_no("0.0"), yes_or_no("NULL")
    (1.0, 0.0, nan)
    """
    word = text.strip().casefold()
    if missing(word):
        return np.nan
    if word in YES or word in NO:
        return float(word in YES)
    number = Numbers().parse(word)
    if number not in (0, 1):
        raise RejectedCell("not yes, no, 1 or 0")
    return number


def _number_or_missing(text: str) -> float:
    return np.nan if missing(text) else Numbers().parse(text)


def _read_rows(
    file: CsvFile,
    names: tuple[str, ...],
    numeric: dict[str, Any],
    identifiers: Mapping[str, int],
) -> _Rows:
    rows = _Rows()

    def reject(line: int, column: str, value: str, reason: str) -> None:
        rows.leave_out(f"outcome with {column or 'line'}: {reason}", f"line {line} ({value})")

    numbered = frozenset(identifiers.values())

    def pat_id(text: str) -> int:
        known = identifiers.get(text.strip())
        number = patient(text) if known is None else known
        if known is None and number in numbered:
            raise RejectedCell("this number belongs to a patient with another identifier")
        return number

    dates = Dates(os.environ.get("DATE_FORMAT"))
    parsers: dict[str, Any] = {"pat_id": pat_id, "date_admission": dates.parse}
    parsers |= {name.casefold(): parse for name, parse in numeric.items()}
    label = next(iter(numeric)).casefold()
    for block in file.blocks(names, reject):
        for number, cells in zip(
            block.lines.tolist(), zip(*(block.cells[n] for n in names), strict=True), strict=True
        ):
            values = dict(zip(names, cells, strict=True))
            column = ""
            try:
                for column, parse in parsers.items():
                    values[column] = parse(values[column])
            except AnotherOrder:
                raise another_order(file, number, column, values[column]) from None
            except RejectedCell as error:
                reject(number, column, values[column], str(error))
                continue
            if np.isnan(values[label]):
                rows.leave_out("stay without a known outcome", f"line {number}")
                continue
            day = pd.Timestamp.fromordinal(values.pop("date_admission"))
            key = (values.pop("pat_id"), day)
            # None for NaN, because NaN != NaN and repeated rows would seem to differ.
            row = tuple(None if value != value else value for value in values.values())
            rows.add(key, row, f"line {number}")
    return rows
