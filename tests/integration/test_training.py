"""Tests training: rows, splits, figures, and one small run from CSVs to a served artifact."""

import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits

from modelapi.artifact import Ref
from modelapi.compiler import compile_estimator
from modelapi.repository import Repository
from training import artifact, config, config_file, models, report, train
from training import outcomes as outcome_file
from training.__main__ import main
from training.config import Data, Label, Model, Split, Trees
from training.config_file import ConfigError
from training.database import KEY
from training.evaluation import Scores, auroc_gain, evaluate
from training.progress import progress
from training.rows import Rows, assemble, sample, split, usable
from training.stream import DataError, Stream
from training.stream import read as read_stream
from training.thresholds import balanced_threshold, operating_point
from wire.features import Feature

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "training" / "configs").glob("*.toml"))
SHIPPED = Ref("icu-mortality", "2")

CARD = """
[card]
developer = "nobody"
summary = "A test."
intended_use = "None."
out_of_scope = "All."
population = "Invented."
risks = "None."
bias = "None."
data = "Random numbers."
limits = ["Invented data & <nothing> more."]
references = ["None."]
"""


def write_ward(folder: Path, stays: int = 320, hours: int = 30) -> None:
    """Writes a ward in which only a low pressure predicts death.

    Patients 0, 8, 16, … have a second stay late in the year.
    """
    draw = np.random.default_rng(5)
    folder.mkdir(parents=True)
    ages, admissions, outcomes, signals = [], [], [], []
    for number in range(stays):
        again = number % 8 == 7
        pat_id = number - 7 if again else number
        day = date(2021, 1, 1) + timedelta(days=300 if again else number)
        died = draw.random() < 0.25
        level = draw.normal(95 if died else 125, 12)
        if not again:
            ages.append(f"{pat_id};{draw.integers(40, 90)}")
        admissions.append(f"{pat_id};{day};{day + timedelta(days=4)}")
        after = 40 if died else ""
        outcomes.append(f"{pat_id};{day};{int(died)};{after};unit {number % 2};{'ab'[number % 2]}")
        for hour in range(hours):
            at = f"{day + timedelta(days=hour // 24)};{hour % 24}"
            signals.append(f"{pat_id};{at};blood_pressure;{draw.normal(level, 8):.1f}")
            if hour % 3 == 0:
                signals.append(f"{pat_id};{at};heart_rate;{draw.normal(85, 10):.1f}")
        signals.append(f"{pat_id};{day};5;temperature;370")  # implausible
    tables = {
        "age.csv": ["pat_id;age", *ages],
        "admission.csv": ["pat_id;date_admission;date_discharge", *admissions],
        "outcome.csv": [
            "pat_id;date_admission;died;died_after_hours;unit;cohort",
            *outcomes,
        ],
        "signal.csv": ["pat_id;day;hour;parameter;value", *signals],
    }
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines) + "\n")


def toml(folder: Path, out: Path, kind: str = "blend", more: str = "") -> str:
    return f"""
[data]
folder = "{folder}"
sample_hours = [1, 8, 24]
[label]
column = "died"
event = "death"
[split]
by = "time"
test_share = 0.4
[features]
names = ["age", "nothing__last"]
[[features.grid]]
parameters = ["blood_pressure", "heart_rate"]
aggregations = ["last", "mean", "std"]
windows = [6]
[model]
name = "small"
title = "A small model"
kind = "{kind}"
[report]
hour = 24
resamples = 20
baselines = ["formula/1"]
folds = 2
[output]
models = "{out}/models"
reports = "{out}/reports"
{more}
{CARD}"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Limits OpenMP to one thread. While several test processes run, more threads would wait for
    one another in loops, and take ten times as long.
    """
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "ward"
    write_ward(folder)
    return folder


@pytest.fixture(scope="module")
def stream(ward: Path) -> Stream:
    return read_stream(Data(folder=ward))


@pytest.fixture(scope="module")
def outcomes(ward: Path) -> pd.DataFrame:
    return outcome_file.read(ward, DIED).table


DIED = Label(column="died", event="death")
SOON = Label(column="died", event="d", after_column="died_after_hours", within_hours=20)
SMALL = Trees(count=30, rate=0.1)
PRESSURES = [Feature.parse(n) for n in ("age", "blood_pressure__last", "blood_pressure__mean__6h")]


@pytest.fixture(scope="module")
def rows(stream: Stream, outcomes: pd.DataFrame) -> Rows:
    hours = sample(stream, (8, 24))
    return assemble(stream, outcomes, DIED, PRESSURES, hours)


@pytest.fixture(scope="module")
def made(ward: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[train.Result, Path, Path]:
    """Runs a whole training; returns the result, the folder of the artifact and the report."""
    out = tmp_path_factory.mktemp("out")
    path = out / "config.toml"
    path.write_text(toml(ward, out))
    result = train.run(config_file.load(path))
    return result, artifact.write(result, "1"), report.write(result, "1")


class TestRows:
    def test_implausible_readings_are_left_out_of_the_stream(self, stream: Stream) -> None:
        assert stream.left_out == {"temperature not between 26 (excluded) and 45 °C": 320}
        assert len(stream.readings) == 320 * 40
        assert (stream.readings["seq"].diff().dropna() > 0).all()

    def test_a_stay_has_one_row_per_sample_hour_from_its_last_reading(self, stream: Stream) -> None:
        hours = sample(stream, (1, 8, 24))
        chosen = stream.readings.loc[hours.index].assign(sample=hours)
        passed = (chosen["measured_at"] - chosen["date_admission"]).dt.total_seconds() / 3600
        assert dict(passed.groupby(chosen["sample"]).unique().map(list)) == {
            1: [0.0],
            8: [7.0],
            24: [23.0],
        }
        assert chosen.groupby("sample").size().to_dict() == {1: 320, 8: 320, 24: 320}
        # At hour 0, the heart rate comes after the pressure, so the row has both.
        assert set(chosen.loc[chosen["sample"] == 1, "parameter"]) == {"heart_rate"}

    def test_a_stay_without_readings_between_two_sample_hours_has_no_row(
        self, stream: Stream
    ) -> None:
        assert set(sample(stream, (30, 48)).unique()) == {30}

    def test_more_hours_add_rows_without_changing_others(self, stream: Stream) -> None:
        plain, more = sample(stream, (24,)), sample(stream, (24,), (12, 50))
        assert more.value_counts().to_dict() == {24: 320, 12: 320, 50: 320}
        pd.testing.assert_series_equal(more[more == 24], plain)
        # The stay ends at hour 30, so the last reading before hour 40 is that of hour 30.
        assert set(sample(stream, (30,), (40,)).unique()) == {30}

    def test_rows_do_not_depend_on_later_readings(
        self, stream: Stream, outcomes: pd.DataFrame
    ) -> None:
        hours = sample(stream, (8,))
        rows = assemble(stream, outcomes, DIED, PRESSURES, hours)
        early = stream.readings[stream.elapsed_hours < 8]
        past = Stream(early, stream.ages, {}, "")
        again = assemble(past, outcomes, DIED, PRESSURES, hours)
        np.testing.assert_array_equal(again.x, rows.x)

    def test_features_and_labels_equal_those_of_pandas(
        self, stream: Stream, outcomes: pd.DataFrame
    ) -> None:
        rows = assemble(stream, outcomes, DIED, PRESSURES, sample(stream, (24,)))
        readings = stream.readings[stream.readings["parameter"] == "blood_pressure"]
        by_stay = dict(list(readings.groupby(KEY)))
        for x, y, (_, about) in zip(rows.x, rows.y, rows.about.iterrows(), strict=True):
            key = (about["pat_id"], about["date_admission"])
            values = by_stay[key]["value"].to_numpy()[:24]
            expected = [about["age"], values[-1], values[-6:].mean()]
            np.testing.assert_allclose(x, expected, rtol=1e-9)
            assert y == outcomes.loc[key, "died"]

    def test_with_a_horizon_only_near_events_count_and_later_rows_are_dropped(
        self, ward: Path, stream: Stream
    ) -> None:
        soon = Label(column="died", event="d", after_column="died_after_hours", within_hours=20)
        hours = sample(stream, (8, 24, 30))
        outcomes = outcome_file.read(ward, soon).table
        rows = assemble(stream, outcomes, soon, PRESSURES, hours)
        died = rows.about["died"].to_numpy()
        # The event is 40 hours after admission: 33 hours after 7:00, and 17 hours after 23:00.
        at = rows.about["hour"].to_numpy()
        assert (rows.y[at == 8] == 0).all()
        assert (rows.y[at == 24] == died[at == 24]).all()
        early = Label(column="died", event="d", after_column="early", within_hours=20)
        moved = outcomes.assign(early=outcomes["died_after_hours"] - 30)  # at hour 10
        rows = assemble(stream, moved, early, PRESSURES, hours)
        assert (rows.about.loc[rows.about["died"] == 1, "hour"] == 8).all()

    def test_features_that_few_stays_have_are_dropped(
        self, stream: Stream, outcomes: pd.DataFrame
    ) -> None:
        features = [*PRESSURES, Feature.parse("lactate__last"), Feature.parse("lactate__count")]
        rows = assemble(stream, outcomes, DIED, features, sample(stream, (24,)))
        kept, dropped = usable(rows, features)
        assert kept == PRESSURES
        assert [feature.name for feature in dropped] == ["lactate__last", "lactate__count"]

    def test_errors_of_hospital_are_reported(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"age\.csv"):
            read_stream(Data(folder=tmp_path))

    def test_the_error_for_a_missing_label_names_its_column(self, ward: Path) -> None:
        with pytest.raises(DataError, match=r"outcome\.csv has no column sepsis"):
            outcome_file.read(ward, Label(column="sepsis", event="sepsis"))


class TestSplit:
    def test_a_split_by_time_separates_patients_too(self, rows: Rows) -> None:
        past, now = split(rows, Split(by="time", test_share=0.4))
        assert past.about["date_admission"].max() < now.about["date_admission"].min()
        assert not set(past.patients) & set(now.patients)
        # Patients with a second stay are only in the training rows.
        assert len(past.y) + len(now.y) < len(rows.y)

    def test_a_split_by_cohort_separates_patients_too(self, rows: Rows) -> None:
        past, now = split(rows, Split(by="cohort", train=("a",), test=("b",)))
        assert set(past.about["cohort"]) == {"a"}
        assert set(now.about["cohort"]) == {"b"}
        assert not set(past.patients) & set(now.patients)

    def test_folds_keep_patients_together(self, rows: Rows) -> None:
        folds = models.folds(rows, 0)
        assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(rows.y)))
        for past, now in folds:
            assert not set(rows.patients[past]) & set(rows.patients[now])

    def test_a_side_without_events_is_an_error(self, rows: Rows) -> None:
        with pytest.raises(
            DataError, match=r"the test rows .* \d+ of all \d+ stays have the event"
        ):
            split(rows, Split(by="cohort", train=("a",), test=("c",)))


class TestFigures:
    @pytest.fixture
    def scores(self) -> Scores:
        draw = np.random.default_rng(1)
        truth = draw.normal(-1.5, 1.2, 900)
        y = (draw.random(900) < 1 / (1 + np.exp(-truth))).astype(np.int64)
        # These probabilities have ties, and are too extreme and too high on purpose.
        p = np.round(1 / (1 + np.exp(-(0.5 + 2 * truth))), 2)
        return Scores(y, p, np.arange(900) // 3, draw.uniform(0.5, 2, 900))

    def test_ranking_figures_equal_those_of_scikit_learn(self, scores: Scores) -> None:
        figures = evaluate(scores, 20, 0)
        arguments: dict[str, Any] = {"sample_weight": scores.weight}
        roc = roc_auc_score(scores.y, scores.probability, **arguments)
        precision = average_precision_score(scores.y, scores.probability, **arguments)
        assert figures["auroc"].value == pytest.approx(roc, abs=1e-12)
        assert figures["auprc"].value == pytest.approx(precision, abs=1e-12)

    def test_the_brier_score_of_a_constant_is_that_of_the_base_rate(self) -> None:
        y = np.array([0, 0, 0, 1])
        figures = evaluate(Scores(y, np.full(4, 0.25), np.arange(4)), 20, 0)
        assert figures["brier"].value == figures["brier_of_base_rate"].value == 0.1875
        assert figures["auroc"].value == 0.5
        assert figures["auprc"].value == figures["prevalence"].value == 0.25

    def test_intervals_are_bootstrapped_by_patient(self) -> None:
        draw = np.random.default_rng(2)
        y = (draw.random(200) < 0.3).astype(np.int64)
        p = np.clip(0.3 + 0.2 * y + draw.normal(0, 0.2, 200), 0.01, 0.99)
        once = evaluate(Scores(y, p, np.arange(200)), 200, 0)["auroc"]
        # Ten copies of each patient's row contain no more information than one.
        copied = Scores(np.repeat(y, 10), np.repeat(p, 10), np.repeat(np.arange(200), 10))
        ten = evaluate(copied, 200, 0)["auroc"]
        assert ten.value == pytest.approx(once.value)
        assert (ten.low, ten.high) == pytest.approx((once.low, once.high))
        assert once.low < once.value < once.high

    def test_a_gain_in_auroc_compares_both_models_on_the_same_resampled_patients(
        self, scores: Scores
    ) -> None:
        draw = np.random.default_rng(3)
        noise = scores.probability + draw.normal(0, 0.1, 900)
        worse = Scores(scores.y, noise, scores.patients, scores.weight)
        gain = auroc_gain(scores, worse, 200, 0)
        ours, theirs = (evaluate(one, 200, 0, ("auroc",))["auroc"] for one in (scores, worse))
        assert gain.value == pytest.approx(ours.value - theirs.value)
        assert gain.low < gain.value < gain.high
        # The interval of the difference is much narrower than the intervals of the two figures
        # suggest.
        assert gain.high - gain.low < 0.6 * (ours.high - ours.low)
        same = auroc_gain(scores, scores, 50, 0)
        assert (same.low, same.value, same.high) == (0, 0, 0)

    def test_operating_points_have_the_figures_of_a_worked_case(self) -> None:
        scores = Scores(
            np.array([1, 1, 0, 1, 0, 0]), np.array([0.9, 0.8, 0.7, 0.3, 0.2, 0.1]), np.arange(6)
        )
        assert balanced_threshold(scores) == 0.7
        point = operating_point(scores, 0.7, 20, 0)
        rates = [point.sensitivity, point.ppv, point.specificity, point.flagged]
        assert [rate.value for rate in rates] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1 / 2])
        # Of six rows, two are hits and one is a false alarm, with the weights 0.7 and 0.3.
        assert point.net_benefit.value == pytest.approx(2 / 6 - 1 / 6 * 7 / 3)
        assert point.of_acting_on_all.value == pytest.approx(3 / 6 - 3 / 6 * 7 / 3)

    def test_ppv_without_flagged_rows_is_shown_as_a_dash(self, scores: Scores) -> None:
        timid = Scores(scores.y, np.minimum(scores.probability, 0.9), scores.patients)
        point = operating_point(timid, 0.95, 20, 0)
        assert point.ppv.percent == ("–", "")
        assert point.flagged.percent == ("0.0%", "0.0% to 0.0%")
        assert point.net_benefit.value == 0

    def test_operating_points_without_events_or_with_few_flagged_rows_have_no_figures(self) -> None:
        y, p = np.zeros(200, int), np.full(200, 0.1)
        y[:3], p[:3] = 1, 0.9
        # Five percent of the bootstraps have no event; they do not lower the interval.
        assert operating_point(Scores(y, p, np.arange(200)), 0.5, 200, 0).sensitivity.low == 1
        never = operating_point(Scores(0 * y, p, np.arange(200)), 0.5, 20, 0)
        assert never.sensitivity.percent == ("–", "")
        # One patient is flagged, and a third of the bootstraps lack this patient.
        p[1:3] = 0.1
        assert operating_point(Scores(y, p, np.arange(200)), 0.5, 200, 0).ppv.percent[1] == ""

    def test_intervals_of_operating_points_match_the_normal_approximation(
        self, scores: Scores
    ) -> None:
        plain = Scores(scores.y, scores.probability, np.arange(900))
        rate = operating_point(plain, 0.5, 1000, 0).specificity
        others = (scores.y == 0).sum()
        half = 1.96 * np.sqrt(rate.value * (1 - rate.value) / others)
        assert (rate.low, rate.high) == pytest.approx(
            (rate.value - half, rate.value + half), abs=0.15 * half
        )


class TestModels:
    @pytest.mark.parametrize("kind", ["logistic", "boosting", "blend"])
    def test_a_trained_model_is_predictive_calibrated_and_reproducible(
        self, kind: str, rows: Rows
    ) -> None:
        past, now = split(rows, Split(by="cohort", train=("a",), test=("b",)))
        settings = Model(name="m", title="M", kind=kind, seed=3, trees=SMALL)  # type: ignore[arg-type]
        model = models.fit(settings, past, PRESSURES)
        p = model.predict(now.x)
        assert roc_auc_score(now.y, p) > 0.9
        assert p.mean() == pytest.approx(now.y.mean(), abs=0.07)
        again = models.fit(settings, past, PRESSURES)
        np.testing.assert_array_equal(again.predict(now.x), p)
        # Missing values are not an error.
        assert np.isfinite(model.predict(np.full((1, 3), np.nan))).all()

    @pytest.mark.parametrize("kind", ["boosting", "blend"])
    def test_a_trained_model_has_a_compiled_form(self, kind: str, rows: Rows) -> None:
        past, now = split(rows, Split(by="cohort", train=("a",), test=("b",)))
        settings = Model(name="m", title="M", kind=kind, seed=3, trees=SMALL)  # type: ignore[arg-type]
        estimator = models.fit(settings, past, PRESSURES).estimator
        form = compile_estimator(estimator, np.full(now.x.shape[1], np.nan))
        assert form is not None
        x = np.vstack([now.x, np.full((1, 3), np.nan)])
        np.testing.assert_allclose(
            form.probability(x), estimator.predict_proba(x)[:, 1], rtol=0, atol=1e-12
        )

    def test_shuffled_outcomes_cannot_be_learned(self, rows: Rows) -> None:
        past, now = split(rows, Split(by="cohort", train=("a",), test=("b",)))
        areas = []
        for seed in range(8):
            # The outcome is drawn per patient, so that the rows of a patient are correlated, as in
            # real data.
            draw = np.random.default_rng(seed)
            fate = {patient: draw.random() < 0.25 for patient in np.unique(rows.patients)}
            lots = [np.array([int(fate[n]) for n in part.patients]) for part in (past, now)]
            settings = Model(name="m", title="M", seed=seed, trees=SMALL)
            guess = models.trees(settings, Rows(past.x, lots[0], past.about), PRESSURES)
            areas.append(roc_auc_score(lots[1], guess.predict_proba(now.x)[:, 1]))
        assert abs(np.mean(areas) - 0.5) < 0.07


class TestRun:
    """Tests one run from the CSVs to the artifact and the report."""

    def test_the_artifact_is_served_as_it_was_trained(
        self, made: tuple[train.Result, Path, Path]
    ) -> None:
        result, folder, _ = made
        model = Repository(folder.parent.parent).load(Ref("small", "1"))
        served = model.predict(result.judgement.test.x)["probability"].astype(np.float64)
        np.testing.assert_allclose(
            served, result.model.predict(result.judgement.test.x), atol=1e-12
        )
        manifest = model.manifest
        assert manifest.training is not None
        assert manifest.training["sha256"] == result.digest
        assert [f.name for f in manifest.features if f.required] == ["age"]
        assert "nothing__last" not in model.names
        roc = manifest.metrics[result.headline[0].name]["auroc"]
        assert roc.low is not None
        assert roc.high is not None
        assert roc.low <= roc.value <= roc.high

    def test_the_last_bits_of_a_feature_do_not_change_the_prediction(
        self, made: tuple[train.Result, Path, Path]
    ) -> None:
        result, folder, _ = made
        model = Repository(folder.parent.parent).load(Ref("small", "1"))
        x = np.vstack([result.train.x, result.judgement.test.x])
        expected = model.predict(x)["probability"]
        assert len(np.unique(expected)) > 100
        for error in (2e-15, -2e-15):
            moved = model.predict(x * (1 + error))["probability"]
            np.testing.assert_array_equal(moved, expected)

    def test_the_artifact_does_not_reveal_the_training_patients(
        self, made: tuple[train.Result, Path, Path]
    ) -> None:
        result, folder, _ = made
        assert result.model.estimator.cv is None
        golden = json.loads((folder / "golden.json").read_text())
        rows = {tuple(row) for row in result.final.x.tolist()}
        assert not rows & {tuple(row["features"].values()) for row in golden}
        assert any(None in row["features"].values() for row in golden)

    def test_figures_are_computed_on_unseen_patients(
        self, made: tuple[train.Result, Path, Path]
    ) -> None:
        result, _, _ = made
        assert not set(result.train.patients) & set(result.judgement.test.patients)
        assert result.headline[0].figures["auroc"].value > 0.9
        formula = next(line for line in result.baselines if "formula/1" in line.name)
        assert formula.note == (
            f"{len(result.judgement.here.y)} rows lacked a required value; "
            "without any value: rmean_respiration_rate"
        )
        # The formula requires a value that no row has, so its AUROC is that of chance.
        ours = result.headline[0].figures["auroc"].value
        gain = formula.figures["auroc_gain"]
        assert gain.value == pytest.approx(ours - formula.figures["auroc"].value)
        assert 0 < gain.low < gain.high
        crossed = next(line for line in result.headline if "2-fold" in line.name)
        assert crossed.rows == len(result.final.at(24).y)
        assert crossed.figures["auroc"].value > 0.9
        assert [line.name for line in result.without] == [
            *("everything", "without blood_pressure", "without heart_rate", "without age"),
        ]
        # In this ward, only the pressure is predictive.
        without = {line.name: line.figures["auroc"].value for line in result.without}
        assert without["without blood_pressure"] < 0.65
        assert without["without heart_rate"] > 0.9

    def test_rows_of_more_hours_are_only_used_for_training(
        self, ward: Path, tmp_path: Path, made: tuple[train.Result, Path, Path]
    ) -> None:
        path = tmp_path / "c.toml"
        text = toml(ward, tmp_path, kind="logistic").replace("[1, 8, 24]", "[24]\nmore_hours = [8]")
        path.write_text(text)
        result, plain = train.run(config_file.load(path)), made[0]
        assert set(result.train.about["hour"]) == {8, 24}
        assert set(result.judgement.test.about["hour"]) == {24}
        assert set(result.final.about["hour"]) == {8, 24}
        np.testing.assert_array_equal(result.judgement.here.y, plain.judgement.here.y)
        np.testing.assert_array_equal(result.judgement.here.patients, plain.judgement.here.patients)
        assert {line.rows for line in result.headline} <= {
            len(result.judgement.here.y),
            len(result.final.at(24).y),
        }

    def test_the_report_is_one_self_contained_file(
        self, made: tuple[train.Result, Path, Path]
    ) -> None:
        result, _, page = made
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:link|script|img|iframe)\b", text)
        assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#)""", text)
        assert not re.findall(r"url\((?!#)|@import", text)
        assert "Invented data &amp; &lt;nothing&gt; more." in text
        assert text.count('<svg role="img" aria-label="') == 11
        assert f"{result.headline[0].figures['auroc'].value:.3f}" in text

    def test_the_card_has_the_sections_of_the_standard(
        self, made: tuple[train.Result, Path, Path]
    ) -> None:
        _, folder, _ = made
        card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
        assert headings == [
            "Basic information",
            "Summary",
            "Uses and directions",
            "Warnings",
            "Trust ingredients",
            "Key metrics",
            "Resources",
        ]


class TestCommand:
    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "training", *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_an_invalid_setting_is_named_in_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.write_text(toml(tmp_path, tmp_path, kind="forest"))
        done = self.command("train", path)
        assert done.returncode == 1
        assert (
            done.stderr.strip()
            == f"training: {path}: model.kind: 'forest' is not one of logistic, boosting, blend"
        )

    def test_a_new_config_lacks_only_the_texts_of_the_card(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        assert self.command("new", path).returncode == 0
        names = re.findall(r'^(\w+) = "…"', path.read_text(), re.MULTILINE)
        assert len(names) == 8
        config = config_file.load(path)
        assert config.model.name == "mine"
        assert set(config.card.unwritten) == set(names)
        path.write_text(path.read_text().replace("…", "A text."))
        assert config_file.load(path).card.unwritten == []

    def test_a_new_config_never_replaces_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text("mine")
        assert self.command("new", path).returncode == 1
        assert path.read_text() == "mine"

    def test_a_failed_import_is_reported_in_one_line(self, tmp_path: Path) -> None:
        done = self.command("import", "mimic", tmp_path / "none", tmp_path)
        assert done.returncode == 1
        assert done.stderr.strip() == f"training: {tmp_path / 'none'}: no PATIENTS.csv or " + (
            "PATIENTS.csv.gz here"
        )

    def test_a_version_that_exists_is_not_trained_again(self, tmp_path: Path) -> None:
        (tmp_path / "models" / "small" / "7").mkdir(parents=True)
        text = toml(tmp_path, tmp_path).replace('name = "small"', 'name = "small"\nversion = "7"')
        (tmp_path / "c.toml").write_text(text)
        done = self.command("train", tmp_path / "c.toml")
        assert done.returncode == 1
        assert "small/7 exists already" in done.stderr

    def test_of_two_trainings_at_once_the_later_takes_the_next_version(
        self,
        made: tuple[train.Result, Path, Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        result, first, _ = made
        path = tmp_path / "c.toml"
        path.write_text(toml(result.config.data.folder, tmp_path))

        def run(config: config.Config) -> train.Result:
            # Meanwhile the other training ends.
            shutil.copytree(first, tmp_path / "models" / "small" / "1")
            return dataclasses.replace(result, config=config)

        monkeypatch.setattr(train, "run", run)
        monkeypatch.setattr(sys, "argv", ["training", "train", str(path)])
        assert main() == 0
        second = Repository(tmp_path / "models").load(Ref("small", "2"))
        assert second.names == Repository(first.parent.parent).load(Ref("small", "1")).names
        assert len(list((tmp_path / "reports").iterdir())) == 1

    def test_the_next_version_is_the_highest_plus_one(self, tmp_path: Path) -> None:
        assert config.free_version(tmp_path, "small") == "1"
        for version in ("2", "10", "old"):
            (tmp_path / "small" / version).mkdir(parents=True)
        assert config.free_version(tmp_path, "small") == "11"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("hour = 24", "hour = 23"), "report.hour: 23 is not in data.sample_hours"),
        (("folds = 2", "folds = 1"), "report.folds: must be 0"),
        (
            ('kind = "blend"', 'kind = "logistic"\nremoval = 0.3'),
            "model.removal: logistic",
        ),
        (("[1, 8, 24]", "[8, 1, 24]"), "data.sample_hours: must ascend"),
        (
            ("[1, 8, 24]", "[1, 8, 24]\nmore_hours = [8]"),
            "data.more_hours: 8 is also in data.sample",
        ),
        (("[1, 8, 24]", "[1, 8, 24]\nmore_hours = [9, 7]"), "data.more_hours: must ascend"),
        (("nothing__last", "nothing__median"), "feature 'nothing__median'"),
        (('"std"]', '"median"]'), "unknown aggregation 'median'"),
        (('by = "time"', 'by = "cohort"'), "needs train and test"),
        (('column = "died"', 'column = "died"\nwithin_hours = 4'), "after_column and within_hours"),
        (("[model]", 'required = ["spo2__last"]\n[model]'), "features.grid: Object contains"),
        (('names = ["age", ', 'names = ["'), "TOML|Expected|Unclosed|Cannot"),
    ],
)
def test_contradictions_in_a_config_are_errors(
    change: tuple[str, str], complaint: str, tmp_path: Path
) -> None:
    assert_rejected(toml(tmp_path, tmp_path), change, complaint, tmp_path)


def assert_rejected(text: str, change: tuple[str, str], complaint: str, folder: Path) -> None:
    """Asserts that the changed config raises a ConfigError that matches `complaint` and names the
    file.
    """
    path = folder / "c.toml"
    assert change[0] in text
    path.write_text(text.replace(*change, 1))
    with pytest.raises(ConfigError, match=complaint) as error:
        config_file.load(path)
    assert str(error.value).startswith(f"{path}: ")


def test_all_errors_of_a_config_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    text = toml(tmp_path, tmp_path, kind="forest")
    for old, new in (
        ("[1, 8, 24]", "[1, 0, 24]"),
        ('event = "', 'evnt = "'),
        ("hour = 24", 'hour = "24"'),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        config_file.load(path)
    lines = [line.removeprefix(f"{path}: ") for line in str(error.value).splitlines()]
    assert {line.partition(":")[0] for line in lines} == {
        *("data.sample_hours", "label.evnt", "label.event", "model.kind", "report.hour"),
    }


@pytest.mark.parametrize(
    ("stays", "events", "reason"),
    [(40, 13, "30 stays to train on"), (80, 4, "stays with the event")],
)
def test_a_ward_with_too_few_stays_or_events_is_an_error(
    stays: int, events: int, reason: str, tmp_path: Path
) -> None:
    for name, header in (
        ("age", "pat_id;age"),
        ("admission", "pat_id;date_admission;date_discharge"),
        ("outcome", "pat_id;date_admission;died"),
        ("signal", "pat_id;day;hour;parameter;value"),
    ):
        (tmp_path / f"{name}.csv").write_text(f"{header}\n")
    for number in range(stays):
        day = f"2150-{1 + number // 28:02}-{1 + number % 28:02}"
        event = int(number % (stays // events) == 0)
        for name, row in (
            ("age", f"{number};{50 + number % 30}"),
            ("admission", f"{number};{day};"),
            ("outcome", f"{number};{day};{event}"),
            *(
                ("signal", f"{number};{day};{hour};heart_rate;{70 + (number + hour) % 20}")
                for hour in (1, 9, 23)
            ),
        ):
            with (tmp_path / f"{name}.csv").open("a") as file:
                file.write(f"{row}\n")
    path = tmp_path / "ward.toml"
    config_file.write_new(path)
    text = path.read_text().replace("patient_data", str(tmp_path)).replace("hour = 24", "hour = 12")
    path.write_text(text.replace("…", "A text."))
    with pytest.raises(DataError, match=reason):
        train.run(config_file.load(path))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("screen", [Terminal, io.StringIO])
def test_progress_is_shown_only_in_a_terminal(
    screen: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = screen()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr("training.progress.DELAY", 0)
    assert list(progress("abc", "fits")) == ["a", "b", "c"]
    assert ("fits" in shown.getvalue()) == (screen is Terminal)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path: Path) -> None:
    assert config_file.load(path).declared


@pytest.fixture(scope="module")
def model() -> Any:
    return Repository(ROOT / "models").load(SHIPPED)


class TestShipped:
    """Tests icu-mortality/2, the shipped champion."""

    def test_the_card_of_the_shipped_model_states_its_limits(self, model: Any) -> None:
        limits = " ".join(model.manifest.limits)
        assert "not a medical device" in limits
        assert "extrapolated" in limits

    def test_the_features_of_the_shipped_model_have_windows_and_are_not_counts(
        self, model: Any
    ) -> None:
        for feature in model.manifest.features:
            assert feature.name == "age" or feature.window_hours
            assert feature.aggregation not in ("count", "age")

    def test_the_shipped_model_gives_a_clearly_ill_patient_a_higher_risk_than_a_well_one(
        self, model: Any
    ) -> None:
        def row(**values: float) -> list[float]:
            found = []
            for feature in model.manifest.features:
                flat = {"std": 4.0, "trend": 0.0}.get(feature.aggregation or "")
                found.append(flat if flat is not None else values[feature.parameter or "age"])
            return found

        well = row(age=40, blood_pressure=125, heart_rate=75, gcs=15, temperature=37)
        ill = row(age=84, blood_pressure=82, heart_rate=125, gcs=5, temperature=35)
        low, high = model.predict(np.array([well, ill]))["probability"]
        assert low < 0.08 < 0.3 < high
        unknown = np.full((1, len(model.names)), np.nan)
        unknown[0, model.names.index("age")] = 65
        assert 0.05 < model.predict(unknown)["probability"][0] < 0.3
