"""The expected features and probabilities of predictions, computed from the readings with pandas
and scikit-learn. It uses no code of the services.
"""

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from scipy.special import expit, logit

STAY = ["pat_id", "date_admission"]
# A trend takes about a millisecond, so it is computed for one of this number of rows.
TREND_EVERY = 500


def with_features(found: pd.DataFrame, names: dict[tuple[str, str], list[str]]) -> pd.DataFrame:
    """Adds a column `values` with the features of each prediction. found: all predictions for some
    readings. names: the features of each version, in its order.
    """
    arrays = {
        (row.stream, row.seq, row.model, row.version): dict(
            zip(names[row.model, row.version], json.loads(row.features), strict=True)
        )
        for row in found[found["features_model"].isna()].itertuples()
    }
    values = []
    for row in found.itertuples():
        own: dict[str, float | None] = {}
        version = (row.model, row.version)
        if isinstance(row.features_model, str):
            version = (row.features_model, row.features_version)
            own = json.loads(row.features) if row.features else {}
        array = arrays[(row.stream, row.seq, *version)]
        wanted = enumerate(names[row.model, row.version])
        values.append([own[str(i)] if str(i) in own else array[name] for i, name in wanted])
    return found.assign(values=values)


def check(found: pd.DataFrame, rows: pd.DataFrame, names: list[str], folder: Path) -> None:
    """Compares stored predictions: the features with those that pandas computes, and the outputs
    with scikit-learn's probabilities for these features. Raises AssertionError.

    found: predictions with their `values`. rows: all readings of their stays, one per prediction,
    in the same order, which is that of time. names: the features in the model's order. folder: the
    version's.
    """
    assert found["reason"].isna().all()
    features = pd.DataFrame(found["values"].tolist(), columns=names).astype(float)
    _same_features(features, windowed(rows, names))
    probabilities = predict_proba(folder, features.to_numpy(float))
    np.testing.assert_allclose(found["output"].astype(float), probabilities, rtol=1e-9)


def windowed(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The features as of each reading: `age`, and for example heart_rate__max__6h. rows: all
    readings of these stays, in the order of `seq` and of time. A missing value, and a trend outside
    of the sample, is NaN.
    """
    ordered = rows.sort_values([*STAY, "seq"])
    stay = [ordered[column] for column in STAY]
    # Between two stays, this clock advances by more than the longest window.
    steps = ordered["measured_at"].diff()
    steps[ordered.groupby(STAY).ngroup().diff() != 0] = pd.Timedelta("72h")
    clock = pd.DatetimeIndex(pd.Timestamp("2000-01-01") + steps.cumsum())
    found = {}
    for name in names:
        if name == "age":
            found[name] = ordered["age"].to_numpy()
            continue
        parameter, aggregation, hours = name.split("__")
        value = ordered["value"].where(ordered["parameter"] == parameter)
        if aggregation == "last":
            at = ordered["measured_at"].where(value.notna()).groupby(stay).ffill()
            recent = ordered["measured_at"] - at < pd.Timedelta(hours)
            found[name] = value.groupby(stay).ffill().where(recent).to_numpy()
        elif aggregation == "trend":
            found[name] = _trends(ordered, value, pd.Timedelta(hours))
        else:
            window = pd.Series(value.to_numpy(), clock).rolling(hours)
            found[name] = window.agg(aggregation).to_numpy()
    return pd.DataFrame(found, index=ordered.index).loc[rows.index]


def _trends(rows: pd.DataFrame, value: pd.Series, width: pd.Timedelta) -> Any:
    """The slope of the values per hour in a window, at every TREND_EVERY-th row."""
    known = rows.assign(value=value)
    slopes = np.full(len(rows), np.nan)
    for place in range(0, len(rows), TREND_EVERY):
        row = rows.iloc[place]
        before = known.iloc[max(0, place - 500) : place + 1].dropna(subset="value")
        same = (before[STAY] == row[STAY]).all(axis=1)
        hours = (before["measured_at"] - row["measured_at"]) / pd.Timedelta("1h")
        inside = before[same & (hours > -width / pd.Timedelta("1h"))]
        if inside["measured_at"].nunique() > 1:
            slopes[place] = np.polyfit(hours[inside.index], inside["value"], 1)[0]
    return slopes


def _same_features(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    for name in wanted:
        left, right = found[name].to_numpy(float), wanted[name].to_numpy(float)
        compared = ~np.isnan(right) if "__trend__" in name else slice(None)
        # The rolling sums of pandas leave a remainder of about 1e-8 in a spread of zero.
        np.testing.assert_allclose(
            left[compared], right[compared], rtol=1e-9, atol=1e-6, err_msg=name
        )


def predict_proba(folder: Path, x: Any) -> Any:
    """The probabilities by scikit-learn. folder: the version's. x: its features, shape (rows,
    features).
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    if manifest.get("significant_digits"):
        x = rounded(x)
    p = joblib.load(folder / "model.joblib").predict_proba(x)[:, 1]
    if line := manifest.get("calibration"):
        p = expit(line["intercept"] + line["slope"] * logit(p))
    return p


def rounded(values: Any) -> Any:
    """Rounds to 30 significant bits, and to a multiple of 2**-30."""
    mantissas, exponents = np.frexp(values)
    values = np.ldexp(np.rint(mantissas * 2**30), exponents - 30)
    return np.rint(values * 2**30) / 2**30
