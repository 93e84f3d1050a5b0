"""Tests that the synthetic ward is reproducible, and that it has the documented statistics."""

import csv
import hashlib
import os
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hospital.synthetic import write_ward

ROOT = Path(__file__).parents[2]
INPUTS = ("age.csv", "admission.csv", "signal.csv")
FILES = (*INPUTS, "ground_truth.csv")


def digest(folder: Path) -> str:
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in FILES)).hexdigest()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))


def synthetic(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hospital.synthetic", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestBytes:
    def test_files_depend_only_on_the_options(self, tmp_path: Path) -> None:
        for name, hash_seed in (("one", "1"), ("two", "2")):
            options = ("--patients", "30", "--days", "5", "--seed", "7", "--to", tmp_path / name)
            done = synthetic(*map(str, options), PYTHONHASHSEED=hash_seed, TZ="Asia/Tokyo")
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert digest(tmp_path / "one") == digest(tmp_path / "two")
        # The digest holds for numpy 2.4.6. Another version may draw other numbers, and then needs a
        # new digest.
        expected = "4844e71710fbc1aae8741bdc4015111d38692cf64f161bdbc754525697e077d9"
        assert digest(tmp_path / "one") == expected

    def test_files_differ_between_seeds(self, tmp_path: Path) -> None:
        write_ward(tmp_path / "one", patients=10, days=3, seed=1)
        write_ward(tmp_path / "two", patients=10, days=3, seed=2)
        assert digest(tmp_path / "one") != digest(tmp_path / "two")


@pytest.fixture(scope="module")
def default_ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes the ward that `python -m hospital` writes if there are no data."""
    folder = tmp_path_factory.mktemp("default")
    assert synthetic("--to", str(folder)).returncode == 0
    return folder


class TestFormat:
    @pytest.mark.parametrize(
        ("name", "header"),
        [
            ("age.csv", ";pat_id;age"),
            ("admission.csv", ";pat_id;date_admission;date_discharge"),
            ("signal.csv", ";pat_id;day;hour;parameter;value"),
        ],
    )
    def test_the_files_of_the_default_ward_have_a_header_and_numbered_rows(
        self, default_ward: Path, name: str, header: str
    ) -> None:
        first, *lines = (default_ward / name).read_bytes().decode("ascii").split("\n")
        assert first == header
        assert lines.pop() == ""
        assert [line.split(";")[0] for line in lines] == [str(n) for n in range(len(lines))]

    def test_every_reading_lies_in_one_stay(self, default_ward: Path) -> None:
        stays: dict[str, list[tuple[date, date]]] = {}
        for row in rows(default_ward / "admission.csv"):
            begin, end = (
                datetime.strptime(text, "%d/%m/%Y").date() if text else date.max  # noqa: DTZ007
                for text in (row["date_admission"], row["date_discharge"])
            )
            stays.setdefault(row["pat_id"], []).append((begin, end))
        assert len(stays) == 60
        seen = set()
        times = []
        for row in rows(default_ward / "signal.csv"):
            day = date.fromisoformat(row["day"])
            (stay,) = [(a, b) for a, b in stays[row["pat_id"]] if a <= day <= b]
            seen.add((row["pat_id"], stay))
            times.append((day, int(row["hour"])))
        assert seen == {(pat_id, stay) for pat_id in stays for stay in stays[pat_id]}
        assert times == sorted(times)
        assert (times[-1][0] - date(2019, 1, 1)).days == 13

    def test_some_patients_are_in_the_icu_at_the_end(self, default_ward: Path) -> None:
        admissions = pd.read_csv(default_ward / "admission.csv", sep=";")
        assert 15 <= admissions["date_discharge"].isna().sum() <= 22

    @pytest.mark.parametrize(("patients", "days"), [(1, 1), (1, 30), (200, 1), (3, 2)])
    def test_a_small_ward_has_the_requested_size(
        self, tmp_path: Path, patients: int, days: int
    ) -> None:
        write_ward(tmp_path, patients=patients, days=days, seed=1)
        assert len(pd.read_csv(tmp_path / "age.csv", sep=";")) == patients
        assert pd.read_csv(tmp_path / "signal.csv", sep=";")["day"].max() <= f"2019-01-{days:02}"


class TestCommand:
    @pytest.mark.parametrize("name", INPUTS)
    def test_existing_data_are_not_overwritten(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("somebody's data")
        done = synthetic("--to", str(tmp_path))
        assert done.returncode == 1
        assert done.stderr == (
            f"hospital.synthetic: {tmp_path / name} exists and is not overwritten\n"
        )
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_a_folder_that_is_not_writable_is_an_error(self) -> None:
        done = synthetic("--to", "/proc/nowhere")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "/proc/nowhere" in done.stderr

    @pytest.mark.parametrize(
        ("option", "value"),
        [("--patients", "0"), ("--patients", ""), ("--days", "many"), ("--seed", "1.5")],
    )
    def test_an_invalid_number_is_an_error(self, tmp_path: Path, option: str, value: str) -> None:
        done = synthetic(f"{option}={value}", "--to", str(tmp_path))
        assert done.returncode == 2
        last = done.stderr.splitlines()[-1]
        assert f"argument {option}: {value!r} is not a whole number above 0" in last
        assert not list(tmp_path.iterdir())


TARGETS = {  # columns: mean, SD between patients, SD within a patient, tolerance of the mean
    "blood_pressure": (122, 17, 13.7, 1.2),
    "respiration_rate": (19.5, 4.3, 2.7, 0.3),
    "temperature": (36.87, 0.49, 0.40, 0.03),
    "heart_rate": (83, 15, 7.5, 1.0),
    "spo2": (96.6, 2.1, 1.7, 0.15),
    "gcs": (12.95, 2.56, 2.02, 0.15),
}


@pytest.fixture(scope="module")
def large_ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    write_ward(folder, patients=6000, days=60, seed=3)
    return folder


@pytest.fixture(scope="module")
def signal(large_ward: Path) -> pd.DataFrame:
    return pd.read_csv(large_ward / "signal.csv", sep=";", index_col=0)


@pytest.fixture(scope="module")
def truth(large_ward: Path) -> pd.DataFrame:
    return pd.read_csv(large_ward / "ground_truth.csv", sep=";", index_col=0)


@pytest.fixture(scope="module")
def admissions(large_ward: Path) -> pd.DataFrame:
    return pd.read_csv(large_ward / "admission.csv", sep=";", index_col=0)


class TestCalibration:
    @pytest.mark.parametrize("parameter", TARGETS)
    def test_means_and_standard_deviations_are_as_documented(
        self, signal: pd.DataFrame, parameter: str
    ) -> None:
        mean, between, within, tolerance = TARGETS[parameter]
        values = signal[signal["parameter"] == parameter].groupby("pat_id")["value"]
        # These are the variance components of a one-way analysis of variance with unequal groups.
        size, centre, spread = values.size(), values.mean(), values.var()
        total, patients = size.sum(), len(size)
        overall = (size * centre).sum() / total
        square_within = ((size - 1) * spread).sum() / (total - patients)
        square_between = (size * (centre - overall) ** 2).sum() / (patients - 1)
        typical_size = (total - (size**2).sum() / total) / (patients - 1)
        assert overall == pytest.approx(mean, abs=tolerance)
        assert np.sqrt(square_within) == pytest.approx(within, rel=0.04)
        found = np.sqrt((square_between - square_within) / typical_size)
        assert found == pytest.approx(between, rel=0.06)

    def test_values_are_within_their_limits(self, signal: pd.DataFrame) -> None:
        lowest = signal.groupby("parameter")["value"].min()
        highest = signal.groupby("parameter")["value"].max()
        limits = {
            "blood_pressure": (40, 250),
            "respiration_rate": (4, 60),
            "temperature": (32, 42),
            "heart_rate": (25, 220),
            "spo2": (50, 100),
            "gcs": (3, 15),
        }
        assert set(lowest.index) == set(limits)
        for parameter, (low, high) in limits.items():
            assert lowest[parameter] >= low
            assert highest[parameter] <= high

    def test_the_pressure_of_dying_patients_falls_to_90(
        self, signal: pd.DataFrame, truth: pd.DataFrame
    ) -> None:
        pressure = signal[signal["parameter"] == "blood_pressure"]
        dying = pressure.merge(truth[truth["outcome"] == "died"], on=["pat_id", "day", "hour"])
        assert dying[dying["hours_left"] < 3]["value"].mean() == pytest.approx(90, abs=2)
        assert dying[dying["hours_left"] > 24]["value"].mean() > 105

    def test_severity_predicts_death(self, truth: pd.DataFrame) -> None:
        assert truth["severity"].between(0, 1).all()
        last = truth[truth["hours_left"] == 0]
        died = last["outcome"] == "died"
        assert last[died]["severity"].min() > 0.9
        assert last[~died]["severity"].mean() < 0.25
        outcome = truth.drop_duplicates(["pat_id", "date_admission"])["outcome"]
        assert (outcome == "died").mean() == pytest.approx(0.10, abs=0.015)

    def test_pressures_are_correlated_over_time(self, signal: pd.DataFrame) -> None:
        """After the patient's mean is subtracted, the autocovariance halves in 3 to 5.5 hours. Lag
        0 is left out because it contains the noise."""
        pressure = signal[signal["parameter"] == "blood_pressure"].copy()
        patient = pressure.groupby("pat_id")["value"]
        pressure = pressure[patient.transform("size") > 96]
        deviation = pressure["value"] - pressure.groupby("pat_id")["value"].transform("mean")
        by_patient = deviation.groupby(pressure["pat_id"])
        covariance = [(deviation * by_patient.shift(lag)).mean() for lag in (1, 2, 3, 4)]
        decay = np.polyfit([1, 2, 3, 4], np.log(covariance), 1)[0]
        assert 3 < np.log(0.5) / decay < 5.5

    def test_pressure_is_higher_in_the_afternoon_than_at_night(self, signal: pd.DataFrame) -> None:
        pressure = signal[signal["parameter"] == "blood_pressure"].groupby("hour")["value"].mean()
        assert 3 < pressure[17] - pressure[5] < 7

    def test_some_parameters_are_not_charted_every_hour(
        self, signal: pd.DataFrame, truth: pd.DataFrame
    ) -> None:
        for parameter, longest in (("heart_rate", 1), ("temperature", 4), ("gcs", 5)):
            charted = signal[signal["parameter"] == parameter].merge(
                truth, on=["pat_id", "day", "hour"]
            )
            gaps = -charted.groupby(["pat_id", "date_admission"])["hours_left"].diff().dropna()
            assert set(gaps) == set(range(1, longest + 1))

    def test_the_coma_scale_is_a_whole_number_and_unknown_for_some_patients(
        self, signal: pd.DataFrame
    ) -> None:
        scale = signal[signal["parameter"] == "gcs"]
        assert (scale["value"] % 1 == 0).all()
        scored = scale["pat_id"].nunique() / signal["pat_id"].nunique()
        assert 0.85 < scored < 0.96  # very short stays may end before the first value

    def test_dying_patients_lose_consciousness(
        self, signal: pd.DataFrame, truth: pd.DataFrame
    ) -> None:
        scale = signal[signal["parameter"] == "gcs"].merge(truth, on=["pat_id", "day", "hour"])
        died = scale["outcome"] == "died"
        assert scale[died & (scale["hours_left"] < 3)]["value"].mean() < 5
        assert scale[~died]["value"].median() == 15

    def test_lengths_of_stay_have_the_documented_quantiles(self, truth: pd.DataFrame) -> None:
        stays = truth.drop_duplicates(["pat_id", "date_admission"])
        found = ((stays["hours_left"] + 1) / 24).quantile([0.05, 0.25, 0.5, 0.75, 0.95])
        assert list(found) == pytest.approx([0.12, 0.79, 1.47, 2.8, 7.7], rel=0.1)

    def test_shares_of_open_stays_and_readmissions_are_as_documented(
        self, admissions: pd.DataFrame
    ) -> None:
        assert admissions["date_discharge"].isna().mean() == pytest.approx(0.30, abs=0.02)
        again = admissions["pat_id"].duplicated()
        assert again.mean() == pytest.approx(0.04, abs=0.005)

    def test_readmissions_are_not_before_the_next_day(self, admissions: pd.DataFrame) -> None:
        days = admissions[["date_admission", "date_discharge"]].apply(
            pd.to_datetime, format="%d/%m/%Y"
        )
        previous = days["date_discharge"].groupby(admissions["pat_id"]).shift()
        later = admissions["pat_id"].duplicated()
        assert (days["date_admission"] > previous)[later].all()

    def test_dead_patients_are_not_readmitted(self, truth: pd.DataFrame) -> None:
        stays = truth.drop_duplicates(["pat_id", "date_admission"])
        followed = stays["pat_id"].duplicated(keep="last")
        assert followed.sum() > 200
        assert (stays[followed]["outcome"] == "recovered").all()
