"""Tests the hour of the stay, rows at hours without a reading, and thresholds by number of alarms.

The expected values are computed from the CSVs, with pandas and plain loops.
"""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modelapi.artifact import Ref
from modelapi.repository import Repository
from tests.integration.test_training import DIED, assert_rejected, toml, write_ward
from training import artifact, budget, config_file, evaluate, train
from training import outcomes as outcome_file
from training.config import Data, Label
from training.rows import Rows, assemble, sample
from training.stream import read as read_stream
from wire.alarms import Policy
from wire.features import Feature

HOURS = (1, 4, 8, 12, 24, 36)
NAMES = ("hour", "age", "heart_rate__last", "blood_pressure__mean__6h", "heart_rate__age")
SOON = Label(column="died", event="d", after_column="died_after_hours", within_hours=12)


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ward whose stays begin and end at any hour, and have hours without a reading."""
    folder = tmp_path_factory.mktemp("gaps")
    draw = np.random.default_rng(3)
    ages, admissions, outcomes, signals = [], [], [], []
    for pat_id in range(110):
        day = date(2022, 1, 1) + timedelta(days=pat_id)
        ages.append(f"{pat_id};{40 + pat_id % 50}")
        admissions.append(f"{pat_id};{day};{day + timedelta(days=5)}")
        died = pat_id % 3 == 0
        outcomes.append(f"{pat_id};{day};{int(died)};{draw.integers(20, 60) if died else ''}")
        first = int(draw.integers(0, 20))
        later = draw.choice(np.arange(1, 45), int(draw.integers(1, 12)), replace=False)
        for hour in first + np.append(0, np.sort(later)):
            at = f"{day + timedelta(days=int(hour) // 24)};{hour % 24}"
            for parameter, level in (("heart_rate", 85), ("blood_pressure", 120)):
                if draw.random() < 0.7 or (hour == first and parameter == "heart_rate"):
                    signals.append(f"{pat_id};{at};{parameter};{draw.normal(level, 9):.1f}")
    tables = {
        "age.csv": ["pat_id;age", *ages],
        "admission.csv": ["pat_id;date_admission;date_discharge", *admissions],
        "outcome.csv": ["pat_id;date_admission;died;died_after_hours", *outcomes],
        "signal.csv": ["pat_id;day;hour;parameter;value", *signals],
    }
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def rows_of(folder: Path, label: Label, carry_forward: bool) -> Rows:
    stream = read_stream(Data(folder=folder))
    found = outcome_file.read(folder, label)
    features = [Feature.parse(name) for name in NAMES]
    hours = sample(stream, HOURS, carry_forward=carry_forward)
    return assemble(stream, found.table, label, features, hours)


def expected_rows(folder: Path, carry_forward: bool) -> pd.DataFrame:
    """One line per stay and sample hour, computed from the CSVs; `at`: hours from the midnight of
    the day of admission to the row."""
    signal, ages, stays, died = (
        pd.read_csv(folder / f"{name}.csv", sep=";")
        for name in ("signal", "age", "admission", "outcome")
    )
    signal = signal.merge(stays, on="pat_id")
    days = pd.to_datetime(signal["day"]) - pd.to_datetime(signal["date_admission"])
    signal["at"] = days.dt.days * 24 + signal["hour"]
    age = dict(zip(ages["pat_id"], ages["age"], strict=True))
    lines = []
    for pat_id, own in signal.groupby("pat_id"):
        readings = list(zip(own["at"], own["parameter"], own["value"], strict=True))
        start, end = min(readings)[0], max(readings)[0]
        for before, hour in zip((0, *HOURS), HOURS, strict=False):
            past = sorted(reading for reading in readings if reading[0] < start + hour)
            clock = past[-1][0]
            charted = clock >= start + before
            if not charted and not (carry_forward and start + hour <= end):
                continue
            rates = [(at, value) for at, parameter, value in past if parameter == "heart_rate"]
            pressures = [
                value
                for at, parameter, value in past
                if parameter == "blood_pressure" and at > clock - 6
            ]
            lines.append(
                {
                    "pat_id": pat_id,
                    "sample": hour,
                    "hour": clock - start,
                    "age": age[pat_id],
                    "heart_rate__last": rates[-1][1],
                    "blood_pressure__mean__6h": np.mean(pressures) if pressures else np.nan,
                    "heart_rate__age": clock - rates[-1][0],
                    "at": clock if charted else start + hour,
                }
            )
    return pd.DataFrame(lines).merge(died, on="pat_id")


@pytest.mark.parametrize("carry_forward", [False, True])
def test_rows_with_and_without_readings_equal_those_of_pandas(
    gaps: Path, carry_forward: bool
) -> None:
    rows, expected = rows_of(gaps, DIED, carry_forward), expected_rows(gaps, carry_forward)
    order = np.lexsort((rows.about["hour"], rows.about["pat_id"]))
    found = rows.about[["pat_id", "hour"]].to_numpy()[order]
    np.testing.assert_array_equal(found, expected[["pat_id", "sample"]])
    np.testing.assert_allclose(rows.x[order], expected[list(NAMES)], rtol=1e-8)
    np.testing.assert_array_equal(rows.y[order], expected["died"])
    without = expected_rows(gaps, carry_forward=False)
    assert (len(expected) > len(without) + 30) == carry_forward


def test_a_row_without_a_reading_has_the_label_of_its_sample_hour(gaps: Path) -> None:
    rows, expected = rows_of(gaps, SOON, carry_forward=True), expected_rows(gaps, True)
    ahead = expected["died_after_hours"].where(expected["died"] == 1) - expected["at"]
    kept = ~(ahead <= 0)
    order = np.lexsort((rows.about["hour"], rows.about["pat_id"]))
    found = rows.about[["pat_id", "hour"]].to_numpy()[order]
    np.testing.assert_array_equal(found, expected.loc[kept, ["pat_id", "sample"]])
    np.testing.assert_array_equal(rows.y[order], (ahead[kept] <= 12).astype(int))
    np.testing.assert_allclose(rows.about["ahead"].to_numpy()[order], ahead[kept])


@pytest.mark.parametrize("limit", [0.5, 3.0])
def test_a_threshold_by_number_of_alarms_stays_just_below_the_limit(limit: float) -> None:
    draw = np.random.default_rng(1)
    table = pd.DataFrame(
        {"stay": np.repeat(np.arange(200), 60), "at": np.tile(np.arange(60) / 2, 200)}
    )
    risk = np.repeat(draw.normal(-2, 1, 200), 60) + draw.normal(0, 0.7, len(table))
    table["probability"] = 1 / (1 + np.exp(-risk))
    stays = [
        budget.Path(own["at"].to_numpy(), own["probability"].to_numpy())
        for _, own in table.groupby("stay")
    ]
    chosen = budget.threshold(stays, Policy(at=0.5, learned_hours=24), limit)
    learned = table["at"] < 24

    def per_day(at: float) -> float:
        above = table["probability"] >= at
        raised = above & ~above.groupby(table["stay"]).shift(fill_value=False)
        return (raised & learned).sum() / 200

    assert 0.95 * limit < per_day(chosen) <= limit
    assert budget.alarms_per_day(stays, Policy(at=chosen, learned_hours=24)) == pytest.approx(
        per_day(chosen)
    )


def test_learned_hours_end_at_the_last_sample_hour() -> None:
    assert Data(folder=Path(), sample_hours=(48,)).learned_hours == 48
    assert Data(folder=Path(), sample_hours=(24, 48), more_hours=(36,)).learned_hours == 48


def test_an_alarm_rule_takes_a_threshold_that_was_chosen_on_training_stays(tmp_path: Path) -> None:
    write_ward(tmp_path / "ward")
    text = toml(
        tmp_path / "ward",
        tmp_path,
        kind="logistic",
        more='[alarm]\nthreshold = "alarms 1/day"',
    )
    text = text.replace("[output]", "ablation = false\nalarms_per_day = [1]\n[output]")
    text = text.replace('names = ["age", "nothing__last"]', 'names = ["blood_pressure__last"]')
    grid = text[text.index("[[features.grid]]") : text.index("[model]")]
    text = text.replace(grid, "required = []\n")
    # The models that choose the threshold are fitted to fewer stays. With many rows, they predict
    # as well as the artifact.
    text = text.replace("sample_hours = [1, 8, 24]", "every_hour_to = 24")
    path = tmp_path / "c.toml"
    path.write_text(text)
    result = train.run(config_file.load(path))
    artifact.write(result, "1")
    model = Repository(tmp_path / "models").load(Ref("small", "1"))
    assert model.manifest.alarm is not None
    at = model.manifest.alarm.at
    assert at == model.manifest.thresholds["alarms 1/day"]
    signal = pd.read_csv(tmp_path / "ward" / "signal.csv", sep=";")
    signal = signal[signal["parameter"] == "blood_pressure"]
    values = signal["value"].to_numpy()[:, np.newaxis]
    above = pd.Series(model.predict(values)["probability"] >= at, signal.index)
    hour = signal.groupby("pat_id").cumcount() % 30
    first = hour == 0
    raised = above & (first | ~above.shift(fill_value=False)) & (hour < 24)
    assert raised.sum() / 320 == pytest.approx(1, rel=0.2)


def test_a_model_with_the_hour_and_carried_rows_is_evaluated_as_it_was_trained(
    gaps: Path, tmp_path: Path
) -> None:
    text = toml(gaps, tmp_path, kind="logistic").replace("[1, 8, 24]", "[1, 8, 24, 36]")
    text = text.replace("[label]", "carry_forward = true\n[label]")
    text = text.replace('"nothing__last"', '"hour"').replace("folds = 2", "ablation = false")
    path = tmp_path / "c.toml"
    path.write_text(text)
    result = train.run(config_file.load(path))
    assert "hour" in [feature.name for feature in result.features]
    artifact.write(result, "1")
    found = evaluate.run(
        evaluate.Request(model="small/1", folder=gaps, models=tmp_path / "models", resamples=20)
    )
    every = [*result.train.about["hour"], *result.judgement.test.about["hour"]]
    assert sorted(found.rows.about["hour"]) == sorted(every)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            ('names = ["age"', 'names = ["hour", "age"'),
            "data.parameters: must be empty",
        ),
        (("[card]", "[alarm]\nat = 0.2\nthreshold = 'balanced'\n[card]"), "either at"),
        (("[card]", "[alarm]\nthreshold = 'alarms 1/day'\n[card]"), "is not one of balanced"),
        (
            ("[card]", "[alarm]\nclear = 0.1\nthreshold = 'balanced'\n[card]"),
            "alarm.clear: needs alarm.at",
        ),
        (("resamples = 20", "alarms_per_day = [0]"), "report.alarms_per_day: Expected"),
        (('"blend"', '"blend"\ncalibrate_by = "hours"'), 'model.calibrate_by: .* not "blend"'),
    ],
)
def test_contradictions_in_settings_of_hours_and_alarms_are_errors(
    change: tuple[str, str], complaint: str, tmp_path: Path
) -> None:
    parameters = 'parameters = ["heart_rate", "blood_pressure"]\n[label]'
    text = toml(tmp_path, tmp_path).replace("[label]", parameters)
    assert_rejected(text, change, complaint, tmp_path)
