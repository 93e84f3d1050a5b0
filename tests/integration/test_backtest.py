"""The backtest against scikit-learn and cases with a known answer, from tables made here."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from backtest.__main__ import main
from backtest.history import Version

STAYS, HOURS = 300, 12
TABLES = """
CREATE TABLE positions (stream TEXT, part INT, seq INT, vitals_seq INT, committed_at TEXT);
CREATE TABLE predictions (stream TEXT, seq INT, model TEXT, version TEXT, pat_id INT,
    date_admission TEXT, measured_at TEXT, features TEXT, probability REAL, reason TEXT,
    created_at TEXT);
INSERT INTO positions VALUES ('old', 0, 1, 1, '2026-01-01'), ('ward', 0, 9, 9, '2026-01-02');
"""


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A folder with outcome.csv and icu.sqlite, and the predictions as a table.

    Model `good` knows half of what decides, `weak` a tenth, `none` nothing.
    """
    folder = tmp_path_factory.mktemp("ward")
    draw = np.random.default_rng(5)
    risk = draw.normal(-1.5, 1.5, STAYS)
    died = draw.random(STAYS) < 1 / (1 + np.exp(-risk))
    event_at = draw.integers(4, 40, STAYS)
    stays = pd.DataFrame(
        {
            "pat_id": np.arange(STAYS) + 100,
            "date_admission": "2019-02-01",
            "died": died.astype(int),
            "after": np.where(died, event_at, -1),
        }
    )
    stays["after"] = stays["after"].where(stays["after"] >= 0)
    stays.to_csv(folder / "outcome.csv", sep=";", index=False)
    rows = []
    for model, noise in (("good", 1.0), ("weak", 6.0), ("none", 1e6)):
        seq = 0
        for stay in range(STAYS):
            for hour in range(HOURS):
                seq += 1
                score = (risk[stay] + draw.normal(0, noise)) / (1 + noise / 3)
                probability = 1 / (1 + np.exp(-np.clip(score, -30, 30)))
                rows.append((seq, model, 100 + stay, hour, probability))
    table = pd.DataFrame(rows, columns=["seq", "model", "pat_id", "hour", "probability"])
    connection = sqlite3.connect(folder / "icu.sqlite")
    connection.executescript(TABLES)
    connection.executemany(
        "INSERT INTO predictions VALUES ('ward', ?, ?, '1', ?, '2019-02-01', ?, '{}', ?, NULL, '')",
        [
            (seq, model, pat_id, f"2019-02-01 {hour:02}:00:00", probability)
            for seq, model, pat_id, hour, probability in rows
        ],
    )
    connection.commit()
    connection.close()
    return folder, table.merge(stays, on="pat_id")


def run(
    ward: Path, capsys: pytest.CaptureFixture[str], models: Sequence[str], *options: str
) -> tuple[int, dict[str, object]]:
    code = main(
        [
            *(str(ward), *models, "--database", f"sqlite:///{ward}/icu.sqlite"),
            *("--outcome", "died", "--resamples", "20", "--to", str(ward / "report"), *options),
        ]
    )
    printed = capsys.readouterr().out.strip().splitlines()
    return code, json.loads(printed[-1]) if printed else {}


def test_figures_equal_those_of_scikit_learn(
    ward: tuple[Path, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = ward
    code, found = run(folder, capsys, ["good/1"])
    assert code == 0
    (model,) = found["models"]  # type: ignore[misc]
    rows = table[table["model"] == "good"]
    weight = 1 / rows.groupby("pat_id")["seq"].transform("size")
    y, p = rows["died"], rows["probability"]
    expected = {
        "auroc": roc_auc_score(y, p, sample_weight=weight),
        "auprc": average_precision_score(y, p, sample_weight=weight),
        "brier": brier_score_loss(y, p, sample_weight=weight),
    }
    for name, value in expected.items():
        assert model[name][0] == pytest.approx(value, abs=1e-12)
    assert model["readings"] == len(rows)
    assert (folder / "report" / "index.html").read_text().startswith("<!doctype html>")


def test_readings_at_or_after_the_event_are_excluded(
    ward: tuple[Path, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = ward
    _, found = run(folder, capsys, ["good/1"], "--after", "after")
    rows = table[(table["model"] == "good")]
    over = (rows["died"] == 1) & (rows["hour"] >= rows["after"])
    (model,) = found["models"]  # type: ignore[misc]
    assert over.sum() > 0
    assert model["readings"] == (~over).sum()
    assert model["excluded"] == {"reading at or after the event": over.sum()}


def test_a_model_against_itself_differs_by_exactly_0(
    ward: tuple[Path, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = run(ward[0], capsys, ["good/1", "good/1"])
    (comparison,) = found["comparisons"]  # type: ignore[misc]
    assert comparison["auroc_gain"] == [0, 0, 0]
    assert comparison["brier_gain"] == [0, 0, 0]
    assert comparison["verdict"] == "not told apart"


def test_a_planted_better_model_is_found(
    ward: tuple[Path, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = run(ward[0], capsys, ["weak/1", "good/1", "none/1"])
    verdicts = [comparison["verdict"] for comparison in found["comparisons"]]  # type: ignore[attr-defined]
    assert verdicts == ["better", "worse"]
    auroc = found["models"][2]["auroc"]  # type: ignore[index]
    assert auroc[1] < 0.5 < auroc[2]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--at-least", "auroc=.7"], 0),
        (["--at-least", "auroc=.99"], 3),
        (["--at-most", "alarms_per_patient_day=1000"], 0),
        (["--at-most", "alarms_per_patient_day=0.001"], 3),
    ],
)
def test_bounds_set_the_exit_code(
    ward: tuple[Path, pd.DataFrame],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
) -> None:
    assert run(ward[0], capsys, ["good/1"], *options)[0] == code


@pytest.mark.parametrize("bound", ["beauty=1", "auroc", "auroc=high"])
def test_an_unknown_figure_is_an_error_of_usage(bound: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["folder", "good/1", "--at-least", bound])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("models", "options"),
    [(["other/1"], []), (["good/2"], []), (["good/1"], ["--outcome", "recovered"])],
)
def test_a_backtest_without_data_is_one_line(
    ward: tuple[Path, pd.DataFrame],
    capsys: pytest.CaptureFixture[str],
    models: list[str],
    options: list[str],
) -> None:
    assert main([str(ward[0]), *models, "--database", f"sqlite:///{ward[0]}/icu.sqlite", *options])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("backtest: ")


@pytest.mark.parametrize("text", ["icu", "icu/", "/1", "icu/1/2", ""])
def test_a_version_is_a_name_and_a_version(text: str) -> None:
    with pytest.raises(ValueError, match="NAME/VERSION"):
        Version.parse(text)
