"""Merges random rows: each row is sent once, rejected with a reason, or counted as a
duplicate."""

import csv
import io
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hospital import csv_file
from hospital.contents import InputError
from hospital.merge import prepare

COLUMNS = ["pat_id", "day", "hour", "parameter", "value"]
AGE = "pat_id;age\n1;50\n2;60.5\n"
# Patient 1 was in the ICU from the 10th to the 20th of February, and again from the 20th on.
# Patient 2 was there from the 10th to the 15th.
ADMISSION = (
    "pat_id;date_admission;date_discharge\n"
    "1;2019-02-20;\n1;2019-02-10;2019-02-20\n2;2019-02-10;2019-02-15\n"
)
# Cells and their values; None means that the cell is rejected.
PATIENTS = {"1": 1, "2": 2, "2.0": 2, "01": 1, "3": None, "": None, "x": None, "1.5": None}
DAYS = {"2019-02-09": 9, "2019-02-10": 10, "2019-02-15": 15, "15/02/2019": 15, "20/02/2019": 20,
        "2019-02-21 00:00": 21, "31/02/2019": None, "NaN": None}  # fmt: skip
HOURS = {"0": 0, "7.0": 7, "07:00": 7, "23": 23, "24": 24, "25": None, "": None}
PARAMETERS = {"heart_rate": "heart_rate", " spo2 ": "spo2", "température": "température", "": None}
VALUES = {"80": 80.0, "97.5": 97.5, "1e2": 100.0, "-": None, ">200": None, "ERR": None, "inf": None}

Row = tuple[str, ...]
MEANT: list[dict[str, object]] = [PATIENTS, DAYS, HOURS, PARAMETERS, VALUES]  # type: ignore[list-item]

rows = st.lists(st.tuples(*(st.sampled_from(sorted(cells)) for cells in MEANT)), max_size=40)
forms = st.fixed_dictionaries(
    {
        "separator": st.sampled_from(";,\t"),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
        "line_end": st.sampled_from(["\n", "\r\n"]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        "columns": st.permutations(COLUMNS),
        "numbered": st.booleans(),
        "block": st.sampled_from([30, 200, 8_000_000]),
    }
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def written(table: list[Row], form: dict[str, object]) -> bytes:
    """Writes signal.csv in one of the forms that hospitals export."""
    stream = io.StringIO()
    writer = csv.writer(
        stream,
        delimiter=str(form["separator"]),
        lineterminator=str(form["line_end"]),
        quoting=form["quoting"],  # type: ignore[arg-type]
    )
    columns: list[str] = form["columns"]  # type: ignore[assignment]
    writer.writerow(["", *columns] if form["numbered"] else columns)
    for number, row in enumerate(table):
        cells = [row[COLUMNS.index(column)] for column in columns]
        writer.writerow([number, *cells] if form["numbered"] else cells)
    return stream.getvalue().encode(str(form["encoding"]))


def merged(signal: bytes, block: int) -> tuple[list[list[str]], list[list[str]], dict[str, int]]:
    """Merges the files twice, and checks that both results are equal. Returns the readings, the
    rejected rows of signal.csv, and the counts.
    """
    results = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_file, "BLOCK", block)
            folder = Path(name)
            (folder / "age.csv").write_text(AGE)
            (folder / "admission.csv").write_text(ADMISSION)
            (folder / "signal.csv").write_bytes(signal)
            prepare(folder, folder, None)
            messages = (folder / "all_data.csv").read_text(encoding="utf-8").split("\n")[1:-1]
            with (folder / "rejected.csv").open(newline="", encoding="utf-8") as file:
                rejected = [
                    row for row in csv.reader(file, delimiter=";") if row[0] == "signal.csv"
                ]
            index = json.loads((folder / "all_data.json").read_text())
            counts = {
                "messages": index["messages"],
                "readings": index["readings"],
                "rejected": sum(index["rejected"].values()),
                "duplicates": index["duplicates"]["signal.csv"],
            }
            results.append(([line.split(";") for line in messages], rejected, counts))
    assert results[0] == results[1]
    messages_, rejected, counts = results[0]
    readings = [row for row in messages_ if row[0] == "reading"]
    assert counts["messages"] == len(messages_) == len(readings) + 2
    assert counts["readings"] == len(readings)
    assert counts["rejected"] == len(rejected)
    return readings, rejected, counts


def stay(patient: int, day: int) -> str:
    """The date of admission of the stay that includes a day of February 2019, or ''."""
    if patient == 1 and day >= 20:
        return "2019-02-20"
    return "2019-02-10" if 10 <= day <= {1: 20, 2: 15}[patient] else ""


def expected(table: list[Row], numbered: bool) -> tuple[list[list[str]], list[int], int]:
    """Returns the readings in order, the indices of rejected rows, and the number of duplicates."""
    readings, refused, seen, duplicates = [], [], set(), 0
    for number, row in enumerate(table):
        meant = [cells[cell] for cells, cell in zip(MEANT, row, strict=True)]
        if None in meant:
            refused.append(number)
            continue
        patient, day, hour, parameter, value = meant
        day, hour = (day + 1, 0) if hour == 24 else (day, hour)  # type: ignore[operator]
        if not (admission := stay(patient, day)):  # type: ignore[arg-type]
            refused.append(number)
        elif row in seen and not numbered:
            duplicates += 1
        else:
            seen.add(row)
            age = {1: "50.0", 2: "60.5"}[patient]  # type: ignore[index]
            last_day = {1: "2019-02-20", 2: "2019-02-15"}[patient]  # type: ignore[index]
            ended = "" if admission == "2019-02-20" else last_day
            when = f"2019-02-{day:02}"
            fields = [age, admission, ended, when, str(hour), str(parameter), repr(value)]
            readings.append(((day, hour), ["reading", str(patient), *fields]))
    readings.sort(key=lambda one: one[0])  # a stable sort keeps the file's order within an hour
    return [reading for _, reading in readings], refused, duplicates


@settings(max_examples=60, deadline=None)
@given(rows, forms)
def test_every_row_is_sent_or_rejected_or_a_duplicate(
    table: list[Row], form: dict[str, object]
) -> None:
    readings, rejected, counts = merged(written(table, form), int(form["block"]))  # type: ignore[call-overload]
    want, refused, duplicates = expected(table, bool(form["numbered"]))
    assert readings == want
    assert [int(row[1]) for row in sorted(rejected, key=lambda row: int(row[1]))] == [
        number + 2 for number in refused
    ]
    assert all(row[4] for row in rejected)
    assert counts["duplicates"] == duplicates


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.text(max_size=8) for _ in COLUMNS]), max_size=6),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from([20, 8_000_000]),
)
def test_cells_of_any_text_lose_no_valid_row(table: list[Row], quoting: int, block: int) -> None:
    """No valid row that follows rows of any text is lost, and none is invented."""
    good = ("1", "2019-02-12", "5", "x", "1")
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=";", lineterminator="\n", quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(COLUMNS)
    for row in table:
        writer.writerow([cell.encode("utf-8", "replace").decode() for cell in row])
    for number in range(5):
        writer.writerow([*good[:4], number])
    readings, rejected, _ = merged(stream.getvalue().encode(), block)
    assert [row[-1] for row in readings] == ["0.0", "1.0", "2.0", "3.0", "4.0"]
    lines = [int(row[1]) for row in rejected]
    assert len(set(lines)) == len(lines) >= len(table)
    assert all(1 < line <= stream.getvalue().replace("\r", "\n").count("\n") for line in lines)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_file_gives_one_error_or_accounts_for_all_lines(data: st.DataObject) -> None:
    """Bytes are removed, inserted or changed anywhere: there is one clear error, or all lines are
    accounted for."""
    name = data.draw(st.sampled_from(["x", '"x"']))
    body = "".join(f"1;2019-02-12;{hour};{name};{hour}.5\n" for hour in range(20))
    raw = (";".join(COLUMNS) + "\n" + body).encode()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        end = start + data.draw(st.sampled_from([0, 1, 2, 30]))
        junk = data.draw(
            st.one_of(
                st.binary(max_size=6), st.sampled_from([b'"', b'";', b';"', b"\0", b"\n", b"\r"])
            )
        )
        raw = raw[:start] + junk + raw[end:]
    error = ""
    try:
        readings, rejected, counts = merged(raw, data.draw(st.sampled_from([10, 100, 8_000_000])))
    except InputError as refused:
        error = str(refused)
    if error:
        assert "signal.csv" in error
        assert "\n" not in error
        return
    lines = [int(row[1]) for row in rejected]
    assert len(set(lines)) == len(lines)
    assert all(len(row) == 9 for row in readings)
    text = raw.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    if '"' not in text and not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        filled = [line for line in text.split("\n")[1:] if line.strip()]
        assert len(readings) + len(rejected) + counts["duplicates"] in (
            len(filled),
            len(filled) - 1,
        )
