"""Tests the merge of the three CSVs: formats, the order of messages, and rejected rows."""

import csv
import hashlib
import json
import logging
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hospital import csv_file
from hospital.contents import InputError
from hospital.merge import prepare
from wire.settings import SettingError

AGE = "pat_id;age\n1;50\n2;60.5\n"
ADMISSION = "pat_id;date_admission;date_discharge\n1;13/02/2019;20/02/2019\n2;2019-02-14;\n"
SIGNAL = "pat_id;day;hour;parameter;value\n"
ONE = "1;2019-02-15;7;heart_rate;80\n"


STAY, VALUE = "type;pat_id;age;date_admission;date_discharge;", "parameter;value"
HEADERS = {
    f"{STAY}{admissions}{clock}{VALUE}"
    for admissions in ("", "identifier;place;")
    for clock in ("day;hour;", "day;hour;minute;second;")
}


class Hospital:
    """A folder of CSVs, and the files that the merge writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write(age=AGE, admission=ADMISSION, signal=SIGNAL + ONE)

    def write(self, **files: str | bytes) -> None:
        for name, content in files.items():
            raw = content if isinstance(content, bytes) else content.encode()
            (self.folder / f"{name}.csv").write_bytes(raw)

    def merge(self, date_format: str | None = None, **files: str | bytes) -> list[list[str]]:
        """Returns the messages as lists of their fields."""
        self.write(**files)
        prepare(self.folder, self.folder, date_format)
        return self.messages()

    def messages(self) -> list[list[str]]:
        text = (self.folder / "all_data.csv").read_text()
        assert text.endswith("\n")
        header, *lines = text.splitlines()
        assert header in HEADERS
        return [line.split(";") for line in lines]

    def readings(self, date_format: str | None = None, **files: str | bytes) -> list[str]:
        """Returns the readings as texts, 'pat_id day hour parameter value'."""
        return [
            " ".join([row[1], *row[5:]])
            for row in self.merge(date_format, **files)
            if row[0] == "reading"
        ]

    def rejected(self) -> list[tuple[str, int, str, str, str]]:
        with (self.folder / "rejected.csv").open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file, delimiter=";")
        assert header == ["file", "line", "column", "value", "reason"]
        return [(row[0], int(row[1]), row[2], row[3], row[4]) for row in rows]

    def index(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.folder / "all_data.json").read_text())
        return loaded


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


class TestStream:
    def test_a_discharge_follows_the_last_reading_of_its_day(self, hospital: Hospital) -> None:
        rows = hospital.merge(
            signal=SIGNAL
            + "2;2019-02-21;0;heart_rate;71\n"
            + "1;2019-02-20;23;heart_rate;82\n"
            + "1;2019-02-20;7;heart_rate;81\n"
        )
        assert [";".join(row) for row in rows] == [
            "reading;1;50.0;2019-02-13;2019-02-20;2019-02-20;7;heart_rate;81.0",
            "reading;1;50.0;2019-02-13;2019-02-20;2019-02-20;23;heart_rate;82.0",
            "discharge;1;50.0;2019-02-13;2019-02-20;2019-02-20;;;",
            "reading;2;60.5;2019-02-14;;2019-02-21;0;heart_rate;71.0",
        ]

    def test_rows_of_one_hour_keep_the_order_of_the_file(self, hospital: Hospital) -> None:
        body = "".join(f"{1 + n % 2};2019-02-15;{7 - n % 3};p{n};1\n" for n in range(30))
        names = [row.split()[3] for row in hospital.readings(signal=SIGNAL + body)]
        assert names == [f"p{n}" for hour in (5, 6, 7) for n in range(30) if 7 - n % 3 == hour]

    def test_irregular_lines_keep_their_place_in_the_hour(self, hospital: Hospital) -> None:
        quoted = '"1";"2019-02-15";"7";"b";"2"\n'
        rows = hospital.readings(
            signal=SIGNAL
            + "1;2019-02-15;7;a;1\n"
            + quoted
            + "1;2019-02-15;7;c;3\n\n"
            + "1;2019-02-15;7;d;4;;\n"
            + "1;2019-02-15;7;e;5\n"
        )
        assert [row.split()[3] for row in rows] == list("abcde")

    def test_a_reading_belongs_to_the_stay_whose_days_contain_it(self, hospital: Hospital) -> None:
        hospital.merge(
            admission="pat_id;date_admission;date_discharge\n"
            "1;2019-02-20;2019-02-25\n1;2019-02-01;2019-02-05\n1;2019-02-05;2019-02-10\n",
            signal=SIGNAL
            + "".join(f"1;2019-02-{day:02};1;x;{day}\n" for day in (1, 4, 5, 10, 11, 20, 25, 26)),
        )
        stay_of = {row[5]: row[3] for row in hospital.messages() if row[0] == "reading"}
        assert stay_of == {
            "2019-02-01": "2019-02-01",
            "2019-02-04": "2019-02-01",
            "2019-02-05": "2019-02-05",  # a day of two stays belongs to the later one
            "2019-02-10": "2019-02-05",
            "2019-02-20": "2019-02-20",
            "2019-02-25": "2019-02-20",
        }
        assert [
            (row[1], row[3], row[4]) for row in hospital.rejected() if row[0] == "signal.csv"
        ] == [
            (6, "2019-02-11", "outside the patient's stays"),
            (9, "2019-02-26", "outside the patient's stays"),
        ]

    def test_a_day_in_overlapping_stays_belongs_to_the_latest(
        self, hospital: Hospital, caplog: pytest.LogCaptureFixture
    ) -> None:
        hospital.merge(
            admission="pat_id;date_admission;date_discharge\n"
            "1;2019-02-01;2019-02-20\n1;2019-02-05;2019-02-07\n1;2019-02-06;2019-02-06\n"
            "2;2019-02-01;\n",
            signal=SIGNAL + "".join(f"1;2019-02-{day:02};1;x;1\n" for day in range(4, 10)),
        )
        stay_of = {row[5][-2:]: row[3][-2:] for row in hospital.messages() if row[0] == "reading"}
        assert stay_of == {
            "04": "01", "05": "05", "06": "06", "07": "05", "08": "01", "09": "01"
        }  # fmt: skip
        assert "admission.csv: 2 stays begin before" in caplog.text

    def test_stays_without_readings_are_discharged_too(self, hospital: Hospital) -> None:
        assert [row[0] for row in hospital.merge(signal=SIGNAL)] == ["discharge"]

    def test_the_index_has_the_positions_of_lines(
        self, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = "".join(f"1;2019-02-{day};{h};p{n};{n}\n"
                       for n in range(60) for day in (18, 19, 20) for h in range(24))  # fmt: skip
        admission = ADMISSION + "3;2019-02-01;2019-02-03\n"
        hospital.merge(admission=admission, signal=SIGNAL + body + "2;2019-02-21;1;x;1\n")
        index = hospital.index()
        raw = (hospital.folder / "all_data.csv").read_bytes()
        lines = raw.splitlines(keepends=True)[1:]
        assert index["sha256"] == hashlib.sha256(raw).hexdigest()
        assert (index["messages"], index["readings"], index["discharges"]) == (4323, 4321, 2)
        assert index["stays"] == 3
        assert index["every"] == 4096
        assert [entry[1] for entry in index["offsets"]] == [0, 4096]
        for offset, messages, readings in index["offsets"]:
            assert raw[offset:].startswith(lines[messages])
            assert readings == sum(line.startswith(b"reading") for line in lines[:messages])

    def test_numbers_are_written_exactly_in_their_shortest_form(self, hospital: Hospital) -> None:
        texts = ["0.1", "1e-7", "123456789.123456789", "5e300", "-0", "+7", ".5", "3.", "1E2"]
        body = "".join(f"1;2019-02-15;1;x;{text}\n" for text in texts)
        rows = hospital.readings(signal=SIGNAL + body)
        assert [row.split()[-1] for row in rows] == [repr(float(text)) for text in texts]


class TestFileForms:
    @pytest.mark.parametrize(
        "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"]
    )
    @pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("separator", [";", ",", "\t"])
    def test_all_encodings_line_ends_and_separators_are_read(
        self, hospital: Hospital, encoding: str, line_end: str, separator: str
    ) -> None:
        def written(text: str) -> bytes:
            return text.replace("\n", line_end).replace(";", separator).encode(encoding)

        rows = hospital.readings(
            age=written(AGE),
            admission=written(ADMISSION),
            signal=written(SIGNAL + "1;2019-02-15;7;température;37.5\n" + ONE),
        )
        assert rows == ["1 2019-02-15 7 température 37.5", "1 2019-02-15 7 heart_rate 80.0"]

    @pytest.mark.parametrize("block", [1, 7, 40, 1000])
    def test_the_size_of_blocks_does_not_change_the_result(
        self, hospital: Hospital, monkeypatch: pytest.MonkeyPatch, block: int
    ) -> None:
        body = "".join(f"1;15/02/2019;{n % 24};x{n};{n};\n" for n in range(40))
        body += '1;15/02/2019;7;q;1;"two\nlines; or ""three""\n"\n1;15/02/2019;7;"r\n";2;\n'
        body += '1;15/02/2019;23;"z ""z""";3;\n' + "1;15/02/2019;9\n"
        hospital.write(signal=SIGNAL.replace("value", "value;note") + body)
        whole = hospital.merge(), hospital.rejected()
        assert len(whole[0]) == 43
        assert [row[1] for row in whole[1]] == [45, 46, 48]
        (hospital.folder / "all_data.json").unlink()
        monkeypatch.setattr(csv_file, "BLOCK", block)
        assert (hospital.merge(), hospital.rejected()) == whole

    def test_unnamed_and_additional_columns_are_ignored(self, hospital: Hospital) -> None:
        rows = hospital.readings(
            age=";age;pat_id\n0;50;1\n1;60.5;2\n",
            signal=";Unnamed: 0; Value ;ward;HOUR;Pat_ID;parameter;day;\n"
            "0;0;80;A;7;1;heart_rate;2019-02-15;\n",
        )
        assert rows == ["1 2019-02-15 7 heart_rate 80.0"]
        assert hospital.messages()[0][2] == "50.0"

    def test_quoted_fields_may_contain_separators_and_line_breaks(self, hospital: Hospital) -> None:
        rows = hospital.readings(
            signal='"pat_id";"comment";"day";"hour";"parameter";"value"\n'
            '"1";"said ""no"";\nthen yes";"2019-02-15";"7";"heart_rate";"80"\n'
            "\n"
            '1;"";2019-02-15;8;heart_rate;"x"\n'
        )
        assert rows == ["1 2019-02-15 7 heart_rate 80.0"]
        assert hospital.rejected() == [("signal.csv", 5, "value", "x", "not a number")]

    @pytest.mark.parametrize(
        "odd",
        [
            '1;2019-02-15;7;"a;80',  # a quote opens in this line, and the next line has another
            '"1;2019-02-15";7;a;80',
            '1;2019-02-15;7;"a;80"',
            '1;2019-02-15;"7;a";80',  # a separator is in quotes, so there is one field too few
            '1;2019-02-15;7;"a""b";80"',
        ],
    )
    def test_a_line_with_irregular_quotes_is_rejected(self, hospital: Hospital, odd: str) -> None:
        quoted = '"1";"2019-02-15";"7";"x";"80"\n'
        rows = hospital.readings(signal=SIGNAL + quoted + odd + '\n1;2019-02-15;8;y";81\n')
        assert rows == ["1 2019-02-15 7 x 80.0", '1 2019-02-15 8 y" 81.0']
        assert [row[1] for row in hospital.rejected()] == [3]

    @pytest.mark.parametrize("first", ["", '1;2019-02-15;6;y";79\n'])
    def test_a_quote_that_is_never_closed_rejects_one_line(
        self, hospital: Hospital, first: str
    ) -> None:
        rows = hospital.readings(signal=SIGNAL + first + '1;2019-02-15;7;"x;80\n' + ONE)
        assert rows[-1] == "1 2019-02-15 7 heart_rate 80.0"
        assert len(rows) == (2 if first else 1)
        assert [row[1] for row in hospital.rejected()] == [3 if first else 2]

    def test_an_unclosed_quote_does_not_affect_later_lines(self, hospital: Hospital) -> None:
        rows = hospital.readings(
            signal=SIGNAL
            + '1;2019-02-15;6;"heart_rate;79\n'
            + ONE
            + '1;2019-02-15;8;"x"y;1\n'
            + ONE
        )
        assert rows == ["1 2019-02-15 7 heart_rate 80.0"]
        assert [(row[1], row[4]) for row in hospital.rejected()] == [
            (2, "a quote that is not closed, or text after a closing quote"),
            (4, "a quote that is not closed, or text after a closing quote"),
        ]
        assert hospital.index()["duplicates"]["signal.csv"] == 1

    def test_blank_lines_are_skipped_but_counted(self, hospital: Hospital) -> None:
        hospital.merge(signal="\n\n" + SIGNAL + "\n  \n" + ONE + "\n1;2019-02-15;7;x;ERR\n")
        assert hospital.rejected() == [("signal.csv", 8, "value", "ERR", "not a number")]

    def test_lines_with_too_many_or_too_few_fields_are_rejected(self, hospital: Hospital) -> None:
        rows = hospital.readings(
            signal=SIGNAL + "1;2019-02-15;7;a;1;2\n1;2019-02-15;7;b\n1;2019-02-15;7;c;3;;\n"
        )
        assert rows == ["1 2019-02-15 7 c 3.0"]
        assert [(row[1], row[4]) for row in hospital.rejected()] == [
            (2, "more fields than the header has"),
            (3, "fewer fields than the header has"),
        ]

    def test_lines_with_nul_bytes_are_rejected(self, hospital: Hospital) -> None:
        rows = hospital.readings(
            signal=SIGNAL + "1;2019-02-15;7;heart\0rate;80\n" + ONE + "\0\0\0\n"
        )
        assert rows == ["1 2019-02-15 7 heart_rate 80.0"]
        assert hospital.rejected() == [
            ("signal.csv", 2, "parameter", "1;2019-02-15;7;heart\\0rate;80", "NUL byte"),
            ("signal.csv", 4, "pat_id", "\\0\\0\\0", "NUL byte"),
        ]

    def test_a_parameter_name_of_digits_is_not_converted(self, hospital: Hospital) -> None:
        rows = hospital.readings(signal=SIGNAL + "0001;2019-02-15;07;007;1.50\n")
        assert rows == ["1 2019-02-15 7 007 1.5"]

    @pytest.mark.parametrize("length", range(1, len("2;2019-02-15;8;heart_rate;110.25\n")))
    def test_a_last_line_that_is_cut_off_is_rejected(self, hospital: Hospital, length: int) -> None:
        last = "2;2019-02-15;8;heart_rate;110.25\n"
        assert hospital.readings(signal=SIGNAL + ONE + last[:length]) == [
            "1 2019-02-15 7 heart_rate 80.0"
        ]
        assert [row[1] for row in hospital.rejected()] == [3]

    @pytest.mark.parametrize("length", range(1, len("2;14/02/2019;15/02/2019")))
    def test_a_last_admission_that_is_cut_off_is_rejected(
        self, hospital: Hospital, length: int
    ) -> None:
        header, last = "pat_id;date_admission;date_discharge\n", "2;14/02/2019;15/02/2019"
        rows = hospital.merge(admission=header + "1;13/02/2019;\n" + last[:length], signal=SIGNAL)
        assert rows == []
        assert hospital.rejected()[0][1] == 3
        rows = hospital.merge(admission=header + "1;13/02/2019;\n" + last, signal=SIGNAL)
        assert [row[0] for row in rows] == ["discharge"]  # a complete date is not rejected


class TestCells:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "missing"), (" ", "missing"), ("NaN", "missing"), ("NULL", "missing"),
            ("-", "missing"), ("N/A", "missing"), ("ERR", "not a number"),
            (">200", "not a number"), ("inf", "not a number"), ("1e999", "not a number"),
            ("1_000", "not a number"), ("0x1F", "not a number"), ("True", "not a number"),
            ("1,2,3", "not a number"), ("37 5", "not a number"), ("٣٧", "not a number"),
        ],
    )  # fmt: skip
    def test_a_value_that_is_not_a_number_is_rejected(
        self, hospital: Hospital, text: str, reason: str
    ) -> None:
        assert hospital.readings(signal=SIGNAL + ONE + f"1;2019-02-15;8;x;{text}\n") == [
            "1 2019-02-15 7 heart_rate 80.0"
        ]
        assert hospital.rejected() == [("signal.csv", 3, "value", text, reason)]
        assert hospital.index()["rejected"] == {f"signal.csv:{reason}": 1}

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("0", "2019-02-15 0"), ("7.0", "2019-02-15 7"), ("07", "2019-02-15 7"),
            ("7,0", "2019-02-15 7"), ("07:45", "2019-02-15 7 45 0"),
            ("23:59:59", "2019-02-15 23 59 59"), ("7:25:30.9Z", "2019-02-15 7 25 30"),
            ("7:05 PM", "2019-02-15 19 5 0"),
            ("24", "2019-02-16 0"), ("24:00", "2019-02-16 0"), (" 9 ", "2019-02-15 9"),
        ],
    )  # fmt: skip
    def test_all_forms_of_an_hour_are_read(
        self, hospital: Hospital, text: str, expected: str
    ) -> None:
        rows = hospital.readings(signal=SIGNAL + f"1;2019-02-15;{text};x;1\n")
        assert rows == [f"1 {expected} x 1.0"]

    @pytest.mark.parametrize("text", ["25", "-1", "7.5", "24:30", "7:5", "x", "", "24:00:01"])
    def test_an_invalid_hour_is_rejected(self, hospital: Hospital, text: str) -> None:
        assert hospital.readings(signal=SIGNAL + f"1;2019-02-15;{text};x;1\n") == []
        assert hospital.rejected()[0][:4] == ("signal.csv", 2, "hour", text)

    def test_hour_24_of_the_discharge_day_is_outside_the_stay(self, hospital: Hospital) -> None:
        assert hospital.readings(signal=SIGNAL + "1;2019-02-20;24;x;1\n") == []
        assert hospital.rejected()[0][2:] == ("day", "2019-02-21", "outside the patient's stays")

    def test_patient_numbers_may_be_written_as_floats(self, hospital: Hospital) -> None:
        assert hospital.readings(
            age="pat_id;age\n1.0;50\n",
            admission="pat_id;date_admission;date_discharge\n1,00;2019-02-13;\n",
            signal=SIGNAL + "1.0;2019-02-15;7;x;1\n1.5;2019-02-15;7;x;1\n-1;2019-02-15;7;x;1\n",
        ) == ["1 2019-02-15 7 x 1.0"]
        assert [row[1:] for row in hospital.rejected()] == [
            (3, "pat_id", "1.5", "not a whole number"),
            (4, "pat_id", "-1", "not a whole number"),
        ]

    def test_an_invalid_parameter_is_rejected(self, hospital: Hospital) -> None:
        cells = ["", " ", "a\tb", '"a;b"', "x" * 65]
        body = "".join(f"1;2019-02-15;7;{cell};1\n" for cell in cells)
        assert hospital.readings(signal=SIGNAL + body) == []
        assert [(row[1], row[2]) for row in sorted(hospital.rejected())] == [
            (line, "parameter") for line in range(2, 7)
        ]

    @pytest.mark.parametrize(
        ("texts", "values"),
        [
            (["37,6", "1,5e2", "-0,5"], ["37.6", "150.0", "-0.5"]),
            (["37,6", "1,234"], ["37.6", "1.234"]),  # the file has decimal commas
            (["80", "1,234"], ["80.0"]),  # no value shows the decimal mark
            (["36.5", "1,234"], ["36.5"]),  # the file has decimal points
            (["37,6", "1.234"], ["37.6"]),  # the file has decimal commas
            (["36.5", "1.234"], ["36.5", "1.234"]),
            (["36.5", "37,6", "1,234", "1.234"], ["36.5", "37.6"]),
            (["37,6", "0,125", "36.5"], ["37.6", "0.125", "36.5"]),
        ],
    )
    def test_a_decimal_comma_is_read_if_the_file_shows_it(
        self, hospital: Hospital, texts: list[str], values: list[str]
    ) -> None:
        body = "".join(f"1;2019-02-15;7;x;{text}\n" for text in reversed(texts))
        rows = hospital.readings(signal=SIGNAL + body)
        assert [row.split()[-1] for row in rows] == values[::-1]
        assert len(hospital.rejected()) == len(texts) - len(values)
        quoted = body.replace(",", "\0").replace(";", ",")
        quoted = "".join(
            line.rpartition(",")[0] + ',"' + line.rpartition(",")[2][:-1].replace("\0", ",") + '"\n'
            for line in quoted.splitlines(keepends=True)
        )
        rows = hospital.readings(signal=SIGNAL.replace(";", ",") + quoted)
        assert [row.split()[-1] for row in rows] == values[::-1]


class TestDates:
    @pytest.mark.parametrize(
        "text",
        [
            "2019-02-15", "2019-2-15", "2019/02/15", "15/02/2019", "15-2-2019", "15.02.2019",
            "2019-02-15 00:00:00", "2019-02-15T00:00:00.000", "15/02/2019 00:00",
            "2019-02-15T00:00:00Z", " 15/02/2019 ",
        ],
    )  # fmt: skip
    def test_all_forms_of_a_date_are_read(self, hospital: Hospital, text: str) -> None:
        assert hospital.readings(signal=SIGNAL + f"1;{text};7;x;1\n") == ["1 2019-02-15 7 x 1.0"]

    @pytest.mark.parametrize(
        "text",
        ["", "31/02/2019", "13/13/2019", "2019-02-30", "2019-15-02", "15/02/19", "20190215",
         "yesterday", "0000-01-01", "9999-12-31", "1900-01-01", "2019-02-15 13:61"],
    )  # fmt: skip
    def test_an_invalid_date_is_rejected(self, hospital: Hospital, text: str) -> None:
        assert hospital.readings(signal=SIGNAL + f"1;{text};7;x;1\n") == []
        assert hospital.rejected()[0][:4] == ("signal.csv", 2, "day", text)

    def test_admission_and_discharge_may_have_a_time_of_day(self, hospital: Hospital) -> None:
        rows = hospital.merge(
            admission="pat_id;date_admission;date_discharge\n"
            "1;2101-10-20 19:08:00;2101-10-26 13:00:00\n",
            signal=SIGNAL,
        )
        assert rows[0][3:6] == ["2101-10-20", "2101-10-26", "2101-10-26"]

    @pytest.mark.parametrize("text", ["", "NULL", "NaT", "-", "31/12/9999", "9999-12-31"])
    def test_a_discharge_that_is_empty_or_in_9999_leaves_the_stay_open(
        self, hospital: Hospital, text: str
    ) -> None:
        rows = hospital.merge(
            admission=f"pat_id;date_admission;date_discharge\n1;13/02/2019;{text}\n"
        )
        assert [row[0] for row in rows] == ["reading"]
        assert rows[0][4] == ""

    def test_each_date_may_have_its_own_format(self, hospital: Hospital) -> None:
        assert hospital.readings(signal=SIGNAL + "1;14/02/2019;1;x;1\n2;2019-02-15;1;x;2\n") == [
            "1 2019-02-14 1 x 1.0",
            "2 2019-02-15 1 x 2.0",
        ]

    def test_a_month_first_date_is_an_error(self, hospital: Hospital) -> None:
        hospital.write(signal=SIGNAL + "1;14/02/2019;1;x;1\n\n1;02/15/2019;1;x;2\n")
        with pytest.raises(InputError) as error:
            hospital.merge()
        message = str(error.value)
        assert "signal.csv line 4: day '02/15/2019'" in message
        assert "DATE_FORMAT" in message
        assert "\n" not in message
        assert sorted(path.name for path in hospital.folder.iterdir()) == [
            "admission.csv", "age.csv", "signal.csv"
        ]  # fmt: skip

    @pytest.mark.parametrize("date_format", ["mm/dd/YYYY", "%m/%d/%Y", "MM-DD-YYYY"])
    def test_month_first_dates_are_read_if_date_format_is_set(
        self, hospital: Hospital, date_format: str
    ) -> None:
        rows = hospital.readings(
            date_format,
            admission="pat_id;date_admission;date_discharge\n1;02/03/2019;\n",
            signal=SIGNAL + "1;02/04/2019;1;x;1\n1;02/15/2019;1;x;2\n1;15/02/2019;1;x;3\n",
        )
        assert rows == ["1 2019-02-04 1 x 1.0", "1 2019-02-15 1 x 2.0"]
        assert [row[1:5] for row in hospital.rejected() if row[0] == "signal.csv"] == [
            (4, "day", "15/02/2019", "not a date in the order of DATE_FORMAT")
        ]

    def test_with_date_format_a_date_in_another_order_rejects_only_its_row(
        self, hospital: Hospital
    ) -> None:
        body = "1;14/02/2019;1;x;1\n1;02/15/2019;1;x;2\n"
        assert hospital.readings("dd/mm/YYYY", signal=SIGNAL + body) == ["1 2019-02-14 1 x 1.0"]
        assert len(hospital.rejected()) == 1

    def test_other_values_at_the_same_time_are_used_and_reported(
        self, hospital: Hospital, caplog: pytest.LogCaptureFixture
    ) -> None:
        rows = [
            *("1;14/02/2019;1;x;1", "2;14/02/2019;1;x;1", "1;14/02/2019;2;x;1"),
            *("1;14/02/2019;1;y;1", "1;14/02/2019;1;x;1", "1;14/02/2019;1;y;1.0"),
        ]
        assert len(hospital.readings(signal=SIGNAL + "\n".join(rows) + "\n")) == 5
        assert "another reading" not in caplog.text
        rows += ["2;14/02/2019;1;x;3", "1;14/02/2019;1;x;2", "1;14/02/2019;01;x;2"]
        found = hospital.readings(signal=SIGNAL + "\n".join(rows) + "\n")
        assert [row for row in found if row.startswith("2 ")] == [
            *("2 2019-02-14 1 x 1.0", "2 2019-02-14 1 x 3.0")
        ]
        [record] = [one for one in caplog.records if "another reading" in one.msg]
        assert record.args == ("signal.csv", 2, 8)

    def test_a_synonym_keeps_its_name_and_causes_a_warning(
        self, hospital: Hospital, caplog: pytest.LogCaptureFixture
    ) -> None:
        body = "1;14/02/2019;1;HR;80\n1;14/02/2019;1;heart_rate;81\n1;14/02/2019;1;New;1\n"
        found = hospital.readings(signal=f"{SIGNAL}{body}1;14/02/2010;1;Temp;37\n")
        assert [row.split()[3] for row in found] == ["HR", "heart_rate", "New"]
        [record] = [one for one in caplog.records if "under this name" in one.msg]
        assert record.args == ("signal.csv", "HR", "heart_rate")

    def test_dropped_cells_are_not_reported_as_rejected_rows(
        self, hospital: Hospital, caplog: pytest.LogCaptureFixture
    ) -> None:
        rows = "1;13/02/2019;12/02/2019\n2;13/02/2019;\n2;13/02/2019;20/02/2019\n"
        hospital.merge(admission=f"pat_id;date_admission;date_discharge\n{rows}")
        told = [one.args for one in caplog.records if "first in line" in one.msg]
        dropped = [args for args in told if "dropped" in str(args)]
        assert [(args[1], args[3], args[4]) for args in dropped] == [  # type: ignore[index]
            (1, "discharge before admission", 2)
        ]
        assert [args[3] for args in told if args not in dropped] == [  # type: ignore[index]
            "another row of this stay has a discharge"
        ]

    def test_an_ambiguous_order_causes_a_warning(
        self, hospital: Hospital, caplog: pytest.LogCaptureFixture
    ) -> None:
        admission = "pat_id;date_admission;date_discharge\n1;03/02/2019;\n"
        hospital.merge(admission=admission)
        assert hospital.messages()[0][3] == "2019-02-03"
        assert "admission.csv: no date shows whether 03/02/2019 is" in caplog.text
        assert "DATE_FORMAT" in caplog.text
        caplog.clear()
        hospital.merge("dd/mm/YYYY")
        assert "DATE_FORMAT" not in caplog.text
        hospital.merge(admission=admission + "2;13/02/2019;\n")
        assert "no date shows" not in caplog.text

    @pytest.mark.parametrize("text", ["american", "dd/dd/YYYY", "YYYY/dd/mm", "ddmmYYYY", "%d"])
    def test_an_invalid_date_format_is_an_error(self, hospital: Hospital, text: str) -> None:
        with pytest.raises(SettingError, match=f"DATE_FORMAT={text}: expected"):
            hospital.merge(text)


class TestPatients:
    def test_top_coded_ages_are_set_to_their_median(
        self, hospital: Hospital, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        texts = ["> 89", ">89", "300", "305.2", "90+", "89"]
        rows = hospital.merge(
            age="pat_id;age\n" + "".join(f"{n};{text}\n" for n, text in enumerate(texts)),
            admission="pat_id;date_admission;date_discharge\n"
            + "".join(f"{n};2019-02-13;2019-02-14\n" for n in range(len(texts))),
            signal=SIGNAL,
        )
        assert [row[2] for row in rows] == ["91.4"] * 5 + ["89.0"]
        assert "age.csv: 5 top-coded ages (above 89) are set to 91.4" in caplog.text

    @pytest.mark.parametrize("text", ["-1", "999", "150", "old", "", "NaN"])
    def test_patients_without_an_age_are_kept(
        self, hospital: Hospital, caplog: pytest.LogCaptureFixture, text: str
    ) -> None:
        rows = hospital.merge(age=f"pat_id;age\n2;60\n1;{text}\n")
        assert rows[0][:3] == ["reading", "1", ""]
        assert hospital.rejected()[0][:4] == ("age.csv", 3, "age", text)
        assert "age.csv: no age for 1 patients" in caplog.text

    def test_ages_that_contradict_each_other_are_rejected(self, hospital: Hospital) -> None:
        rows = hospital.merge(age="pat_id;age\n1;50\n1;51\n1;50\n2;60\n2;60\n")
        assert rows[0][2] == "50.0"
        assert [row[1:4] for row in hospital.rejected()] == [(3, "age", "51.0")]
        assert hospital.index()["duplicates"] == {"age.csv": 2, "admission.csv": 0, "signal.csv": 0}
        rows = hospital.merge(age="pat_id;age\n1;20\n1;81\n2;60\n")
        assert rows[0][2] == ""
        assert [row[1:4] for row in hospital.rejected()] == [
            (2, "age", "20.0"), (3, "age", "81.0")
        ]  # fmt: skip

    def test_ages_and_readings_without_an_admission_are_rejected(self, hospital: Hospital) -> None:
        hospital.merge(age=AGE + "3;70\n", signal=SIGNAL + ONE + "4;2019-02-15;7;x;1\n")
        assert hospital.rejected() == [
            ("age.csv", 4, "pat_id", "3", "no admission of this patient"),
            ("signal.csv", 3, "pat_id", "4", "no admission of this patient"),
        ]

    def test_a_discharge_before_the_admission_is_rejected(self, hospital: Hospital) -> None:
        hospital.merge(admission=ADMISSION + "1;25/03/2019;24/03/2019\n3;13/02/2019;13/02/2019\n")
        assert hospital.rejected() == [
            ("admission.csv", 4, "date_discharge", "2019-03-24", "discharge before admission")
        ]

    @pytest.mark.parametrize(
        ("discharges", "kept", "refused"),
        [
            (["", "2019-02-20"], "2019-02-20", [(2, "")]),
            (["2019-02-20", ""], "2019-02-20", [(3, "")]),
            (["2019-02-20", "2019-02-22"], "2019-02-22", [(2, "2019-02-20")]),
            (["2019-02-22", "2019-02-20"], "2019-02-22", [(3, "2019-02-20")]),
            (["2019-02-20", "2019-02-20"], "2019-02-20", []),
        ],
    )
    def test_the_latest_discharge_of_an_admission_counts(
        self, hospital: Hospital, discharges: list[str], kept: str, refused: list[tuple[int, str]]
    ) -> None:
        rows = hospital.merge(
            admission="pat_id;date_admission;date_discharge\n"
            + "".join(f"1;2019-02-13;{day}\n" for day in discharges)
            + "2;2019-02-13;\n"
        )
        assert [row[0] for row in rows] == ["reading", "discharge"]
        assert rows[0][4] == kept
        assert [(row[1], row[3]) for row in hospital.rejected()] == refused


class TestDuplicates:
    def test_duplicate_lines_count_once(self, hospital: Hospital) -> None:
        other = "1;2019-02-15;7;heart_rate;81\n"
        rows = hospital.readings(signal=SIGNAL + ONE + other + ONE + ONE)
        assert rows == ["1 2019-02-15 7 heart_rate 80.0", "1 2019-02-15 7 heart_rate 81.0"]
        assert hospital.index()["duplicates"]["signal.csv"] == 2

    def test_equal_readings_with_different_row_numbers_are_two_readings(
        self, hospital: Hospital
    ) -> None:
        rows = hospital.readings(
            signal=f";{SIGNAL}0;{ONE}1;{ONE}1;{ONE}",
        )
        assert len(rows) == 2

    def test_records_that_differ_after_a_line_break_are_two_records(
        self, hospital: Hospital
    ) -> None:
        rows = hospital.readings(
            signal="pat_id;day;hour;parameter;value;note\n"
            + "".join(f'1;2019-02-15;7;x;1;"seen\nby {who}"\n' for who in ("A", "B", "A"))
        )
        assert len(rows) == 2


class TestFahrenheit:
    @staticmethod
    def signal(*series: tuple[int, list[str]], name: str = "temperature") -> str:
        return SIGNAL + "".join(
            f"{pat_id};2019-02-15;{hour};{name};{text}\n"
            for pat_id, texts in series
            for hour, text in enumerate(texts)
        )

    def values(self, hospital: Hospital, signal: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in hospital.readings(signal=signal):
            found.setdefault(row.split()[0], []).append(row.split()[-1])
        return found

    def test_a_series_in_fahrenheit_is_converted_and_one_in_celsius_is_not(
        self, hospital: Hospital, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        signal = self.signal((1, ["98.6", "104", "99.5", "0", "999"]), (2, ["37", "38.5", "36"]))
        assert self.values(hospital, signal) == {
            "1": ["37.0", "40.0", "37.5", "0.0", "999.0"],
            "2": ["37.0", "38.5", "36.0"],
        }
        assert "temperature: converted from °F to °C (readings: 3, stays: 1)" in caplog.text

    def test_a_short_file_in_fahrenheit_is_converted(self, hospital: Hospital) -> None:
        assert self.values(hospital, self.signal((1, ["98.6"]), (2, ["100.4"]))) == {
            "1": ["37.0"],
            "2": ["38.0"],
        }

    def test_a_series_with_both_units_is_not_converted(
        self, hospital: Hospital, caplog: pytest.LogCaptureFixture
    ) -> None:
        signal = self.signal((1, ["98.6", "99", "99", "37"]), (2, ["37"]))
        assert self.values(hospital, signal)["1"] == ["98.6", "99.0", "99.0", "37.0"]
        assert "temperature: values that may be in °F are not converted" in caplog.text

    def test_a_short_series_in_an_ambiguous_unit_is_rejected(self, hospital: Hospital) -> None:
        signal = self.signal((1, ["98.6", "99"]), (2, ["37"]))
        assert self.values(hospital, signal) == {"2": ["37.0"]}
        assert [row[:4] for row in hospital.rejected()] == [
            ("signal.csv", 2, "value", "98.6"), ("signal.csv", 3, "value", "99.0")
        ]  # fmt: skip

    def test_other_parameters_are_not_converted(self, hospital: Hospital) -> None:
        signal = self.signal((1, ["98.6", "99", "99"]), name="heart_rate")
        assert self.values(hospital, signal) == {"1": ["98.6", "99.0", "99.0"]}


class TestFiles:
    def test_derived_files_go_to_the_configured_folder(
        self, hospital: Hospital, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        derived = tmp_path_factory.mktemp("derived")
        assert prepare(hospital.folder, derived, None)
        names = sorted(path.name for path in derived.iterdir())
        assert names == ["all_data.csv", "all_data.json", "rejected.csv"]
        assert len(list(hospital.folder.iterdir())) == 3

    def test_the_merge_runs_again_only_after_a_change(self, hospital: Hospital) -> None:
        first = hospital.merge()
        before = (hospital.folder / "all_data.csv").stat().st_ino
        assert not prepare(hospital.folder, hospital.folder, None)
        assert (hospital.folder / "all_data.csv").stat().st_ino == before
        os.utime(hospital.folder / "signal.csv")  # a new modification time alone changes nothing
        assert not prepare(hospital.folder, hospital.folder, None)
        assert prepare(hospital.folder, hospital.folder, "dd/mm/YYYY")
        hospital.write(age=AGE.replace("50", "51"))  # the new file has the same size
        assert prepare(hospital.folder, hospital.folder, "dd/mm/YYYY")
        assert [row[2] for row in hospital.messages()] != [row[2] for row in first]
        for name in ("all_data.csv", "all_data.json", "rejected.csv"):
            (hospital.folder / name).unlink()
            assert prepare(hospital.folder, hospital.folder, "dd/mm/YYYY")

    @pytest.mark.parametrize("index", ["", "[]", "{}", '{"bytes": 5', "null"])
    def test_an_invalid_index_is_rebuilt(self, hospital: Hospital, index: str) -> None:
        rows = hospital.merge()
        (hospital.folder / "all_data.json").write_text(index)
        assert prepare(hospital.folder, hospital.folder, None)
        assert hospital.messages() == rows

    def test_the_same_input_gives_the_same_bytes(self, hospital: Hospital) -> None:
        hospital.merge(signal=SIGNAL + ONE + ONE + "1;2019-02-15;7;x;?\n")
        names = ("all_data.csv", "all_data.json", "rejected.csv")
        first = [(hospital.folder / name).read_bytes() for name in names]
        (hospital.folder / "all_data.json").unlink()
        hospital.merge()
        assert [(hospital.folder / name).read_bytes() for name in names] == first

    @pytest.mark.parametrize("name", ["age", "admission", "signal"])
    def test_a_missing_file_is_an_error(self, hospital: Hospital, name: str) -> None:
        (hospital.folder / f"{name}.csv").unlink()
        with pytest.raises(InputError, match=rf"cannot read .*{name}\.csv: No such file"):
            hospital.merge()

    @pytest.mark.parametrize("content", ["", "\n \n\n"])
    def test_an_empty_file_is_an_error(self, hospital: Hospital, content: str) -> None:
        with pytest.raises(InputError, match=r"age\.csv is empty"):
            hospital.merge(age=content)

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ("patient;age", r"age\.csv has no column pat_id; its columns are 'patient', 'age'"),
            ("a;b;c", r"age\.csv has no column pat_id, age; its columns are 'a', 'b', 'c'"),
            ("pat_id;age;Age", r"age\.csv has 2 columns named age"),
            ("PK\x03\x04\0\0\0", "is a zip archive"),
        ],
    )
    def test_an_invalid_header_is_an_error(
        self, hospital: Hospital, header: str, message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            hospital.merge(age=header + "\n1;2\n")

    def test_files_without_rows_give_an_empty_stream(self, hospital: Hospital) -> None:
        assert (
            hospital.merge(
                age="pat_id;age", admission=ADMISSION.splitlines()[0], signal=SIGNAL + ONE
            )
            == []
        )
        assert hospital.index()["offsets"] == []
        assert hospital.rejected()[0][4] == "no admission of this patient"


class TestProgram:
    def run(
        self, patient_data: Path, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hospital.preprocessing", *arguments],
            env={**os.environ, "PATIENT_DATA": str(patient_data), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_preprocessing_prints_the_folder_and_logs_a_summary(
        self, hospital: Hospital, tmp_path: Path
    ) -> None:
        hospital.write(signal=SIGNAL + ONE + ONE + "1;2019-02-15;7;x;ERR\n1;2019-02-15;7;y;!\n")
        done = self.run(tmp_path)
        assert (done.returncode, done.stdout) == (0, f"{tmp_path}\n")
        assert "signal.csv: 4 rows: 1 used, 2 rejected, 1 duplicates" in done.stderr
        assert "signal.csv: 2 rejected: not a number (first in line 4)" in done.stderr

    def test_an_invalid_input_is_reported_in_one_line(
        self, hospital: Hospital, tmp_path: Path
    ) -> None:
        missing = tmp_path / "signal.csv"
        missing.unlink()
        done = self.run(tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"hospital: cannot read {missing}: No such file or directory\n"

    @pytest.mark.parametrize(
        ("environment", "message"),
        [
            ({"DATE_FORMAT": "american"}, "hospital: DATE_FORMAT=american: expected"),
            ({"LOG_LEVEL": "loud"}, "hospital: LOG_LEVEL=loud: "),
        ],
    )
    def test_an_invalid_setting_is_reported_in_one_line(
        self, hospital: Hospital, tmp_path: Path, environment: dict[str, str], message: str
    ) -> None:
        done = self.run(tmp_path, **environment)
        assert done.returncode == 1
        assert done.stderr.startswith(message)
        assert done.stderr.count("\n") == 1

    def test_help_lists_the_settings(self, tmp_path: Path) -> None:
        assert self.run(tmp_path, "--what").returncode == 2
        shown = self.run(tmp_path, "--help")
        assert shown.returncode == 0
        assert all(name in shown.stdout for name in ("PATIENT_DATA", "DERIVED_DATA", "DATE_FORMAT"))


def test_the_merge_equals_simple_joins_in_pandas(hospital: Hospital) -> None:
    """All cells are valid, so only readings and ages without a stay are rejected."""
    first = date(2019, 1, 1)
    stays = [(pat, first + timedelta(days=(pat * 37 + visit * 40) % 300), (pat * 7) % 9)
             for pat in range(1, 60) for visit in range(1 + pat % 3)]  # fmt: skip
    stays = [stay for n, stay in enumerate(stays) if n % 11]  # some patients have no stay
    signal = [
        (pat, (start + timedelta(days=n % (length + 2))).isoformat(), (n * 5 + pat) % 24,
         ["blood_pressure", "temperature", "heart_rate"][n % 3], 45 + (n * pat) % 17 / 3)
        for pat, start, length in stays for n in range(60)
    ]  # fmt: skip
    signal.sort(key=lambda row: (row[4], row[0]))
    ages = [(pat, 40 + pat / 3) for pat in range(1, 60) if pat % 5]
    admitted = [
        (pat, f"{start:%d/%m/%Y}", f"{start + timedelta(days=length):%d/%m/%Y}" if pat % 4 else "")
        for pat, start, length in stays
    ]
    tables = {
        "age": pd.DataFrame(ages, columns=["pat_id", "age"]),
        "admission": pd.DataFrame(admitted, columns=["pat_id", "date_admission", "date_discharge"]),
        "signal": pd.DataFrame(signal, columns=["pat_id", "day", "hour", "parameter", "value"]),
    }
    for name, table in tables.items():
        table.to_csv(hospital.folder / f"{name}.csv", sep=";")
    hospital.merge()
    found = pd.read_csv(hospital.folder / "all_data.csv", sep=";")

    admission = tables["admission"]
    for column in ("date_admission", "date_discharge"):
        admission[column] = pd.to_datetime(admission[column], format="%d/%m/%Y", errors="coerce")
    joined = tables["signal"].reset_index().merge(admission, on="pat_id")
    joined["day"] = pd.to_datetime(joined["day"])
    not_over = joined["date_discharge"].isna() | (joined["day"] <= joined["date_discharge"])
    joined = joined[(joined["day"] >= joined["date_admission"]) & not_over]
    joined = joined.sort_values("date_admission").drop_duplicates("index", keep="last")
    joined = joined.merge(tables["age"], on="pat_id", how="left")
    joined = joined.sort_values(["day", "hour", "index"])

    readings = found[found["type"] == "reading"]
    assert 1000 < len(readings) == len(joined) < len(signal)
    assert len(hospital.rejected()) == len(signal) - len(joined) + sum(
        pat not in {stay[0] for stay in stays} for pat, _ in ages
    )
    for column in ("pat_id", "hour", "parameter", "value"):
        assert readings[column].tolist() == joined[column].tolist()
    assert readings["age"].fillna(-1).tolist() == joined["age"].fillna(-1).tolist()
    for column in ("day", "date_admission", "date_discharge"):
        there = pd.to_datetime(readings[column]).dt.strftime("%Y-%m-%d").fillna("")
        assert there.tolist() == joined[column].dt.strftime("%Y-%m-%d").fillna("").tolist()
