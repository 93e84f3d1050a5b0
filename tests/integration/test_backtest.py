"""Compares the backtest with scikit-learn and with known results, on synthetic tables."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from shutil import copytree

import msgspec
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from backtest.__main__ import main
from buffer.settings import Settings as BufferSettings
from embedded.programs import Programs
from embedded.stack import CannotRun
from hospital.settings import Settings as HospitalSettings
from modelapi.artifact import Ref
from modelapi.repository import Repository
from modelapi.settings import Settings as ModelapiSettings
from tool.settings import Settings as ToolSettings
from wire.settings import variable

ROOT = Path(__file__).parents[2]
STAYS, HOURS = 300, 12
TABLES = """
CREATE TABLE positions (stream TEXT, part INT, seq INT, vitals_seq INT, committed_at TEXT);
CREATE TABLE stays (stream TEXT, pat_id INT, date_admission TEXT, age REAL,
    identifier TEXT);
CREATE TABLE predictions (stream TEXT, seq INT, model TEXT, version TEXT, pat_id INT,
    date_admission TEXT, measured_at TEXT, features TEXT, output REAL, reason TEXT,
    created_at TEXT);
INSERT INTO positions VALUES ('old', 0, 1, 1, '2026-01-01'), ('ward', 0, 9, 9, '2026-01-02');
"""


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A folder with outcome.csv and icu.sqlite, and the predictions as a table.

    The scores of model `good` are the true risk with a little noise, those of `weak` with much
    noise, and those of `none` almost only noise.
    """
    folder = tmp_path_factory.mktemp("ward")
    draw = np.random.default_rng(5)
    risk = draw.normal(-1.5, 1.5, STAYS)
    died = draw.random(STAYS) < 1 / (1 + np.exp(-risk))
    event_at = draw.integers(4, 40, STAYS)
    stays = pd.DataFrame(
        {
            "pat_id": np.arange(STAYS) + 100,
            "date_admission": np.where(np.arange(STAYS) % 2, "2019-02-01", "2019-03-01"),
            "sex": np.where(np.arange(STAYS) % 3, "m", "f"),
            "unit": "medical",
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
    table = table.merge(stays, on="pat_id")
    write_tables(folder, table, "1").close()
    return folder, table


def write_tables(folder: Path, rows: pd.DataFrame, version: str) -> sqlite3.Connection:
    """Writes the tables that a backtest reads from a pipeline; returns the open connection."""
    connection = sqlite3.connect(folder / "icu.sqlite")
    connection.executescript(TABLES)
    connection.executemany(
        "INSERT INTO predictions VALUES ('ward', ?, ?, ?, ?, ?, ?, '{}', ?, NULL, '')",
        [
            (seq, model, version, pat_id, day, f"{day} {hour:02}:00:00", probability)
            for seq, model, pat_id, day, hour, probability in rows[
                ["seq", "model", "pat_id", "date_admission", "hour", "probability"]
            ].itertuples(index=False)
        ],
    )
    stays = rows[["pat_id", "date_admission"]].drop_duplicates()
    connection.executemany(
        "INSERT INTO stays VALUES ('ward', ?, ?, ?, NULL)",
        [(pat_id, day, 40 if pat_id % 2 else 70) for pat_id, day in stays.itertuples(index=False)],
    )
    connection.commit()
    return connection


def run(
    ward: Path, capsys: pytest.CaptureFixture[str], models: Sequence[str], *options: str
) -> tuple[int, dict[str, object]]:
    code = main(
        [
            *(str(ward), *models, "--database", f"sqlite:///{ward}/icu.sqlite"),
            *("--outcome", "died", "--resamples", "5", "--to", str(ward / "report"), *options),
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
    assert comparison["verdict"] == "no clear difference"


def test_a_better_model_is_reported_as_better(
    ward: tuple[Path, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = run(ward[0], capsys, ["weak/1", "good/1", "none/1"], "--resamples", "20")
    verdicts = [comparison["verdict"] for comparison in found["comparisons"]]  # type: ignore[attr-defined]
    assert verdicts == ["better", "worse"]
    auroc = found["models"][2]["auroc"]  # type: ignore[index]
    assert auroc[1] < 0.5 < auroc[2]


def test_shuffled_outcomes_give_an_auroc_of_a_half(
    ward: tuple[Path, pd.DataFrame], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, _ = ward
    stays = pd.read_csv(folder / "outcome.csv", sep=";")
    stays["died"] = np.random.default_rng(1).permutation(stays["died"])
    stays.to_csv(tmp_path / "outcome.csv", sep=";", index=False)
    (tmp_path / "icu.sqlite").write_bytes((folder / "icu.sqlite").read_bytes())
    _, found = run(tmp_path, capsys, ["good/1"], "--resamples", "40")
    value, low, high = found["models"][0]["auroc"]  # type: ignore[index]
    assert abs(value - 0.5) < 0.1
    assert low < 0.5 < high


def test_outcomes_may_name_patients_by_the_identifiers_of_the_stream(
    ward: tuple[Path, pd.DataFrame], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, _ = ward
    header, *rows = (folder / "outcome.csv").read_text().splitlines(keepends=True)
    (tmp_path / "outcome.csv").write_text("".join([header, *(f"P-{row}" for row in rows)]))
    (tmp_path / "icu.sqlite").write_bytes((folder / "icu.sqlite").read_bytes())
    with closing(sqlite3.connect(tmp_path / "icu.sqlite")) as connection, connection:
        connection.execute("UPDATE stays SET identifier = 'P-' || pat_id")
    options = ["--resamples", "2"]
    expected, found = (run(path, capsys, ["good/1"], *options)[1] for path in (folder, tmp_path))
    assert found["models"] == expected["models"]


def test_subgroups_come_from_the_columns_of_outcome_csv(
    ward: tuple[Path, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = ward
    _, found = run(folder, capsys, ["good/1"])
    (model,) = found["models"]  # type: ignore[misc]
    assert set(model["by_subgroup"]) == {
        *("age under 50", "age 65 to 79", "sex: female", "sex: male", "unit: medical"),
    }
    men = table[(table["model"] == "good") & (table["sex"] == "m")]
    weight = 1 / men.groupby("pat_id")["seq"].transform("size")
    expected = roc_auc_score(men["died"], men["probability"], sample_weight=weight)
    assert model["by_subgroup"]["sex: male"]["auroc"][0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "threshold"),
    [([], 0.2), (["--for-hours", "1"], 0.3), (["--at", "0.4"], 0.4)],
)
def test_alarms_use_the_models_own_rule_unless_an_option_replaces_it(
    ward: tuple[Path, pd.DataFrame],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    threshold: float,
) -> None:
    folder, table = ward
    monkeypatch.chdir(ROOT)
    (tmp_path / "outcome.csv").write_bytes((folder / "outcome.csv").read_bytes())
    rows = table[table["model"] == "good"].assign(model="icu-mortality")
    write_tables(tmp_path, rows, "2").close()
    code, found = run(tmp_path, capsys, ["icu-mortality/2"], *options)
    assert code == 0
    assert found["models"][0]["alarms"]["threshold"] == threshold  # type: ignore[index]


def test_recalibration_is_fitted_to_the_first_stays_and_evaluated_on_the_others(
    ward: tuple[Path, pd.DataFrame],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Makes log odds that are too high by 2 and twice as steep. scikit-learn fits the expected line
    to the first half.
    """
    folder, table = ward
    copytree(ROOT / "models" / "icu-mortality" / "2", tmp_path / "models" / "icu-mortality" / "2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outcome.csv").write_bytes((folder / "outcome.csv").read_bytes())
    rows = table[table["model"] == "good"]
    wrong = expit(2 + 2 * logit(rows["probability"]))
    connection = write_tables(tmp_path, rows.assign(model="icu-mortality", probability=wrong), "2")
    connection.close()
    code, found = run(tmp_path, capsys, ["icu-mortality/2"], "--recalibrate", "line")
    assert code == 0
    line = found["recalibration"]
    first = rows[rows["date_admission"] == "2019-02-01"]
    assert line["patients"] == first["pat_id"].nunique()  # type: ignore[index]
    expected = LogisticRegression(C=np.inf).fit(
        logit(wrong[first.index]).to_numpy()[:, np.newaxis], first["died"]
    )
    assert line["slope"] == pytest.approx(expected.coef_[0, 0], rel=1e-3)  # type: ignore[index]
    assert line["intercept"] == pytest.approx(expected.intercept_[0], abs=1e-3)  # type: ignore[index]
    before, after = line["before"], line["after"]  # type: ignore[index]
    assert after["brier"][0] < before["brier"][0]
    assert after["auroc"][0] == pytest.approx(before["auroc"][0])
    assert after["auroc"] == pytest.approx(before["auroc"], abs=2e-3)
    old, new = (Repository(Path("models")).load(Ref("icu-mortality", v)) for v in ("2", "3"))
    x = np.array([[60.0] + [np.nan] * (len(old.manifest.features) - 1)])
    odds = [logit(model.predict(x)["probability"][0]) for model in (old, new)]
    assert odds[1] == pytest.approx(line["intercept"] + line["slope"] * odds[0])  # type: ignore[index]


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
def test_an_invalid_bound_is_a_usage_error(bound: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["folder", "good/1", "--at-least", bound])
    assert stopped.value.code == 2


def test_the_option_within_without_after_is_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["folder", "good/1", "--within", "24"])
    assert stopped.value.code == 2
    assert "--within needs --after" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("models", "options"),
    [
        (["other/1"], []),
        (["good/2"], []),
        (["good/1"], ["--outcome", "recovered"]),
        (["good/1"], ["--stream", "other"]),
        (["good/1"], ["--database", "sqlite:////nowhere/icu.sqlite"]),
        (["good/1"], ["--database", "postgres://db/icu"]),
    ],
)
def test_a_backtest_without_data_fails_with_one_line(
    ward: tuple[Path, pd.DataFrame],
    capsys: pytest.CaptureFixture[str],
    models: list[str],
    options: list[str],
) -> None:
    assert main([str(ward[0]), *models, "--database", f"sqlite:///{ward[0]}/icu.sqlite", *options])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("backtest: ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["icu-mortality/2", "nope/1"], "nope/1"),
        (["icu-mortality/2", "--outcome", "recovered"], "recovered"),
    ],
)
def test_a_wrong_name_is_an_error_before_the_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    (tmp_path / "outcome.csv").write_text("pat_id;date_admission;died_in_hospital\n")
    # The folder has no CSVs to replay, so a replay would end with another error.
    assert main([str(tmp_path), *arguments]) == 1
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_a_replay_has_no_connection_with_the_live_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = {
        variable(field): "https://live.example.org"
        for settings in (HospitalSettings, BufferSettings, ToolSettings, ModelapiSettings)
        for field in msgspec.structs.fields(settings)
        if variable(field).endswith(("_URL", "_FILE", "_STATE", "_WEBHOOK", "MODELS"))
    }
    assert live.keys() >= {"ALARM_WEBHOOK", "MODEL_STATE_URL", "MODEL_URL", "STREAM_URL"}
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "outcome.csv").write_text("pat_id;date_admission;died\n")
    (tmp_path / ".env").write_text("".join(f"{key}={value}\n" for key, value in live.items()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHON_DOTENV_DISABLED", "")
    for key in live:
        monkeypatch.setenv(key, "")
        monkeypatch.delenv(key)
    given: list[dict[str, str]] = []

    def start(programs: Programs, *_: str) -> None:
        given.append(programs.environ)
        raise CannotRun

    monkeypatch.setattr(Programs, "start", start)
    assert main([str(tmp_path), "icu-mortality/2", "--outcome", "died"]) == 1
    assert [set(live.values()) & set(environ.values()) for environ in given] == [set()]


@pytest.mark.parametrize("text", ["icu", "icu/", "/1", "icu/1/2", ""])
def test_a_model_that_is_not_given_as_name_and_version_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="NAME/VERSION"):
        Ref.parse(text)
