"""Tests minutes, times after dates, text identifiers and places, as they are sent in messages."""

import json
from pathlib import Path
from typing import Any

import pytest

import training.outcomes
import training.stream
from hospital.contents import InputError
from hospital.merge import prepare
from hospital.patients import Patients
from hospital.replay import Replay
from training.config import Data, Label
from wire.messages import Admission, Discharge, Reading, decode

AGE = "pat_id;age\n1;50\n"
ADMISSION = "pat_id;date_admission;date_discharge\n1;2019-02-13;2019-02-20\n"


def merge(folder: Path, **files: str) -> list[dict[str, Any]]:
    """Merges the three files; returns the messages, after checking that the tool accepts them."""
    for name, text in ({"age": AGE, "admission": ADMISSION} | files).items():
        (folder / f"{name}.csv").write_text(text)
    prepare(folder, folder, None)
    with Replay(folder, "live") as replay:
        events = [event for events in replay.events(0) for event in events]
        assert len(events) == replay.end
        resumed = [event for events in replay.events(1) for event in events]
        assert resumed == events[1:]
    data = [event.partition("\ndata: ")[2].strip() for event in events]
    for one in data:
        assert isinstance(decode(one.encode()), Admission | Discharge | Reading)
    return [json.loads(one) for one in data]


def clock(message: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(message.get(key) for key in ("day", "hour", "minute", "second"))


def rejected(folder: Path) -> list[tuple[int, str]]:
    rows = (folder / "rejected.csv").read_text().splitlines()[1:]
    return [(int(row.split(";")[1]), row.split(";")[2]) for row in rows]


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("day;hour;minute;second", "2019-02-15;7;25;30", ("2019-02-15", 7, 25, 30)),
        ("day;hour;minute", "2019-02-15;7;25", ("2019-02-15", 7, 25, 0)),
        ("day;hour;second", "2019-02-15;7;30.9", ("2019-02-15", 7, 0, 30)),
        ("day;hour", "2019-02-15;07:25", ("2019-02-15", 7, 25, 0)),
        ("day;hour", "2019-02-15;07:25:30.123+02:00", ("2019-02-15", 7, 25, 30)),
        ("day;hour;minute", "2019-02-15;07:25;25", ("2019-02-15", 7, 25, 0)),
        ("day", "2019-02-15 07:25:30", ("2019-02-15", 7, 25, 30)),
        ("day", "2019-02-15T07:25:30Z", ("2019-02-15", 7, 25, 30)),
        ("day", "15/02/2019 07:25:30 UTC", ("2019-02-15", 7, 25, 30)),
        ("day", "2019-02-15 7:25 PM", ("2019-02-15", 19, 25, 0)),
        ("day;hour", "2019-02-15 07:25:30;7", ("2019-02-15", 7, 25, 30)),
        ("day;hour", "2019-02-15 07:25:30;NULL", ("2019-02-15", 7, 25, 30)),
        ("day;hour;minute", "2019-02-15 00:00:00;7;25", ("2019-02-15", 7, 25, 0)),
        ("day;hour;minute;second", "2019-02-15;7;0;0", ("2019-02-15", 7, None, None)),
        ("day;hour;minute", "2019-02-15;24;0", ("2019-02-16", 0, None, None)),
    ],
)
def test_all_forms_of_a_time_are_read(
    tmp_path: Path, header: str, row: str, expected: tuple[Any, ...]
) -> None:
    signal = f"pat_id;{header};parameter;value\n1;{row};x;1\n"
    (reading, _) = merge(tmp_path, signal=signal)
    assert clock(reading) == expected


@pytest.mark.parametrize(
    ("header", "row", "column"),
    [
        ("day;hour;minute", "2019-02-15;7;60", "minute"),
        ("day;hour;second", "2019-02-15;7;x", "second"),
        ("day;hour;minute", "2019-02-15;07:25;26", "hour"),
        ("day;hour", "2019-02-15 07:25:30;8", "hour"),
        ("day;hour", "2019-02-15;", "hour"),
        ("day;hour;minute", "2019-02-15;24;30", "hour"),
        ("day;hour", "2019-02-15 25:00;7", "day"),
        ("day;hour", "2019-02-15;13:00 PM", "hour"),
    ],
)
def test_missing_invalid_and_contradicting_times_are_rejected(
    tmp_path: Path, header: str, row: str, column: str
) -> None:
    signal = f"pat_id;{header};parameter;value\n1;{row};x;1\n"
    assert [message["type"] for message in merge(tmp_path, signal=signal)] == ["discharge"]
    assert rejected(tmp_path) == [(2, column)]


def test_a_file_without_any_time_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column hour"):
        merge(tmp_path, signal="pat_id;day;parameter;value\n1;2019-02-15 00:00:00;x;1\n")


def test_midnight_is_a_time_if_other_days_have_times(tmp_path: Path) -> None:
    signal = "pat_id;day;parameter;value\n" + "".join(
        f"1;2019-02-15 {time};x;1\n" for time in ("07:00:00", "00:00:00", "00:00:01")
    )
    readings = merge(tmp_path, signal=signal)[:-1]
    assert [clock(reading)[1:] for reading in readings] == [
        (0, None, None), (0, 0, 1), (7, None, None)
    ]  # fmt: skip


def test_readings_are_in_the_order_of_their_seconds(tmp_path: Path) -> None:
    times = [(n * 7919) % 86_400 for n in range(500)]
    signal = "pat_id;day;hour;minute;second;parameter;value\n" + "".join(
        f"1;2019-02-15;{t // 3600};{t // 60 % 60};{t % 60};x;{t}\n" for t in times
    )
    readings = merge(tmp_path, signal=signal)[:-1]
    assert [reading["value"] for reading in readings] == sorted(times)
    for reading in readings:
        hour, minute, second = (reading.get(key, 0) for key in ("hour", "minute", "second"))
        assert 3600 * hour + 60 * minute + second == reading["value"]


SIGNAL = "pat_id;day;hour;parameter;value\n1;2019-02-20;12;x;1\n1;2019-02-20;14;x;2\n"


@pytest.mark.parametrize(
    ("discharge", "place", "time"),
    [
        ("2019-02-20 13:05:00", 1, (13, 5, 0)),
        ("2019-02-20 13:00", 1, (13, None, None)),
        ("2019-02-20", 2, (None, None, None)),
        (
            "2019-02-20 00:00:00",
            2,
            (None, None, None),
        ),  # a date without a time, as databases write it
        ("2019-02-20 23:59:59.9999999", 2, (23, 59, 59)),
    ],
)
def test_a_discharge_is_sent_at_its_time(
    tmp_path: Path, discharge: str, place: int, time: tuple[Any, ...]
) -> None:
    admission = f"pat_id;date_admission;date_discharge\n1;2019-02-13 08:30:00;{discharge}\n"
    messages = merge(tmp_path, admission=admission, signal=SIGNAL)
    assert [message["type"] for message in messages].index("discharge") == place
    assert clock(messages[place])[1:] == time
    assert messages[place]["date_discharge"] == "2019-02-20"
    assert {message["date_admission"] for message in messages} == {"2019-02-13"}


def test_a_discharge_earlier_than_the_admission_of_its_day_has_no_time(tmp_path: Path) -> None:
    row = "1;2019-02-20 19:00;2019-02-20 13:00\n"
    messages = merge(tmp_path, admission=ADMISSION.splitlines()[0] + "\n" + row, signal=SIGNAL)
    assert [message["type"] for message in messages] == ["reading", "reading", "discharge"]
    assert "hour" not in messages[-1]


IDS = ["P-0017", "0b0c6fd2-1f5e-4c1a-9d0e-6a2f9a3b7c55", "007", "12345678901234567890"]


class TestIdentifiers:
    @staticmethod
    def files(ids: list[str]) -> dict[str, str]:
        return {
            "age": "pat_id;age\n" + "".join(f"{one};5{n}\n" for n, one in enumerate(ids)),
            "admission": "pat_id;date_admission;date_discharge\n"
            + "".join(f"{one};2019-02-13;\n" for one in ids),
            "signal": "pat_id;day;hour;parameter;value\n"
            + "".join(f"{one};2019-02-15;7;x;{n}\n" for n, one in enumerate(ids)),
        }

    @pytest.mark.parametrize("ids", [IDS, *([one, "42"] for one in IDS), ["42", IDS[0]]])
    def test_patients_are_numbered_by_first_appearance(
        self, tmp_path: Path, ids: list[str]
    ) -> None:
        messages = merge(tmp_path, **self.files(ids))
        admissions, readings = messages[: len(ids)], messages[len(ids) :]
        assert [message["type"] for message in admissions] == ["admission"] * len(ids)
        assert {m["identifier"]: m["pat_id"] for m in admissions} == {
            one: n for n, one in enumerate(ids, 1)
        }
        assert [(m["pat_id"], m["age"], m["value"]) for m in readings] == [
            (n + 1, 50 + n, n) for n in range(len(ids))
        ]
        assert Patients.read(tmp_path / "patients.csv").numbers == {
            one: n for n, one in enumerate(ids, 1)
        }

    def test_additional_rows_do_not_change_the_patients_numbers(self, tmp_path: Path) -> None:
        merge(tmp_path, **self.files(IDS[:2]))
        before = Patients.read(tmp_path / "patients.csv").numbers
        merge(tmp_path, **self.files([*IDS, IDS[0]]))
        assert before.items() <= Patients.read(tmp_path / "patients.csv").numbers.items()

    def test_patients_in_irregular_lines_are_numbered_in_the_files_order(
        self, tmp_path: Path
    ) -> None:
        files = self.files(["A", "B", "C"])
        files["admission"] = files["admission"].replace("A;", '"A";')
        files["age"] = files["age"].replace("B;51", '"B";"51"')
        merge(tmp_path, **files)
        assert Patients.read(tmp_path / "patients.csv").numbers == {"A": 1, "B": 2, "C": 3}

    @pytest.mark.parametrize("other", ["7", "7.0", " 007 ", "007.0"])
    def test_dropped_leading_zeros_are_restored(self, tmp_path: Path, other: str) -> None:
        files = self.files(["P-1", "007"])
        files["signal"] = f"pat_id;day;hour;parameter;value\n{other};2019-02-15;7;x;1\n"
        assert [m["pat_id"] for m in merge(tmp_path, **files) if m["type"] == "reading"] == [2]

    def test_identifiers_that_differ_in_leading_zeros_are_two_patients(
        self, tmp_path: Path
    ) -> None:
        files = self.files(["7", "007"])
        readings = [m for m in merge(tmp_path, **files) if m["type"] == "reading"]
        assert [m["pat_id"] for m in readings] == [1, 2]
        merge(tmp_path, **files | {"signal": files["signal"] + "07;2019-02-15;7;x;1\n"})
        assert rejected(tmp_path) == [(4, "pat_id")]

    def test_whole_numbers_are_the_patients_numbers(self, tmp_path: Path) -> None:
        ids = ["42", str(2**63 - 1), "1"]
        messages = merge(tmp_path, **self.files(ids))
        assert [m["type"] for m in messages] == ["reading"] * 3
        assert [str(m["pat_id"]) for m in messages] == ids
        assert not (tmp_path / "patients.csv").exists()
        text = (tmp_path / "all_data.csv").read_text()
        assert text.startswith(
            "type;pat_id;age;date_admission;date_discharge;day;hour;parameter;value\n"
            "reading;42;50.0;2019-02-13;;2019-02-15;7;x;0.0\n"
        )

    def test_admissions_have_the_identifier_and_place_of_numbered_patients(
        self, tmp_path: Path
    ) -> None:
        admission = (
            "pat_id;date_admission;date_discharge;identifier;place\n"
            "1;2019-02-13 09:30;;M. M.;Bed 3\n2;2019-02-13;;;Bed 4\n3;2019-02-13;;NULL;\n"
        )
        signal = "pat_id;day;hour;parameter;value\n" + "".join(
            f"{n};2019-02-13;{9 + n % 2};x;1\n" for n in (1, 2, 3)
        )
        messages = merge(tmp_path, admission=admission, signal=signal)
        admissions = [message for message in messages if message["type"] == "admission"]
        assert [
            (m["pat_id"], m.get("identifier"), m.get("place"), clock(m)) for m in admissions
        ] == [
            (2, None, "Bed 4", ("2019-02-13", 0, None, None)),
            (1, "M. M.", "Bed 3", ("2019-02-13", 9, 30, 0)),
        ]
        assert len(messages) == 5

    def test_hindsight_mode_sends_the_admissions(self, tmp_path: Path) -> None:
        files = self.files(["A", "B"])
        files["admission"] = files["admission"].replace("2019-02-13;\n", "2019-02-13;2019-02-16\n")
        merge(tmp_path, **files)
        with Replay(tmp_path, "hindsight") as replay:
            events = [event for events in replay.events(0) for event in events]
            assert replay.end == len(events) == 4
        first, reading = (json.loads(events[n].partition("\ndata: ")[2]) for n in (0, 2))
        assert "date_discharge" not in first
        assert reading["date_discharge"] == "2019-02-16"

    def test_a_patients_csv_that_hospital_did_not_write_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "patients.csv").write_text("subject_id,gender\n")
        with pytest.raises(InputError, match=r"patients\.csv"):
            merge(tmp_path, **self.files(["A"]))
        merge(tmp_path, **self.files(["42"]))
        assert (tmp_path / "patients.csv").read_text() == "subject_id,gender\n"


def test_outcomes_are_matched_to_patients_by_identifier(tmp_path: Path) -> None:
    merge(tmp_path, **TestIdentifiers.files(["P-1", "P-2", "P-3"]))
    (tmp_path / "outcome.csv").write_text(
        "pat_id;date_admission;died\nP-3;2019-02-13;1\nP-1;13/02/2019;0\n2;2019-02-13;1\n"
    )
    stream = training.stream.read(Data(folder=tmp_path))
    found = training.outcomes.read(
        tmp_path, Label(column="died", event="death"), stream.identifiers
    )
    assert sorted(stream.readings["pat_id"]) == [1, 2, 3]
    assert {key[0]: row["died"] for key, row in found.table.iterrows()} == {1: 0, 3: 1}
    assert sum(found.left_out.values()) == 1
