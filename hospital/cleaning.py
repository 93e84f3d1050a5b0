"""Converts a block's texts to numbers; parses each distinct text once."""

from collections.abc import Mapping

import numpy as np

from hospital.cell_errors import AnotherOrder, RejectedCell
from hospital.cells import Parse
from hospital.csv_file import Array, Block, CsvFile, Reject, another_order


def clean(
    file: CsvFile,
    block: Block,
    parsers: Mapping[str, Parse],
    reject: Reject,
    optional: Mapping[str, tuple[float, Reject]] | None = None,
) -> dict[str, Array]:
    """Returns the rows in which all cells can be parsed: one array per column, and the arrays
    `line` and `hash`.

    A row is rejected once, for the first of `parsers` that fails. A column in `optional` does not
    reject the row. A cell of it that cannot be parsed is replaced by the column's number in
    `optional`, and reported to the column's function there. Raises InputError for a date that shows
    that the file has the month first.
    """
    keep = np.ones(len(block.lines), bool)
    columns: dict[str, Array] = {"line": block.lines.astype(np.int32), "hash": block.hashes}
    for column, parse in parsers.items():
        fallback, report = (optional or {}).get(column, (0, reject))
        texts: list[str] = block.cells[column].categories.tolist()
        codes = np.asarray(block.cells[column].codes)
        numbers, bad = _parsed(texts, parse, fallback)
        columns[column] = np.array(numbers or [fallback])[codes]
        if not bad:
            continue
        rows = keep & np.isin(codes, list(bad))
        for row in np.flatnonzero(rows).tolist():
            line, code = int(block.lines[row]), codes[row]
            if isinstance(bad[code], AnotherOrder):
                raise another_order(file, line, column, texts[code])
            report(line, column, texts[code], str(bad[code]))
        if report is reject:
            keep &= ~rows
    if keep.all():
        return columns
    return {name: values[keep] for name, values in columns.items()}


def _parsed(
    texts: list[str], parse: Parse, fallback: float
) -> tuple[list[float], dict[int, RejectedCell]]:
    """The number that each text stands for, `fallback` if it is rejected, and the errors by
    index."""
    numbers: list[float] = []
    bad: dict[int, RejectedCell] = {}
    for code, text in enumerate(texts):
        try:
            numbers.append(parse(text))
        except RejectedCell as error:
            numbers.append(fallback)
            bad[code] = error
    return numbers, bad
