"""Runs a backtest with the real pipeline and two versions of one model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backtest.__main__ import main
from backtest.replay import FOLDER
from tests.support.offline import offline, streamed
from tests.support.pipeline import synthetic

ROOT = Path(__file__).parents[2]


def test_streamed_probabilities_equal_predict_proba_on_bulk_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    ward = synthetic(tmp_path / "ward", "--patients", "16", "--days", "2")
    stays = pd.read_csv(ward / "admission.csv", sep=";")
    stays["died"] = np.arange(len(stays)) % 2
    stays[["pat_id", "date_admission", "died"]].to_csv(ward / "outcome.csv", sep=";", index=False)
    models = ["icu-mortality/2", "icu-mortality/1"]
    options = ["--outcome", "died", "--resamples", "5", "--to", str(tmp_path / "report")]
    assert main([str(ward), *models, *options]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert [model["model"] for model in found["models"]] == models
    # Only version 2 is compared. Version 1 does not round its features, so the last bit of a float
    # can change the path in a tree.
    stored = streamed(FOLDER / "icu.sqlite", "icu-mortality", "2")
    expected = offline(ward, "icu-mortality", "2")
    assert stored.index.tolist() == expected.index.tolist()
    assert stored.notna().any()
    assert (stored.isna() == expected.isna()).all()
    assert (stored - expected).abs().max() < 1e-9
