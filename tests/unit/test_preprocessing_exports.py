"""Tests the merge with the peculiarities of real exports, such as spellings of NULL, encodings and
units.
"""

import csv
import logging
import os
from pathlib import Path

import pytest

from hospital.contents import InputError
from hospital.merge import prepare

AGE = "pat_id;age\n1;50\n"
ADMISSION = "pat_id;date_admission;date_discharge\n1;2019-02-13;\n"
SIGNAL = "pat_id;day;hour;parameter;value\n"
ONE = "1;2019-02-15;7;x;1\n"


def merge(folder: Path, **files: str | bytes) -> list[dict[str, str]]:
    """Merges the files; returns the rows of all_data.csv."""
    for name, text in (
        {"age": AGE, "admission": ADMISSION, "signal": SIGNAL + ONE} | files
    ).items():
        (folder / f"{name}.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    prepare(folder, folder, None)
    with (folder / "all_data.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=";"))


def rejected(folder: Path) -> list[dict[str, str]]:
    with (folder / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=";"))


class TestDischarges:
    @staticmethod
    def discharged(folder: Path, text: str) -> list[str]:
        admission = f"pat_id;date_admission;date_discharge\n1;2019-02-13;{text}\n2;2019-02-13;\n"
        rows = merge(folder, admission=admission)
        assert [row["pat_id"] for row in rows if row["type"] == "reading"] == ["1"]
        return [row["date_discharge"] for row in rows if row["type"] == "discharge"]

    @pytest.mark.parametrize(
        "text",
        [
            *("\\N", "<NA>", "(null)", "[NULL]", "#N/A", "?", "NaT", "none"),
            *("0000-00-00", "0000-00-00 00:00:00", "1900-01-01", "1899-12-30 00:00:00"),
            *("0001-01-01T00:00:00", "1753-01-01", "2999-12-31", "31/12/9999", "3000-01-01"),
            "9999-12-31 23:59:59.9999999",
        ],
    )
    def test_every_spelling_of_no_discharge_leaves_the_stay_open(
        self, tmp_path: Path, text: str
    ) -> None:
        assert self.discharged(tmp_path, text) == []
        assert rejected(tmp_path)[1:] == []

    @pytest.mark.parametrize("text", ["soon", "2019-02-30", "31.02.2019", "20190220", "2019-02-01"])
    def test_an_invalid_discharge_leaves_the_stay_open(self, tmp_path: Path, text: str) -> None:
        assert self.discharged(tmp_path, text) == []
        assert [(r["file"], r["line"], r["column"]) for r in rejected(tmp_path)] == [
            ("admission.csv", "2", "date_discharge")
        ]

    def test_the_last_second_of_a_day_belongs_to_that_day(self, tmp_path: Path) -> None:
        assert self.discharged(tmp_path, "2019-03-04 23:59:59.9999999") == ["2019-03-04"]

    def test_a_discharge_long_after_the_last_reading_causes_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.discharged(tmp_path, "2019-05-10")
        assert "after the stay's last reading" not in caplog.text
        assert self.discharged(tmp_path, "2099-12-31") == ["2099-12-31"]
        assert "after the stay's last reading" in caplog.text


class TestAges:
    ADMISSION = (
        "pat_id;date_admission;date_discharge\n1;2131-05-01;2131-05-09\n1;2128-05-01;2128-05-09\n"
    )

    def ages(self, folder: Path, age: str) -> dict[str, str]:
        rows = merge(folder, age=age, admission=self.ADMISSION, signal=SIGNAL)
        return {row["date_admission"][:4]: row["age"] for row in rows}

    @pytest.mark.parametrize("rows", ["1;63\n1;66\n", "1;66\n1;63\n"])
    def test_ages_are_assigned_to_the_stays_in_order(self, tmp_path: Path, rows: str) -> None:
        assert self.ages(tmp_path, "pat_id;age\n" + rows) == {"2128": "63.0", "2131": "66.0"}
        assert rejected(tmp_path) == []

    def test_ages_are_assigned_to_the_stays_that_their_rows_name(self, tmp_path: Path) -> None:
        age = "pat_id;age;date_admission\n1;66;01/05/2131\n1;60;2128-05-01\n1;61;2100-01-01\n"
        assert self.ages(tmp_path, age) == {"2128": "60.0", "2131": "66.0"}
        assert [row["line"] for row in rejected(tmp_path)] == ["4"]

    @pytest.mark.parametrize("rows", ["1;63\n1;69\n", "1;63\n1;64\n1;66\n"])
    def test_if_ages_fit_no_stay_the_lowest_is_used(self, tmp_path: Path, rows: str) -> None:
        assert self.ages(tmp_path, "pat_id;age\n" + rows) == {"2128": "63.0", "2131": "63.0"}
        assert len(rejected(tmp_path)) == rows.count("\n") - 1

    def test_an_age_above_89_may_follow_a_known_age(self, tmp_path: Path) -> None:
        assert self.ages(tmp_path, "pat_id;age\n1;88\n1;> 89\n") == {"2128": "88.0", "2131": "91.4"}


class TestUnits:
    @staticmethod
    def values(folder: Path, parameter: str, *series: list[float]) -> list[list[float]]:
        admission = "pat_id;date_admission;date_discharge\n"
        body = ""
        for pat_id, values in enumerate(series):
            admission += f"{pat_id};2019-02-13;\n"
            for hour, value in enumerate(values):
                body += f"{pat_id};2019-02-15;{hour};{parameter};{value}\n"
        rows = merge(folder, admission=admission, signal=SIGNAL + body)
        return [
            [float(row["value"]) for row in rows if row["pat_id"] == str(pat_id)]
            for pat_id in range(len(series))
        ]

    @pytest.mark.parametrize(
        ("parameter", "given", "meant", "usual"),
        [
            ("spo2", [0.97, 0.9, 1.0], [97, 90, 100], [97, 99]),
            ("SaO2", [0.97, 0.9, 1.0], [97, 90, 100], [97, 99]),
            ("blood_pressure", [16, 18.5, 9], [120.01, 138.76, 67.51], [120, 60]),
            ("DiasABP", [8, 9, 10], [60, 67.51, 75.01], [60, 70]),
            ("heart_rate", [1.33, 1.5, 2], [79.8, 90, 120], [80, 180]),
            ("respiration_rate", [0.25, 0.3, 0.5], [15, 18, 30], [16, 4]),
            ("Temp", [98.6, 104, 99.5], [37, 40, 37.5], [36, 41]),
        ],
    )
    def test_a_series_in_another_unit_is_converted(
        self,
        tmp_path: Path,
        parameter: str,
        given: list[float],
        meant: list[float],
        usual: list[float],
    ) -> None:
        found = self.values(tmp_path, parameter, given, usual, given[:2])
        assert found == [pytest.approx(meant, abs=0.011), usual, []]
        assert [row["value"] for row in rejected(tmp_path) if row["file"] == "signal.csv"] == [
            repr(float(value)) for value in given[:2]
        ]

    @pytest.mark.parametrize(
        ("parameter", "values"),
        [
            ("blood_pressure", [120, 60, 30, 20, 16]),  # a patient in shock
            ("heart_rate", [80, 30, 5, 0.5]),
            ("spo2", [97, 50, 21, 0.9]),
            ("lactate", [0.9, 0.8, 0.7]),
        ],
    )
    def test_low_values_among_usual_ones_are_not_converted(
        self, tmp_path: Path, parameter: str, values: list[float]
    ) -> None:
        assert self.values(tmp_path, parameter, values) == [values]


class TestEncodings:
    def test_bytes_of_windows_1252_are_read_in_a_utf_8_file(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        body = "1;2019-02-15;7;température;1\n".encode()
        body += b"1;2019-02-15;8;temp\xe9rature;1\n1;2019-02-15;9;O\x92Neill \x96 pump;1\n"
        rows = merge(tmp_path, signal=SIGNAL.encode() + body)
        assert [row["parameter"] for row in rows] == [
            "température", "température", "O’Neill – pump"
        ]  # fmt: skip
        assert "read as Windows-1252: 3, 4" in caplog.text

    def test_a_file_may_have_line_ends_of_several_kinds(self, tmp_path: Path) -> None:
        ends = ["\n", "\r", "\r\n"] * 10
        lines = [f"1;2019-02-15;7;x;{value}{end}" for value, end in enumerate(ends)]
        rows = merge(tmp_path, signal=SIGNAL + "".join(lines))
        assert [float(row["value"]) for row in rows] == list(range(30))

    @pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
    def test_all_kinds_of_line_ends_count_as_lines(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, line_end: bytes
    ) -> None:
        body = "1;2019-02-15;7;é;1\n".encode() * 3 + b"1;2019-02-15;8;\xe9;1\n"
        merge(tmp_path, signal=(SIGNAL.encode() + body).replace(b"\n", line_end))
        assert "read as Windows-1252: 5" in caplog.text

    def test_a_file_in_windows_1252_is_read(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        rows = merge(tmp_path, signal=(SIGNAL + "1;2019-02-15;7;é – ü;1\n").encode("cp1252"))
        assert [row["parameter"] for row in rows] == ["é – ü"]
        assert "(cp1252," in caplog.text

    @pytest.mark.parametrize(
        ("raw", "kind"),
        [
            *((b"\x1f\x8b\x08\0", "gzip"), (b"BZh91", "bzip2"), (b"\xfd7zXZ\0", "xz")),
            *((b"\xd0\xcf\x11\xe0", "Excel"), (b"PAR1", "Parquet"), (b"\x28\xb5\x2f\xfd", "zstd")),
        ],
    )
    def test_a_compressed_file_is_an_error_that_names_its_kind(
        self, tmp_path: Path, raw: bytes, kind: str
    ) -> None:
        with pytest.raises(InputError, match=rf"signal\.csv.*{kind}"):
            merge(tmp_path, signal=raw)

    @pytest.mark.parametrize("other", ["signal.csv.gz", "Signal.csv", "signal.csv.part"])
    def test_a_missing_file_with_a_similar_name_is_reported(
        self, tmp_path: Path, other: str
    ) -> None:
        merge(tmp_path)
        (tmp_path / "signal.csv").rename(tmp_path / other)
        with pytest.raises(InputError, match=f"there is {other}"):
            prepare(tmp_path, tmp_path, None)


class TestForms:
    @pytest.mark.parametrize("mark", [";", ",", "\t", "|"])
    @pytest.mark.parametrize("before", ["", "\ufeff", "\n"])
    def test_a_first_line_may_declare_the_separator(
        self, tmp_path: Path, mark: str, before: str
    ) -> None:
        text = f"{before}sep={mark}\n" + (SIGNAL + ONE + "1;2019-02-15;8;x;ERR\n").replace(
            ";", mark
        )
        assert [row["value"] for row in merge(tmp_path, signal=text)] == ["1.0"]
        assert [row["line"] for row in rejected(tmp_path)] == [str(4 + before.count("\n"))]

    def test_parameter_names_are_kept_unchanged(self, tmp_path: Path) -> None:
        names = ["Na", "NULL", "risk", "nan", "None", "-", "K"]
        body = "".join(f"1;2019-02-15;7;{name};1\n" for name in names)
        assert [row["parameter"] for row in merge(tmp_path, signal=SIGNAL + body)] == names

    @pytest.mark.parametrize(
        ("value", "shown"),
        [("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("+cmd|'/C calc'!A0", "'+cmd|'/C calc'!A0"),
         ("-2+3", "'-2+3"), ("\x1b[2J", "\\x1b[2J"), ("a,=1+1", "a,'=1+1"), ("＝1", "'＝1"),
         ("-1.5.", "'-1.5."), ("-", "-"), (" =1+1", " '=1+1")],
    )  # fmt: skip
    def test_no_cell_of_rejected_csv_is_a_formula(
        self, tmp_path: Path, value: str, shown: str
    ) -> None:
        merge(tmp_path, signal=SIGNAL + f"1;2019-02-15;7;x;{value}\n")
        assert [row["value"] for row in rejected(tmp_path)] == [shown]

    @pytest.mark.parametrize("kind", ["symlink", "hardlink", "fifo"])
    @pytest.mark.parametrize("name", ["rejected.csv", "all_data.csv", "all_data.json"])
    def test_hospital_does_not_write_through_planted_links(
        self, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, kind: str, name: str
    ) -> None:
        theirs = tmp_path_factory.mktemp("theirs") / "theirs"
        theirs.write_text("theirs")
        planted = tmp_path / f".{name}.part"
        if kind == "symlink":
            planted.symlink_to(theirs)
        elif kind == "hardlink":
            planted.hardlink_to(theirs)
        else:
            os.mkfifo(planted)
        assert len(merge(tmp_path)) == 1
        assert theirs.read_text() == "theirs"
        assert (tmp_path / name).is_file()
        assert not (tmp_path / name).is_symlink()
