"""From a block's texts to numbers; each distinct text is parsed once."""

from collections.abc import Mapping

import numpy as np

from hospital.cells import AnotherOrder, Parse, Refused
from hospital.csv_file import Array, Block, CsvFile, Refuse, another_order


def clean(
    file: CsvFile,
    block: Block,
    parsers: Mapping[str, Parse],
    refuse: Refuse,
    optional: Mapping[str, tuple[float, Refuse]] | None = None,
) -> dict[str, Array]:
    """The block's rows whose cells can all be parsed, as numbers, with `line` and `hash`.

    A row is refused once, for the first of `parsers` that cannot use it. A column of `optional`
    costs no row: a cell that cannot be parsed counts as the number given there, and is reported
    to the function beside it.
    Raises InputError at a date that shows another order than day first.
    """
    keep = np.ones(len(block.lines), bool)
    columns: dict[str, Array] = {"line": block.lines.astype(np.int32), "hash": block.hashes}
    for column, parse in parsers.items():
        fallback, report = (optional or {}).get(column, (0, refuse))
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
        if report is refuse:
            keep &= ~rows
    if keep.all():
        return columns
    return {name: values[keep] for name, values in columns.items()}


def _parsed(
    texts: list[str], parse: Parse, fallback: float
) -> tuple[list[float], dict[int, Refused]]:
    """The numbers that texts stand for, and which of them cannot be used."""
    numbers: list[float] = []
    bad: dict[int, Refused] = {}
    for code, text in enumerate(texts):
        try:
            numbers.append(parse(text))
        except Refused as error:
            numbers.append(fallback)
            bad[code] = error
    return numbers, bad
