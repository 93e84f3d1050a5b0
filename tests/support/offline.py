"""Computes predictions from the CSVs outside the pipeline, with scikit-learn and bulk features.

`python -m tests.support.offline FOLDER DATABASE NAME/VERSION …` compares the predictions with those
that a backtest of the folder has stored.
"""

import json
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from tests.support.oracle import ROOT
from tests.support.prediction_oracle import predict_proba
from training import stream
from training.config import Data
from training.features import bulk_features
from wire.features import Feature

LARGEST = 1e-9


def offline(folder: Path, model: str, version: str) -> pd.Series:
    """The probability by predict_proba for each reading, by message number; NaN if a required value
    is missing.
    """
    artifact = ROOT / "models" / model / version
    manifest = json.loads((artifact / "manifest.json").read_text())
    features = [Feature.parse(feature["name"]) for feature in manifest["features"]]
    readings = stream.read(Data(folder=folder))
    x = bulk_features(readings.readings, readings.ages, features).to_numpy(float)
    required = [feature.get("required", False) for feature in manifest["features"]]
    known = ~np.isnan(x[:, required]).any(axis=1)
    p = np.full(len(x), np.nan)
    p[known] = predict_proba(artifact, x[known])
    return pd.Series(p, readings.readings["seq"].to_numpy())


def streamed(database: Path, model: str, version: str) -> pd.Series:
    """The stored probability for each reading, by message number; NaN if there is none."""
    connection = sqlite3.connect(database)
    rows = connection.execute(
        "SELECT seq, output FROM predictions WHERE model = ? AND version = ? ORDER BY seq",
        (model, version),
    ).fetchall()
    connection.close()
    seqs, probabilities = zip(*rows, strict=True)
    return pd.Series(np.array(probabilities, dtype=float), np.array(seqs))


def main(folder: str, database: str, *models: str) -> int:
    """Prints the largest difference for each model. Returns 1 if a prediction is missing or is one
    too many, or if a probability differs by more than LARGEST.
    """
    failed = 0
    for name in models:
        model, version = name.split("/")
        expected, stored = (
            offline(Path(folder), model, version),
            streamed(Path(database), model, version),
        )
        same = expected.index.equals(stored.index) and (expected.isna() == stored.isna()).all()
        differences = (expected - stored).abs()
        print(
            f"{name}: {len(stored):,} of {len(expected):,} readings, "
            f"{stored.notna().sum():,} predicted, largest difference {differences.max():.3g}, "
            f"{(differences > LARGEST).sum():,} above {LARGEST:g}",
            flush=True,
        )
        failed |= not same or bool((differences > LARGEST).any())
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
