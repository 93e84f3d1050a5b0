"""Computes predictions for the CSVs outside the pipeline, with scikit-learn on bulk features."""

import json
import math
import sqlite3
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from scipy.special import expit, logit

from training import stream
from training.config import Data
from training.features import bulk_features
from wire.features import Feature

ROOT = Path(__file__).parents[2]


def rounded(value: float) -> float:
    """Rounds to 30 significant bits, and to a multiple of 2**-30."""
    if math.isnan(value):
        return value
    mantissa, exponent = math.frexp(value)
    value = math.ldexp(round(mantissa * 2**30), exponent - 30)
    return round(value * 2**30) / 2**30


def offline(folder: Path, model: str, version: str) -> pd.Series:
    """The predict_proba of each reading by message number; NaN if a required value is missing."""
    artifact = ROOT / "models" / model / version
    manifest = json.loads((artifact / "manifest.json").read_text())
    features = [Feature.parse(feature["name"]) for feature in manifest["features"]]
    readings = stream.read(Data(folder=folder))
    x = bulk_features(readings.readings, readings.ages, features).to_numpy(float)
    required = [feature.get("required", False) for feature in manifest["features"]]
    known = ~np.isnan(x[:, required]).any(axis=1)
    if manifest.get("significant_digits"):
        x = np.vectorize(rounded, otypes=[float])(x)
    p = np.full(len(x), np.nan)
    p[known] = joblib.load(artifact / "model.joblib").predict_proba(x[known])[:, 1]
    if line := manifest.get("calibration"):
        p = expit(line["intercept"] + line["slope"] * logit(p))
    return pd.Series(p, readings.readings["seq"].to_numpy())


def streamed(database: Path, model: str, version: str) -> pd.Series:
    """The stored probability of each reading by message number; NaN if there is none."""
    connection = sqlite3.connect(database)
    rows = connection.execute(
        "SELECT seq, probability FROM predictions WHERE model = ? AND version = ? ORDER BY seq",
        (model, version),
    ).fetchall()
    connection.close()
    seqs, probabilities = zip(*rows, strict=True)
    return pd.Series(np.array(probabilities, dtype=float), np.array(seqs))
