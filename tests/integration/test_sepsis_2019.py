"""Tests that the shipped config alone reproduces the task of the PhysioNet 2019 challenge.

The test imports records in the published format, and computes the utility with the published
formula.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from training import config_file, train
from training.importers import convert

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "training" / "configs" / "sepsis-2019.toml"
COHORTS = ("training_setA", "training_setB")
STAYS = 66
NAMES = (
    *("HR", "O2Sat", "Temp", "SBP", "MAP", "DBP", "Resp", "EtCO2", "BaseExcess", "HCO3", "FiO2"),
    *("pH", "PaCO2", "SaO2", "AST", "BUN", "Alkalinephos", "Calcium", "Chloride", "Creatinine"),
    *("Bilirubin_direct", "Glucose", "Lactate", "Magnesium", "Phosphate", "Potassium"),
    *("Bilirubin_total", "TroponinI", "Hct", "Hgb", "PTT", "WBC", "Fibrinogen", "Platelets"),
)

Records = dict[int, pd.DataFrame]


def record(number: int, septic: bool, draw: np.random.Generator) -> pd.DataFrame:
    """Hourly values, most of which are missing; some hours have none. A septic patient has a fever
    before the onset.
    """
    hours = int(draw.integers(26, 36))
    onset = int(draw.integers(3, hours)) if septic else 10_000
    ill = np.clip((np.arange(hours) - onset + 12) / 12, 0, 2)
    table = pd.DataFrame(np.nan, index=range(hours), columns=NAMES)
    for name, level, slope, spread, known in (
        ("HR", 82, 18, 6, 0.9),
        ("O2Sat", 97, -2, 1, 0.9),
        ("Temp", 36.8, 1.0, 0.2, 0.3),
        ("SBP", 122, -14, 8, 0.85),
        ("MAP", 82, -8, 5, 0.85),
        ("DBP", 62, -4, 5, 0.7),
        ("Resp", 18, 4, 2, 0.85),
        ("Lactate", 1.4, 1.5, 0.3, 0.1),
        ("WBC", 9, 4, 2, 0.08),
        ("Creatinine", 1.0, 0.5, 0.2, 0.08),
    ):
        values = level + slope * ill + draw.normal(0, spread, hours)
        table[name] = np.where(draw.random(hours) < known, values.round(2), np.nan)
    table.loc[draw.random(hours) < 0.05, list(NAMES)] = np.nan
    table["Age"], table["Gender"] = 40 + number % 50, number % 2
    table["Unit1"], table["Unit2"], table["HospAdmTime"] = 1, 0, -2.5
    table["ICULOS"] = np.arange(1, hours + 1)
    # The published label begins six hours before the onset.
    table["SepsisLabel"] = (np.arange(hours) >= onset - 6).astype(int)
    return table


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Records]:
    folder, draw, found = tmp_path_factory.mktemp("challenge"), np.random.default_rng(19), {}
    for cohort_number, cohort in enumerate(COHORTS):
        (folder / cohort).mkdir()
        for number in range(STAYS):
            pat_id = 100_000 * cohort_number + number + 1
            table = record(number, number % 3 == 0, draw)
            path = folder / cohort / f"p{pat_id:06}.psv"
            table.to_csv(path, sep="|", index=False, na_rep="NaN")
            found[pat_id] = table
    return folder, found


def utility(labels: list[np.ndarray], predictions: list[np.ndarray]) -> float:
    """The normalised utility, computed hour by hour as in the supplement of Reyna et al. 2020."""

    def total(of_stay: np.ndarray, alarms: np.ndarray) -> float:
        septic = of_stay.any()
        onset = of_stay.argmax() + 6 if septic else np.inf
        score = 0.0
        for hour, alarm in enumerate(alarms):
            if not septic:
                score += -0.05 if alarm else 0.0
            elif hour > onset + 3:
                continue
            elif alarm and hour <= onset - 6:
                score += max((hour - (onset - 12)) / 6, -0.05)
            elif alarm:
                score += (onset + 3 - hour) / 9
            elif hour > onset - 6:
                score += -2 * (hour - (onset - 6)) / 9
        return score

    observed = best = inaction = 0.0
    for of_stay, alarms in zip(labels, predictions, strict=True):
        perfect = np.zeros(len(of_stay), dtype=bool)
        if of_stay.any():
            onset = of_stay.argmax() + 6
            perfect[max(0, onset - 12) : onset + 4] = True
        observed += total(of_stay, alarms)
        best += total(of_stay, perfect)
        inaction += total(of_stay, np.zeros(len(of_stay), dtype=bool))
    return (observed - inaction) / (best - inaction)


def test_the_shipped_config_reproduces_the_task_of_the_challenge(
    records: tuple[Path, Records], tmp_path: Path
) -> None:
    source, tables = records
    convert("physionet2019", source, tmp_path / "data")
    text = CONFIG.read_text().replace("var/physionet2019", str(tmp_path / "data"))
    text = text.replace("count = 300\nrate = 0.05", "count = 10\nrate = 0.3")
    text = text.replace("resamples = 200", "resamples = 20")
    (tmp_path / "sepsis.toml").write_text(text)
    result = train.run(config_file.load(tmp_path / "sepsis.toml"))

    judged = result.judgement
    about = judged.test.about.assign(y=judged.test.y, p=judged.scores.probability)
    assert set(about["cohort"]) == {"training_setB"}
    at, labels, alarms = judged.points["utility"].threshold, [], []
    for pat_id, rows in about.groupby("pat_id"):
        table = tables[pat_id]
        label = table["SepsisLabel"].to_numpy()
        rows = rows.set_index(rows["hour"].to_numpy() - 1).sort_index()
        # There is one row per hour up to three hours after the onset, with the published label.
        until = min(len(label), label.argmax() + 6 + 4) if label.any() else len(label)
        assert rows.index.tolist() == list(range(until))
        assert rows["y"].tolist() == label[:until].tolist()
        of_stay = np.zeros(len(label), dtype=bool)
        of_stay[:until] = rows["p"] >= at
        labels.append(label)
        alarms.append(of_stay)
    assert len(labels) == STAYS
    figure = next(f for line in judged.headline if (f := line.figures.get("utility")))
    assert figure.value == pytest.approx(utility(labels, alarms), abs=1e-9)
    assert figure.low <= figure.value <= figure.high
    assert any(of_stay.any() for of_stay in alarms)
