"""Tests the importers on a few lines in each published format."""

import csv
import gzip
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from training.config import Data
from training.importers import ImportFailure, Report, convert
from training.stream import read as read_stream

Rows = list[dict[str, str]]


def read(folder: Path, name: str) -> Rows:
    with (folder / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter=";"))


def signals(folder: Path) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for row in read(folder, "signal.csv")]


def ages(folder: Path) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for row in read(folder, "age.csv")]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


class TestPhysioNet2012:
    # RecordID 132539 is dated by 132539 * 7919 % 365 = 226: the 15th of August.
    STAY = """Time,Parameter,Value
00:00,RecordID,132539
00:00,Age,90
00:00,Gender,0
00:00,Height,-1
00:00,ICUType,4
00:07,NISysABP,147
00:07,SysABP,150
00:07,GCS,15
00:37,NISysABP,139
23:59,Temp,35.1
24:00,HR,73
30:10,,5
30:20,SaO2,97
30:30,PaO2,-1
30:40,HR,many
48:00,RespRate,19
"""
    OUTCOMES = """RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death
132539,6,-1,5,3,1
132540,16,8,-1,-1,0
"""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        source = tmp_path / "challenge"
        write(source / "Outcomes-a.txt", self.OUTCOMES)
        write(source / "set-a" / "132539.txt", self.STAY)
        write(
            source / "set-a" / "132540.txt",
            "Time,Parameter,Value\n00:00,RecordID,132540\n00:00,Age,76\n01:00,pH,7.4\n",
        )
        write(source / "set-a" / "999.txt", "Time,Parameter,Value\n00:00,RecordID,999\n")
        return source

    def test_readings_get_their_names_and_times_and_are_cleaned(
        self, source: Path, tmp_path: Path
    ) -> None:
        report = convert("physionet2012", source, tmp_path)
        assert signals(tmp_path) == [
            ("132539", "2019-08-15", "00:00", "gender", "0.0"),
            ("132539", "2019-08-15", "00:00", "icutype", "4.0"),
            ("132539", "2019-08-15", "00:07", "blood_pressure", "150.0"),
            ("132539", "2019-08-15", "00:07", "gcs", "15.0"),
            ("132539", "2019-08-15", "00:37", "blood_pressure", "139.0"),
            ("132539", "2019-08-15", "23:59", "temperature", "35.1"),
            ("132539", "2019-08-16", "00:00", "heart_rate", "73.0"),
            ("132539", "2019-08-16", "06:20", "spo2", "97.0"),
            ("132539", "2019-08-17", "00:00", "respiration_rate", "19.0"),
            ("132540", "2019-04-26", "01:00", "ph", "7.4"),
        ]
        assert dict(report.dropped) == {
            "-1, which means missing in the source": 2,
            "cuff pressure in the same minute as the invasive one": 1,
            "line without a parameter name": 1,
            "line that is not hh:mm,parameter,number": 1,
            "stay without a line in the Outcomes files": 1,
        }

    def test_stays_and_outcomes_are_converted(self, source: Path, tmp_path: Path) -> None:
        convert("physionet2012", source, tmp_path)
        assert [(pat_id, age) for pat_id, _, age in ages(tmp_path)] == [
            ("132539", "91.4"),
            ("132540", "76.0"),
        ]
        assert [row["date_discharge"] for row in read(tmp_path, "admission.csv")] == [
            "2019-08-20",
            "",
        ]
        first, second = read(tmp_path, "outcome.csv")
        assert first == {
            "pat_id": "132539",
            "date_admission": "2019-08-15",
            "died_in_hospital": "1",
            "died_after_hours": "72",
            "unit": "surgical",
            "sex": "female",
            "cohort": "set-a",
            "saps1": "6",
            "sofa": "",
        }
        assert (second["died_in_hospital"], second["died_after_hours"]) == ("0", "")

    def test_the_report_is_kept_beside_the_files(self, source: Path, tmp_path: Path) -> None:
        convert("physionet2012", source, tmp_path)
        account = json.loads((tmp_path / "import.json").read_text())
        assert (account["stays"], account["readings"]) == (2, 10)
        assert account["converted"]["hour 48:00, written as hour 0 of the third day"] == 1

    @pytest.mark.parametrize("kind", ["tar.xz", "tar.gz", "zip"])
    def test_archives_give_the_same_files_as_folders(
        self, kind: str, source: Path, tmp_path: Path
    ) -> None:
        convert("physionet2012", source, tmp_path / "folder")
        packed = tmp_path / "packed"
        packed.mkdir()
        (source / "Outcomes-a.txt").rename(packed / "Outcomes-a.txt")
        stays = sorted((source / "set-a").iterdir())
        if kind == "zip":
            with zipfile.ZipFile(packed / "set-a.zip", "w") as archive:
                for path in stays:
                    archive.write(path, f"set-a/{path.name}")
        else:
            with tarfile.open(packed / f"set-a.{kind}", f"w:{kind[4:]}") as tar:  # type: ignore[call-overload]
                tar.add(source / "set-a", "set-a", recursive=False)
                for path in stays:
                    tar.add(path, f"set-a/{path.name}")
        convert("physionet2012", packed, tmp_path / "archive")
        for name in ("age.csv", "admission.csv", "signal.csv", "outcome.csv", "import.json"):
            assert (tmp_path / "archive" / name).read_bytes() == (
                tmp_path / "folder" / name
            ).read_bytes()

    def test_macos_files_and_duplicate_sets_are_ignored(self, source: Path, tmp_path: Path) -> None:
        convert("physionet2012", source, tmp_path / "once")
        with zipfile.ZipFile(source / "set-a.zip", "w") as archive:
            for path in sorted((source / "set-a").iterdir()):
                archive.write(path, f"set-a/{path.name}")
                archive.writestr(f"__MACOSX/set-a/._{path.name}", b"\x00\x05\x16\x07")
        write(source / "set-a" / "._132539.txt", "\x00\x05")
        (source / "set-a" / "132541.txt").mkdir()
        convert("physionet2012", source, tmp_path / "twice")
        for name in ("signal.csv", "outcome.csv"):
            once, twice = ((tmp_path / run / name).read_bytes() for run in ("once", "twice"))
            assert once == twice

    def test_a_huge_file_in_an_archive_is_rejected(self, source: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(source / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("set-a/132542.txt", b"0" * 20_000_000)
        with pytest.raises(ImportFailure, match=r"bomb\.zip/set-a/132542\.txt: larger than"):
            convert("physionet2012", source, tmp_path / "out")


class TestPhysioNet2019:
    HEADER = (
        "HR|O2Sat|Temp|SBP|MAP|DBP|Resp|EtCO2|Lactate"
        "|Age|Gender|Unit1|Unit2|HospAdmTime|ICULOS|SepsisLabel"
    )
    # Patient 100001 is dated by 100001 * 7919 % 365 = 269: the 27th of September.
    SEPTIC = f"""{HEADER}
80|97.0|NaN|120.0|80|NaN|18|NaN|NaN|100|1|1|0|-0.03|1|0
NaN|NaN|36.8|NaN|NaN|NaN|NaN|NaN|2.1|100|1|1|0|-0.03|2|0
90|NaN|NaN|NaN|NaN|NaN|NaN|NaN|NaN|100|1|1|0|-0.03|26|1
"""

    def test_sepsis_from_the_first_row_on_is_reported(self, tmp_path: Path) -> None:
        early = self.SEPTIC.replace("-0.03|1|0", "-0.03|1|1").replace("|2|0", "|2|1")
        write(tmp_path / "in" / "p100001.psv", early)
        report = convert("physionet2019", tmp_path / "in", tmp_path)
        assert read(tmp_path, "outcome.csv")[0]["sepsis_after_hours"] == "6"
        assert (
            report.converted[
                "label set from the first row on: the onset is at most six hours later"
            ]
            == 1
        )

    def test_hours_and_names_and_the_time_of_onset_are_converted(self, tmp_path: Path) -> None:
        write(tmp_path / "in" / "training_setB" / "p100001.psv", self.SEPTIC)
        report = convert("physionet2019", tmp_path / "in", tmp_path)
        assert signals(tmp_path) == [
            ("100001", "2019-09-27", "00:00", "heart_rate", "80.0"),
            ("100001", "2019-09-27", "00:00", "spo2", "97.0"),
            ("100001", "2019-09-27", "00:00", "blood_pressure", "120.0"),
            ("100001", "2019-09-27", "00:00", "blood_pressure_mean", "80.0"),
            ("100001", "2019-09-27", "00:00", "respiration_rate", "18.0"),
            ("100001", "2019-09-27", "00:00", "gender", "1.0"),
            ("100001", "2019-09-27", "00:00", "icu_hours", "1.0"),
            ("100001", "2019-09-27", "01:00", "temperature", "36.8"),
            ("100001", "2019-09-27", "01:00", "lactate", "2.1"),
            ("100001", "2019-09-27", "01:00", "icu_hours", "2.0"),
            ("100001", "2019-09-28", "01:00", "heart_rate", "90.0"),
            ("100001", "2019-09-28", "01:00", "icu_hours", "26.0"),
        ]
        assert ages(tmp_path) == [("100001", "2019-09-27", "91.4")]
        (outcome,) = read(tmp_path, "outcome.csv")
        # The label is set from hour 25 on. The challenge sets it six hours before the onset.
        assert (outcome["sepsis"], outcome["sepsis_after_hours"]) == ("1", "31")
        assert (outcome["unit"], outcome["cohort"]) == ("medical", "training_setB")
        assert report.dropped["NaN, which means missing in the source"] == 4 + 7 + 8

    def test_a_stay_without_sepsis_has_no_time_of_onset(self, tmp_path: Path) -> None:
        row = "80|97|NaN|120|80|NaN|18|NaN|NaN|50|0|NaN|NaN|-0.03|1|0"
        write(tmp_path / "in" / "p000007.psv", f"{self.HEADER}\n{row}\n")
        convert("physionet2019", tmp_path / "in", tmp_path)
        (outcome,) = read(tmp_path, "outcome.csv")
        assert (outcome["sepsis"], outcome["sepsis_after_hours"]) == ("0", "")
        assert (outcome["pat_id"], outcome["unit"]) == ("7", "unknown")


class TestMimic:
    D_ITEMS = '"ROW_ID","ITEMID","LABEL"\n1,51,"Arterial BP [Systolic]"\n2,678,"Temperature F"\n'

    def version_3(self, source: Path) -> None:
        write(
            source / "PATIENTS.csv",
            '"ROW_ID","SUBJECT_ID","GENDER","DOB","DOD","DOD_HOSP","DOD_SSN","EXPIRE_FLAG"\n'
            '1,10,"F","2094-03-05 00:00:00","2164-10-24 00:00:00",,,1\n'
            '2,11,"M","1864-01-01 00:00:00",,,,0\n',
        )
        write(
            source / "ADMISSIONS.csv",
            '"ROW_ID","SUBJECT_ID","HADM_ID","DEATHTIME","HOSPITAL_EXPIRE_FLAG"\n'
            '1,10,100,"2164-10-24 11:20:00",1\n2,11,101,,0\n',
        )
        write(
            source / "ICUSTAYS.csv",
            '"ROW_ID","SUBJECT_ID","HADM_ID","ICUSTAY_ID","DBSOURCE","FIRST_CAREUNIT",'
            '"LAST_CAREUNIT","FIRST_WARDID","LAST_WARDID","INTIME","OUTTIME","LOS"\n'
            '1,10,100,1000,"carevue","MICU","MICU",1,1,"2164-10-23 21:09:00",'
            '"2164-10-24 12:00:00",0.6\n'
            '2,11,101,1001,"carevue","CCU","CCU",1,1,"2164-01-01 10:00:00",,\n'
            '3,11,101,1002,"carevue","CCU","CCU",1,1,"2164-01-01 12:00:00",,\n'
            '4,11,101,1003,"carevue","CCU","CCU",1,1,,,\n',
        )
        write(source / "D_ITEMS.csv", self.D_ITEMS)
        header = (
            '"ROW_ID","SUBJECT_ID","HADM_ID","ICUSTAY_ID","ITEMID","CHARTTIME","STORETIME","CGID",'
            '"VALUE","VALUENUM","VALUEUOM","WARNING","ERROR","RESULTSTATUS","STOPPED"\n'
        )
        events = [
            # columns: stay, item, time, number, error; the rows are in no order
            (1000, 455, "2164-10-23 22:00:00", "118", ""),
            (1000, 51, "2164-10-23 22:00:00", "120", ""),
            (1000, 6701, "2164-10-23 22:00:00", "117", ""),
            (1000, 6701, "2164-10-23 22:10:00", "116", ""),
            (1000, 442, "2164-10-23 22:10:00", "115", ""),
            (1000, 618, "2164-10-23 22:10:00", "18", ""),
            (1000, 615, "2164-10-23 22:10:00", "19", ""),
            (1000, 615, "2164-10-23 22:20:00", "20", ""),
            (1000, 211, "2164-10-23 21:30:00", "88", "0"),
            (1000, 455, "2164-10-23 21:40:00", "119", ""),
            (1000, 678, "2164-10-24 01:15:00", "98.6", ""),
            (1000, 211, "2164-10-23 21:00:00", "90", ""),
            (1000, 211, "2164-10-24 12:01:00", "90", ""),
            (1000, 211, "2164-10-23 23:00:00", "90", "1"),
            (1000, 211, "2164-10-23 23:10:00", "", ""),
            (1000, 8368, "2164-10-23 23:10:00", "60", ""),
            (1002, 211, "2164-01-01 12:30:00", "70", ""),
            ("", 211, "2164-01-01 12:30:00", "70", ""),
            (1001, 646, "2164-01-03 00:05:00", "95", ""),
        ]
        lines = "".join(
            f'1,10,100,{stay},{item},"{at}","{at}",1,"{number}",{number},"",,{error},"",""\n'
            for stay, item, at, number, error in events
        )
        with gzip.open(source / "CHARTEVENTS.csv.gz", "wt") as file:
            file.write(header + lines)

    def test_mimic_iii_is_converted(self, tmp_path: Path) -> None:
        source = tmp_path / "mimiciii"
        source.mkdir()
        self.version_3(source)
        report = convert("mimic", source, tmp_path)
        assert sorted(signals(tmp_path)) == [
            ("10", "2164-10-23", "21:00", "heart_rate", "90.0"),
            ("10", "2164-10-23", "21:30", "heart_rate", "88.0"),
            ("10", "2164-10-23", "21:40", "blood_pressure", "119.0"),
            ("10", "2164-10-23", "22:00", "blood_pressure", "120.0"),
            ("10", "2164-10-23", "22:10", "blood_pressure", "116.0"),
            ("10", "2164-10-23", "22:10", "respiration_rate", "18.0"),
            ("10", "2164-10-23", "22:20", "respiration_rate", "20.0"),
            ("10", "2164-10-24", "01:15", "temperature", "37.0"),
            ("11", "2164-01-03", "00:05", "spo2", "95.0"),
        ]
        of_10 = [row[:3] for row in signals(tmp_path) if row[0] == "10"]
        assert of_10 == sorted(of_10)  # events came in no order
        assert dict(report.dropped) == {
            "event outside its stay": 1,
            "blood_pressure in the same minute from a better source": 3,
            "respiration_rate in the same minute from a better source": 1,
            "event that the source marks as an error": 1,
            "event without a number": 1,
            "event of an item that is not imported": 1,
            "event of a stay that is not imported": 1,
            "event without a stay": 1,
            "second stay of a patient that began on the same day": 1,
            "stay without a start or without a patient": 1,
        }
        assert report.converted["temperature in °F, written in °C"] == 1
        assert "itemid 678 (Temperature F) is read as temperature" in report.notes
        # The first patient was born 70 years and some months before. MIMIC has moved the birth of
        # the second patient by 300 years.
        assert ages(tmp_path) == [("10", "2164-10-23", "70.0"), ("11", "2164-01-01", "91.4")]
        died, alive = read(tmp_path, "outcome.csv")
        # The death is 35 hours and 20 minutes after the midnight of the day of admission.
        assert (died["died_in_hospital"], died["died_in_icu"], died["died_after_hours"]) == (
            *("1", "1", "36"),
        )
        assert (alive["died_in_hospital"], alive["died_in_icu"]) == ("0", "0")
        assert died["unit"] == "MICU"

    def version_4(self, source: Path) -> None:
        write(
            source / "hosp" / "patients.csv",
            "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"
            "20,F,60,2180,2014 - 2016,2183-02-01\n21,M,91,2150,2008 - 2010,\n",
        )
        write(
            source / "icu" / "icustays.csv",
            "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los\n"
            "20,200,2000,MICU,MICU,2183-01-01 08:00:00,2183-01-03 08:00:00,2\n"
            "21,201,2001,CVICU,CVICU,2150-06-01 08:00:00,2150-06-02 08:00:00,1\n",
        )
        write(source / "icu" / "d_items.csv", "itemid,label\n223761,Temperature Fahrenheit\n")
        write(
            source / "icu" / "chartevents.csv",
            "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,"
            "valueuom,warning\n"
            "20,200,2000,1,2183-01-01 09:00:00,2183-01-01 09:01:00,223761,99.5,99.5,°F,0\n"
            "20,200,2000,1,2183-01-01 09:00:00,2183-01-01 09:01:00,223762,37.4,37.4,°C,0\n"
            "20,200,2000,1,2183-01-01 09:30:20,2183-01-01 09:31:00,220179,121,121,mmHg,0\n"
            "20,200,2000,1,2183-01-01 09:30:40,2183-01-01 09:31:00,220050,124,124,mmHg,0\n"
            "21,201,2001,1,2150-06-01 10:00:00,2150-06-01 10:01:00,220277,98,98,%,0\n",
        )

    def test_mimic_iv_is_converted(self, tmp_path: Path) -> None:
        self.version_4(tmp_path / "mimiciv")
        report = convert("mimic", tmp_path / "mimiciv", tmp_path)
        assert sorted(signals(tmp_path)) == [
            ("20", "2183-01-01", "09:00", "temperature", "37.4"),
            ("20", "2183-01-01", "09:00", "temperature", "37.5"),
            ("20", "2183-01-01", "09:30", "blood_pressure", "124.0"),
            ("21", "2150-06-01", "10:00", "spo2", "98.0"),
        ]
        # A patient of 60 in 2180 is 63 in 2183.
        assert [age for *_, age in ages(tmp_path)] == ["63.0", "91.4"]
        assert [row["died_in_hospital"] for row in read(tmp_path, "outcome.csv")] == ["", ""]
        assert "no ADMISSIONS table: died_in_hospital is empty" in report.notes
        # The time of a death outside the ICU is set to the end of the day, here the 32nd, because
        # its hour is unknown.
        of_20, of_21 = read(tmp_path, "outcome.csv")
        assert (of_20["died_in_icu"], of_20["died_after_hours"]) == ("0", str(32 * 24))
        assert (of_21["died_in_icu"], of_21["died_after_hours"]) == ("0", "")

    def test_a_death_after_the_stay_on_its_last_day_is_not_in_the_icu(self, tmp_path: Path) -> None:
        source = tmp_path / "mimiciii"
        source.mkdir()
        self.version_3(source)
        stays = source / "ICUSTAYS.csv"
        stays.write_text(stays.read_text().replace("2164-10-24 12:00:00", "2164-10-24 11:00:00"))
        convert("mimic", source, tmp_path)
        died = read(tmp_path, "outcome.csv")[0]
        assert (died["died_in_hospital"], died["died_in_icu"]) == ("1", "0")

    def test_a_patient_has_the_age_of_each_stay(self, tmp_path: Path) -> None:
        source = tmp_path / "mimiciv"
        self.version_4(source)
        stays = source / "icu" / "icustays.csv"
        lines = [  # in no order
            "20,203,2003,MICU,MICU,2187-03-01 08:00:00,2187-03-03 08:00:00,2",
            "20,202,2002,MICU,MICU,2183-05-01 08:00:00,2183-05-03 08:00:00,2",
        ]
        stays.write_text("\n".join([stays.read_text().strip(), *lines, ""]))
        events = source / "icu" / "chartevents.csv"
        times = {2002: "2183-05-01 09:00:00", 2003: "2187-03-01 09:00:00"}
        rows = [f"20,20,{stay},1,{at},{at},220045,80,80,bpm,0" for stay, at in times.items()]
        events.write_text("\n".join([events.read_text(encoding="utf-8").strip(), *rows, ""]))
        target = tmp_path / "out"
        convert("mimic", source, target)
        assert [age for pat_id, *age in ages(target) if pat_id == "20"] == [
            ["2183-01-01", "63.0"],
            ["2187-03-01", "67.0"],
        ]
        # The messages that hospital sends have the same ages.
        stream = read_stream(Data(folder=target))
        of_20 = {
            f"{day:%Y-%m-%d}": age for (pat_id, day), age in stream.ages.items() if pat_id == 20
        }
        assert of_20 == {"2183-01-01": 63, "2183-05-01": 63, "2187-03-01": 67}

    def test_unusual_tables_are_read_and_rows_with_unreadable_cells_are_dropped(
        self, tmp_path: Path
    ) -> None:
        source = tmp_path / "mimiciv"
        self.version_4(source)
        (source / "patients.csv").mkdir()
        (source / "icu" / "._chartevents.csv").write_bytes(b"\x00\x05\x16\x07")
        patients = source / "hosp" / "patients.csv"
        text = patients.read_text().replace(",dod\n", "\n").replace(",2183-02-01", "")
        patients.write_bytes(b"\xef\xbb\xbf" + text.replace("2010,", "2010").encode())
        items = source / "icu" / "d_items.csv"
        items.write_bytes(items.read_bytes() + "223762,Temperatur in \xb0C\n".encode("latin-1"))
        events = source / "icu" / "chartevents.csv"
        lines = [
            "20,200,2000.0,1,2183-01-01 10:00:00 UTC,2183-01-01 10:00:00,220045.0,80,80,bpm,0",
            "20,200,2000,1,2183-01-01 10:05:00,2183-01-01 10:05:00,220045,x,NULL,bpm,0",
            "20,200,2000,1,2183-01-01 10:06:00,2183-01-01 10:06:00,220045,x,many,bpm,0",
            "20,200,2000,1,yesterday,2183-01-01 10:06:00,220045,80,80,bpm,0",
        ]
        events.write_text(events.read_text(encoding="utf-8") + "\n".join(lines) + "\n")
        report = convert("mimic", source, tmp_path)
        assert ("20", "2183-01-01", "10:00", "heart_rate", "80.0") in signals(tmp_path)
        assert report.dropped["event without a number"] == 1
        assert report.dropped["event with an unreadable cell"] == 2
        assert report.stays == 2

    def test_a_truncated_table_is_named_with_its_line(self, tmp_path: Path) -> None:
        source = tmp_path / "mimiciii"
        source.mkdir()
        self.version_3(source)
        events = source / "CHARTEVENTS.csv.gz"
        events.write_bytes(events.read_bytes()[:-40])
        with pytest.raises(ImportFailure, match=r"CHARTEVENTS\.csv\.gz after line \d+: "):
            convert("mimic", source, tmp_path)

    def test_a_missing_table_is_named(self, tmp_path: Path) -> None:
        self.version_4(tmp_path / "mimiciv")
        (tmp_path / "mimiciv" / "icu" / "d_items.csv").unlink()
        with pytest.raises(ImportFailure, match=r"no D_ITEMS\.csv"):
            convert("mimic", tmp_path / "mimiciv", tmp_path)

    def test_a_truncated_line_is_named(self, tmp_path: Path) -> None:
        self.version_4(tmp_path / "mimiciv")
        events = tmp_path / "mimiciv" / "icu" / "chartevents.csv"
        events.write_text(events.read_text(encoding="utf-8")[:-20], encoding="utf-8")
        with pytest.raises(ImportFailure, match=r"chartevents\.csv line 6: \d columns"):
            convert("mimic", tmp_path / "mimiciv", tmp_path)


class TestAnyFormat:
    def test_an_unknown_format_is_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(ImportFailure, match="FORMAT=hirid: not one of physionet2012"):
            convert("hirid", tmp_path, tmp_path)

    @pytest.mark.parametrize("format_name", ["physionet2012", "physionet2019", "mimic"])
    def test_a_folder_without_the_format_is_rejected(
        self, format_name: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ImportFailure, match=str(tmp_path)):
            convert(format_name, tmp_path, tmp_path / "out")

    def test_a_failed_import_keeps_the_earlier_files(self, tmp_path: Path) -> None:
        source = tmp_path / "challenge"
        write(source / "Outcomes-a.txt", TestPhysioNet2012.OUTCOMES)
        write(source / "set-a" / "132539.txt", TestPhysioNet2012.STAY)
        convert("physionet2012", source, tmp_path / "out")
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        write(source / "set-a" / "132540.txt", "no header\n")
        with pytest.raises(ImportFailure, match=r"132540\.txt: the first line is not"):
            convert("physionet2012", source, tmp_path / "out")
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before

    def test_the_text_of_a_report_has_its_counts(self) -> None:
        report = Report(stays=2)
        report.readings["heart_rate"] += 1234
        report.dropped["-1"] += 5
        assert str(report) == "2 stays, 1,234 readings\n  dropped             5  -1"


class TestEicu:
    PATIENT = (
        "patientunitstayid,patienthealthsystemstayid,gender,age,hospitalid,hospitaladmitoffset,"
        "hospitaldischargeoffset,hospitaldischargestatus,unittype,unitadmittime24,"
        "unitdischargeoffset,unitdischargestatus,uniquepid\n"
        # The date of patient 365 follows from 365 * 7919 % 365 = 0: the first of January.
        "1000,365,Female,> 89,59,-30,2880,Expired,Med-Surg ICU,22:10:00,1800,Alive,002-10009\n"
        "1001,365,Female,> 89,59,-3000,2880,Expired,MICU,08:00:00,600,Expired,002-10009\n"
        "1002,366,Male,,60,0,,,CTICU,00:30:00,600,,025-1000001\n"
        "1003,366,Male,60,60,0,,Alive,CTICU,00:30:00,600,Alive,025-1000001\n"
        "1004,367,Male,60,60,0,,Alive,CTICU,half past,600,Alive,025-1000002\n"
    )
    PERIODIC = (
        "vitalperiodicid,patientunitstayid,observationoffset,temperature,sao2,heartrate,"
        "respiration,cvp,systemicsystolic,systemicdiastolic,systemicmean\n"
        "1,1000,120,,97,88,18,4,118,60,80\n"
        "2,1000,-20,,,90,,,,,\n"
        "3,1000,1801,,,91,,,,,\n"
        "4,1002,-60,37.1,,,,,,,\n"
        "5,1000,5,,,,,3,,,\n"
        "6,9999,5,,,70,,,,,\n"
    )
    APERIODIC = (
        "vitalaperiodicid,patientunitstayid,observationoffset,noninvasivesystolic,"
        "noninvasivediastolic,noninvasivemean\n"
        "1,1000,120,121,61,82\n2,1000,130,122,,\n"
    )
    LAB = (
        "labid,patientunitstayid,labresultoffset,labname,labresult\n"
        "1,1000,60,lactate,2.1\n2,1000,60,FiO2,40\n3,1000,60,pH,7.31\n4,1000,60,-eos,2\n"
    )
    CHART = (
        "nursingchartid,patientunitstayid,nursingchartoffset,nursingchartcelltypevallabel,"
        "nursingchartcelltypevalname,nursingchartvalue\n"
        "1,1000,150,Glasgow coma score,GCS Total,14\n"
        "2,1000,150,Score (Glasgow Coma Scale),Value,13\n"
        "3,1000,150,Temperature,Temperature (F),98.6\n"
        "4,1000,150,Glasgow coma score,GCS Total,Unable to score due to medication\n"
        "5,1000,130,Non-Invasive BP,Non-Invasive BP Systolic,119\n"
        "6,1000,150,Pain Score,Pain Score,3\n"
    )

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        source = tmp_path / "eicu"
        write(source / "patient.csv", self.PATIENT)
        write(source / "vitalPeriodic.csv", self.PERIODIC)
        write(source / "demo" / "vitalAperiodic.csv", self.APERIODIC)
        for name, text in (("lab", self.LAB), ("nurseCharting", self.CHART)):
            with gzip.open(source / f"{name}.csv.gz", "wt") as file:
                file.write(text)
        return source

    def test_readings_get_names_and_times_and_come_from_the_best_source(
        self, source: Path, tmp_path: Path
    ) -> None:
        report = convert("eicu", source, tmp_path)
        first = "200010009"
        expected = [
            (first, "2019-01-01", "21:50", "heart_rate", "90.0"),
            (first, "2019-01-01", "23:10", "lactate", "2.1"),
            (first, "2019-01-01", "23:10", "fio2", "0.4"),
            (first, "2019-01-01", "23:10", "ph", "7.31"),
            (first, "2019-01-02", "00:10", "spo2", "97.0"),
            (first, "2019-01-02", "00:10", "heart_rate", "88.0"),
            (first, "2019-01-02", "00:10", "respiration_rate", "18.0"),
            (first, "2019-01-02", "00:10", "blood_pressure", "118.0"),
            (first, "2019-01-02", "00:10", "blood_pressure_diastolic", "60.0"),
            (first, "2019-01-02", "00:10", "blood_pressure_mean", "80.0"),
            (first, "2019-01-02", "00:20", "blood_pressure", "122.0"),
            (first, "2019-01-02", "00:40", "gcs", "14.0"),
            (first, "2019-01-02", "00:40", "temperature", "37.0"),
            # A value before the midnight of admission is written with the first minute of that day.
            ("2501000001", "2019-09-12", "00:00", "temperature", "37.1"),
        ]
        assert sorted(signals(tmp_path)) == sorted(expected)
        assert dict(report.dropped) == {
            "value outside its stay": 1,
            "value of a stay that is not imported": 1,
            "value that is not a number": 1,
            "row of vitalPeriodic without a value that is imported": 1,
            "row of lab without a value that is imported": 1,
            "row of nurseCharting without a value that is imported": 1,
            "blood_pressure in the same minute from a better source": 2,
            "blood_pressure_diastolic in the same minute from a better source": 1,
            "blood_pressure_mean in the same minute from a better source": 1,
            "gcs in the same minute from a better source": 1,
            "second stay of a patient that began on the same day": 1,
            "stay with an unreadable cell": 1,
        }
        assert report.converted["temperature in °F, written in °C"] == 1
        assert report.converted["FiO2 in percent, written as a fraction"] == 1

    def test_stays_and_outcomes_are_converted(self, source: Path, tmp_path: Path) -> None:
        convert("eicu", source, tmp_path)
        stays = [tuple(row.values()) for row in read(tmp_path, "admission.csv")]
        assert stays == [
            ("200010009", "2019-01-01", "2019-01-03"),
            # This is the same hospital stay, 50 hours after its start.
            ("200010009", "2019-01-03", "2019-01-03"),
            ("2501000001", "2019-09-12", "2019-09-12"),
        ]
        assert ages(tmp_path) == [("200010009", "2019-01-01", "91.4")]
        died, again, unknown = read(tmp_path, "outcome.csv")
        assert (died["died_in_hospital"], died["died_in_icu"]) == ("1", "0")
        # The discharge is 48 hours after 22:10 on the first day.
        assert died["died_after_hours"] == "71"
        assert (again["died_in_icu"], again["unit"]) == ("1", "MICU")
        assert (unknown["died_in_hospital"], unknown["died_after_hours"]) == ("", "")
        assert (died["sex"], died["cohort"]) == ("female", "hospital-59")

    def test_missing_tables_are_named(self, source: Path, tmp_path: Path) -> None:
        (source / "lab.csv.gz").unlink()
        assert "no table lab" in convert("eicu", source, tmp_path).notes
        for name in ("vitalPeriodic.csv", "demo/vitalAperiodic.csv", "nurseCharting.csv.gz"):
            (source / name).unlink()
        with pytest.raises(ImportFailure, match="none of the tables"):
            convert("eicu", source, tmp_path)
