"""A backtest through the real pipeline, with two versions of one model side by side."""

import json
import math
import sqlite3
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from backtest.__main__ import main
from backtest.replay import FOLDER
from tests.support.pipeline import synthetic

ROOT = Path(__file__).parents[2]


def rounded(value: float) -> float:
    """To 30 significant bits, and to a multiple of 2**-30."""
    if math.isnan(value):
        return value
    mantissa, exponent = math.frexp(value)
    value = math.ldexp(round(mantissa * 2**30), exponent - 30)
    return round(value * 2**30) / 2**30


def test_stored_probabilities_equal_those_of_the_model_on_the_stored_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    ward = synthetic(tmp_path / "ward", "--patients", "16", "--days", "2")
    stays = pd.read_csv(ward / "admission.csv", sep=";")
    stays["died"] = np.arange(len(stays)) % 2
    stays[["pat_id", "date_admission", "died"]].to_csv(ward / "outcome.csv", sep=";", index=False)
    models = ["icu-mortality/1", "icu-mortality/2"]
    options = ["--outcome", "died", "--resamples", "5", "--to", str(tmp_path / "report")]
    assert main([str(ward), *models, *options]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert [model["model"] for model in found["models"]] == models
    connection = sqlite3.connect(FOLDER / "icu.sqlite")
    rows = connection.execute("SELECT version, features, probability FROM predictions").fetchall()
    readings = connection.execute("SELECT COUNT(*) FROM readings").fetchone()[0]
    connection.close()
    for version in ("1", "2"):
        folder = ROOT / "models" / "icu-mortality" / version
        manifest = json.loads((folder / "manifest.json").read_text())
        names = [feature["name"] for feature in manifest["features"]]
        of = [(json.loads(features), p) for v, features, p in rows if v == version]
        assert len(of) == readings
        known = [(features, p) for features, p in of if p is not None]
        assert known
        x = pd.DataFrame([features for features, _ in known], columns=names).to_numpy(float)
        if manifest.get("significant_digits"):
            x = np.vectorize(rounded)(x)
        expected = joblib.load(folder / "model.joblib").predict_proba(x)[:, 1]
        if line := manifest.get("calibration"):
            expected = expit(line["intercept"] + line["slope"] * logit(expected))
        assert np.abs(expected - [p for _, p in known]).max() < 1e-9
