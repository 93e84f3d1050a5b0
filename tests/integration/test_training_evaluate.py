"""Tests outcome.csv as hospitals write it, finished models on other patients, and labels with a
time.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from modelapi.artifact import Ref
from modelapi.repository import Repository
from tests.integration.test_training import DIED, PRESSURES, ROOT, SOON, toml, write_ward
from training import (
    artifact,
    config_file,
    evaluate,
    own_reference,
    recalibrate,
    report,
    rows,
    train,
    utility,
)
from training import outcomes as outcome_file
from training.config import Data
from training.importers import convert
from training.judgement import Question, judge
from training.stream import DataError
from training.stream import read as read_stream
from wire.drift import Reference


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "ward"
    write_ward(folder)
    return folder


@pytest.fixture(scope="module")
def trained(ward: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[train.Result, Path]:
    """Trains a model on cohort a; returns the result and the folder of the artifacts."""
    out = tmp_path_factory.mktemp("out")
    text = toml(ward, out, kind="logistic").replace(
        'by = "time"\ntest_share = 0.4', 'by = "cohort"\ntrain = ["a"]\ntest = ["b"]'
    )
    text = text.replace('kind = "logistic"', 'kind = "logistic"\nseed = 9\nfit_on = "train"')
    path = out / "c.toml"
    path.write_text(text.replace("folds = 2", "ablation = false"))
    result = train.run(config_file.load(path))
    artifact.write(result, "1")
    return result, out / "models"


class TestOutcomes:
    def rewritten(self, ward: Path, folder: Path, text: str) -> Path:
        folder.mkdir()
        (folder / "outcome.csv").write_text(text, encoding="utf-8")
        return folder

    def test_other_spellings_of_dates_ids_and_labels_are_read(
        self, ward: Path, tmp_path: Path
    ) -> None:
        plain = outcome_file.read(ward, DIED).table
        table = plain.reset_index()
        table["pat_id"] = [f"{n}.0" for n in table["pat_id"]]
        table["date_admission"] = table["date_admission"].dt.strftime("%d/%m/%Y 08:30")
        table["died"] = table["died"].map({0: "no", 1: "Yes"})
        text = table.to_csv(index=False, sep=",")
        folder = self.rewritten(ward, tmp_path / "other", text)
        found = outcome_file.read(folder, DIED)
        pd.testing.assert_series_equal(found.table["died"], plain["died"])
        assert not found.left_out

    def test_repeated_and_contradicting_rows_are_counted(self, ward: Path, tmp_path: Path) -> None:
        lines = (ward / "outcome.csv").read_text().splitlines()
        other = lines[2].split(";")
        other[2] = str(1 - int(other[2]))
        text = "\n".join([*lines, lines[1], ";".join(other), "9;2021-01-10;maybe;;;"])
        folder = self.rewritten(ward, tmp_path / "other", text)
        found = outcome_file.read(folder, DIED)
        assert sorted(found.left_out.values()) == [1, 1, 2]
        assert found.left_out["repeated outcome"] == 1
        assert len(found.table) == len(outcome_file.read(ward, DIED).table) - 1

    def test_outcomes_that_match_no_stay_are_an_error(self, ward: Path, tmp_path: Path) -> None:
        text = (ward / "outcome.csv").read_text().replace(";2021-", ";2020-")
        folder = self.rewritten(ward, tmp_path / "other", text)
        stream = read_stream(Data(folder=ward))
        with pytest.raises(DataError, match="0 of 320 outcomes belong to a stay"):
            outcome_file.match(outcome_file.read(folder, DIED), stream)

    def test_unmatched_rows_are_counted_on_both_sides(self, ward: Path, tmp_path: Path) -> None:
        text = (ward / "outcome.csv").read_text().replace("\n0;2021-", "\n0;2020-")
        folder = self.rewritten(ward, tmp_path / "other", text)
        found = outcome_file.match(outcome_file.read(folder, DIED), read_stream(Data(folder=ward)))
        assert found.left_out == {
            "outcome of a stay without readings": 2,
            "stay without an outcome": 2,
        }


def write_mimic(folder: Path, stays: int, deaths: int) -> None:
    """Writes tables in the format of MIMIC-IV, with a heart rate and a pressure for two days of
    each stay.
    """
    start = pd.Timestamp("2150-01-01 08:00:00")
    number = np.arange(stays)
    died = number < deaths
    tables = {
        "patients": {"subject_id": number, "gender": "F", "anchor_age": 60 + number % 20}
        | {"anchor_year": 2150, "anchor_year_group": "2008 - 2010", "dod": ""},
        "admissions": {"subject_id": number, "hadm_id": number + 1000}
        | {
            "deathtime": np.where(died, "2150-01-09 10:00:00", ""),
            "hospital_expire_flag": died * 1,
        },
        "icustays": {"subject_id": number, "hadm_id": number + 1000, "stay_id": number + 5000}
        | {"first_careunit": "MICU", "intime": start, "outtime": start + pd.Timedelta(days=3)},
        "d_items": {"itemid": [220045], "label": ["Heart Rate"]},
    }
    draw = np.random.default_rng(11)
    hour, stay = np.tile(np.arange(48), stays), np.repeat(number, 48)
    for item, level in ((220045, 85.0), (220050, 118.0)):
        tables[f"chartevents {item}"] = {
            "stay_id": stay + 5000,
            "charttime": start + pd.to_timedelta(hour, unit="h"),
            "itemid": item,
            "valuenum": (level + draw.normal(0, 9, len(stay))).round(1),
        }
    events = [pd.DataFrame(tables.pop(f"chartevents {item}")) for item in (220045, 220050)]
    folder.mkdir()
    for name, columns in tables.items():
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)
    pd.concat(events).to_csv(folder / "chartevents.csv", index=False)


class TestEvaluate:
    def test_evaluation_of_a_finished_model_equals_its_report(
        self, trained: tuple[train.Result, Path], ward: Path, tmp_path: Path
    ) -> None:
        result, models = trained
        (tmp_path / "b").mkdir()
        for name in ("age.csv", "admission.csv", "signal.csv"):
            (tmp_path / "b" / name).write_bytes((ward / name).read_bytes())
        seen = set(result.train.patients)
        lines = (ward / "outcome.csv").read_text().splitlines()
        kept = [line for line in lines[1:] if int(line.split(";")[0]) not in seen]
        (tmp_path / "b" / "outcome.csv").write_text("\n".join([lines[0], *kept, ""]))
        found = evaluate.run(
            evaluate.Request(model="small/1", folder=tmp_path / "b", models=models, resamples=20)
        )
        reported = [line for line in result.headline if "Trained on b" not in line.name]
        for ours, theirs in zip(reported, found.judgement.headline, strict=True):
            assert ours.rows == theirs.rows
            for metric, figure in ours.figures.items():
                same = theirs.figures[metric]
                assert (same.value, same.low, same.high) == pytest.approx(
                    (figure.value, figure.low, figure.high), abs=5e-4, nan_ok=True
                )
        page = report.write_evaluation(found, tmp_path)
        tables = json.loads(page.with_suffix(".json").read_text())
        assert tables["headline"][0]["rows"] == found.judgement.headline[0].rows

    def test_the_calibration_on_mimic_data_with_few_deaths_is_not_estimable(
        self, tmp_path: Path
    ) -> None:
        source = tmp_path / "mimiciv"
        write_mimic(source, stays=60, deaths=6)
        convert("mimic", source, tmp_path / "ward")
        found = evaluate.run(
            evaluate.Request(model="icu-mortality/2", folder=tmp_path / "ward", resamples=20)
        )
        assert found.judgement.headline[0].events == 6
        for line in found.judgement.headline:
            for metric, figure in line.figures.items():
                assert figure.estimable != metric.startswith("calibration"), (line.name, metric)
        tables = json.loads(
            report.write_evaluation(found, tmp_path).with_suffix(".json").read_text()
        )
        assert tables["headline"][0]["figures"]["calibration_slope"]["value"] is None

    def test_evaluating_on_the_training_data_causes_a_warning(
        self, trained: tuple[train.Result, Path], ward: Path
    ) -> None:
        _, models = trained
        request = evaluate.Request(model="small/1", folder=ward, models=models, resamples=20)
        assert "trained on these data" in evaluate.run(request).warnings[0]

    def test_a_recalibrated_version_shifts_all_log_odds_by_the_same_amount(
        self, trained: tuple[train.Result, Path], ward: Path
    ) -> None:
        _, models = trained
        request = evaluate.Request(model="small/1", folder=ward, models=models, resamples=20)
        found = evaluate.run(request)
        folder = recalibrate.recalibrate(found, models, "intercept")
        before, after = found.recalibrated
        assert before.rows == after.rows < len(found.rows.y)
        assert after.figures["auroc"].value == pytest.approx(before.figures["auroc"].value)
        assert folder.name == "2"
        first, second = (Repository(models).load(Ref("small", v)) for v in ("1", "2"))
        assert second.manifest.calibration
        odds = [
            np.log(p / (1 - p))
            for p in (one.predict(found.rows.x)["probability"] for one in (first, second))
        ]
        for name, at in first.manifest.thresholds.items():
            flagged = [
                one.predict(found.rows.x)["probability"] >= limit
                for one, limit in (
                    (first, at - 1e-9),
                    (second, second.manifest.thresholds[name] - 1e-9),
                )
            ]
            np.testing.assert_array_equal(*flagged)
        # Otherwise the mean of the new probabilities would be outside the old band each day.
        old, new = (one.manifest.reference for one in (first, second))
        assert old
        assert new
        assert old.risk.bands
        assert not new.risk.bands
        assert old.channels == new.channels
        shift = odds[1] - odds[0]
        assert shift == pytest.approx(np.full(len(shift), shift[0]), abs=1e-6)

    def test_a_new_version_can_have_the_drift_reference_of_the_evaluated_patients(
        self, trained: tuple[train.Result, Path], ward: Path, tmp_path: Path
    ) -> None:
        _, models = trained
        shutil.copytree(models / "small" / "1", tmp_path / "small" / "1")
        half = tmp_path / "half"
        shutil.copytree(ward, half)
        table = pd.read_csv(ward / "signal.csv", sep=";")
        table[table["pat_id"] % 2 == 0].to_csv(half / "signal.csv", sep=";", index=False)
        request = evaluate.Request(model="small/1", folder=half, models=tmp_path, resamples=20)
        found = evaluate.run(request)
        assert own_reference.write(found, tmp_path) == tmp_path / "small" / "2"
        first, second = (Repository(tmp_path).load(Ref("small", v)) for v in ("1", "2"))
        old, new = first.manifest.reference, second.manifest.reference
        assert isinstance(old, Reference)
        assert isinstance(new, Reference)
        assert new.channels.keys() == old.channels.keys()
        # Each day counts with its last prediction, up to the last sample hour.
        about = found.rows.about.assign(p=second.predict(found.rows.x)["probability"])
        day = [about["pat_id"], about["date_admission"], (about["hour"] - 1) // 24]
        last = about.sort_values("hour").groupby(day)["p"].last()
        assert new.risk.value == pytest.approx(last.mean())
        assert new.risk.value != old.risk.value

    def test_the_command_reports_errors_in_one_line(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "training", "evaluate", "none/1", str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1


class TestTimedLabels:
    def test_rows_after_the_event_are_kept_for_the_configured_hours(self, ward: Path) -> None:
        stream = read_stream(Data(folder=ward))
        table = outcome_file.read(ward, SOON).table
        table = table.assign(died_after_hours=table["died_after_hours"] - 30)  # at hour 10
        hours = rows.sample(stream, tuple(range(1, 31)))
        kept = msgspec.structs.replace(SOON, keep_hours_after=3)
        last = {
            label: rows.assemble(stream, table, label, PRESSURES, hours).about["ahead"].min()
            for label in (SOON, kept)
        }
        assert (last[SOON], last[kept]) == (1, -3)

    def test_every_hour_has_the_same_weight(self, ward: Path) -> None:
        """Stays that end with the event have fewer readings, but these must not have more
        weight.
        """
        stream = read_stream(Data(folder=ward))
        table = outcome_file.read(ward, SOON).table
        table = table.assign(died_after_hours=table["died_after_hours"] - 30)
        every = rows.assemble(
            stream, table, SOON, PRESSURES, pd.Series(0, index=stream.readings.index)
        )
        hour = stream.readings.loc[every.about.index, "measured_at"].dt.floor("h")
        stays = every.about[["pat_id", "date_admission"]].assign(hour=hour, y=every.y)
        truth = stays.groupby(["pat_id", "date_admission", "hour"])["y"].mean().mean()
        question = Question(stream, table, SOON, PRESSURES, (1, 8), 8, 20, 0)

        def predict(x: np.ndarray) -> np.ndarray:
            return np.full(len(x), truth)

        test = rows.assemble(stream, table, SOON, PRESSURES, rows.sample(stream, (1, 8)))
        line = judge(question, predict, test, "constant", {}).headline[2]
        assert line.figures["prevalence"].value == pytest.approx(truth)

    def test_the_utility_equals_that_of_the_2019_challenge(self) -> None:
        """The expected values are computed by hand from Reyna et al. 2020, figure 2."""
        after = np.array([-20.0, -12, -9, -6, 0, 3, 4, np.nan, np.nan])
        alarm = np.array([True, True, True, True, True, True, True, True, False])
        expected = [-0.05, 0, 0.5, 1, 1 / 3, 0, 0, -0.05, 0]
        assert utility.row_utilities(after, alarm) == pytest.approx(expected)
        silent = utility.row_utilities(after, np.zeros(9, dtype=bool))
        assert silent == pytest.approx([0, 0, 0, 0, -4 / 3, -2, 0, 0, 0])

    def test_the_2019_challenge_can_be_written_as_a_config(
        self, ward: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "hourly"
        write_ward(folder, stays=160)
        lines = (folder / "outcome.csv").read_text().replace(";40;", ";20;")
        (folder / "outcome.csv").write_text(lines)
        text = toml(folder, tmp_path, kind="logistic").replace("folds = 2", "ablation = false")
        text = text.replace("sample_hours = [1, 8, 24]", "every_hour_to = 30")
        text = text.replace("hour = 24", "hour = 18\nutility = true")
        timed = 'event = "death"\nafter_column = "died_after_hours"\nwithin_hours = 6'
        text = text.replace('event = "death"', f"{timed}\nkeep_hours_after = 3")
        (tmp_path / "c.toml").write_text(text)
        result = train.run(config_file.load(tmp_path / "c.toml"))
        figure = next(f for line in result.headline if (f := line.figures.get("utility")))
        assert 0 < figure.value <= 1
