"""Fuzzes the cells of signal.csv. Each case runs the whole merge of hospital."""

import csv
import io
import json
import random
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hospital.merge import prepare
from tests.support.fuzz.damage import damaged

COLUMNS = ("pat_id", "day", "hour", "parameter", "value", "note")
# Cells as hospitals export them, cells as spreadsheets change them, and wrong cells.
CELLS: tuple[tuple[str, ...], ...] = (
    ("1", "2", "2.0", "01", "3", "", "x", "1.5", "1e0", "-1", "9" * 19, "NULL"),
    ("2019-02-12", "2019-02-12 07:00", "12.02.2019", "13/02/2019", "2019-02-31", "", "0000-00-00"),
    ("5", "07:25", "7.0", "24", "25", "23:59:59", "-1", "NaN", "", "1899-12-31 07:00:00"),
    ("heart_rate", " spo2 ", "temp\u00e9rature", "Na", "risk", "", "a;b", "=1+1", "x" * 65, "nan"),
    ("80", "97,5", "1e2", "-", ">200", "ERR", "inf", "1.234,5", "0x10", "", "1 000", "\u00bd"),
    ("", "a note", "on two\nlines", 'with "quotes"', "\u2028"),
)
GOOD = ("1", "2019-02-12", "5", "heart_rate")
GOOD_EVERY = 20
# Numbers and dashes are not formulas.
HARMLESS = re.compile(r"[+-]?[\d.,]+([eE][+-]?\d+)?|--?", re.ASCII)
BATCH = 1_000


def cells(rng: random.Random, inputs: int) -> Counter[str]:
    """Checks that each row is sent, rejected with a reason or counted as a duplicate, and that all
    valid rows are sent.
    """
    counts: Counter[str] = Counter()
    while counts["rows"] < inputs:
        rows = min(BATCH, inputs - counts["rows"])
        with tempfile.TemporaryDirectory() as name:
            counts.update(_merged(rng, rows, Path(name)))
    return counts


def _merged(rng: random.Random, rows: int, folder: Path) -> Counter[str]:
    (folder / "age.csv").write_text("pat_id;age\n1;50\n2;60.5\n")
    (folder / "admission.csv").write_text(
        "pat_id;date_admission;date_discharge\n1;2019-02-10;\n2;2019-02-10;2019-02-15\n"
    )
    text = io.StringIO()
    form: list[Any] = [csv.QUOTE_MINIMAL, csv.QUOTE_ALL]
    writer = csv.writer(
        text, delimiter=rng.choice(";,\t"), lineterminator="\n", quoting=rng.choice(form)
    )
    writer.writerow(COLUMNS)
    good = [f"{number}.25" for number in range(0, rows, GOOD_EVERY)]
    for number in range(rows):
        if number % GOOD_EVERY == 0:
            writer.writerow((*GOOD, f"{number}.25", _cell(rng, 5)))
        else:
            writer.writerow([_cell(rng, column) for column in range(len(COLUMNS))])
    (folder / "signal.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    prepare(folder, folder, None)
    index = json.loads((folder / "all_data.json").read_text())
    header, *sent = (folder / "all_data.csv").read_text(encoding="utf-8").split("\n")[:-1]
    value = header.split(";").index("value")
    readings = [line.split(";") for line in sent if line.startswith("reading;")]
    with (folder / "rejected.csv").open(newline="", encoding="utf-8") as file:
        rejected = list(csv.reader(file, delimiter=";"))[1:]
    duplicates = index["duplicates"]["signal.csv"]
    assert index["readings"] == len(readings)
    counted = (len(readings), len(rejected), duplicates, rows)
    assert sum(counted[:3]) == rows, counted
    assert all(row[0] == "signal.csv" and row[4] for row in rejected)
    values = {fields[value] for fields in readings if fields[1] == "1"}
    assert values.issuperset(good), set(good) - values
    formulas = [cell for row in rejected for cell in row if cell and cell[0] in "=+-@\x1b"]
    assert all(HARMLESS.fullmatch(cell) for cell in formulas), formulas
    return Counter(rows=rows, sent=len(readings), rejected=len(rejected), duplicates=duplicates)


def _cell(rng: random.Random, column: int) -> str:
    text = rng.choice(CELLS[column][:2] if rng.random() < 0.9 else CELLS[column])
    if rng.random() < 0.2:
        text = damaged(rng, text.encode(), 1).decode("utf-8", "replace")
    # NUL, carriage returns, and line breaks outside the column `note` are excluded, because they
    # reject all lines of a record. Other tests cover them.
    text = text.replace("\r", "").replace("\0", "")
    return text if COLUMNS[column] == "note" else text.replace("\n", " ")
