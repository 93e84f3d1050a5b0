"""Checks the tables after a benchmark against the CSVs, with pandas.

Checks the numbers of rows and the positions. For a sample, checks the readings, the vitals, the
formula's features and predictions, and some windowed features of other models. Uses no code of the
services.
"""

from contextlib import closing
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from benchmarks.stored import Stored
from benchmarks.ward import Ward
from tests.support.prediction_oracle import with_features

SAMPLE = 10_000
WINDOW_SAMPLE = 200  # fewer rows for models with windows, whose features are computed one by one
FORMULA = "formula"
FEATURES = [
    "age",
    "last_blood_pressure",
    "rmean_respiration_rate",
    "standard_deviation_temperature",
]


class Wrong(Exception):
    """The tables differ from those that pandas computes."""


def check(ward: Ward, url: str, stream: str, partitions: int) -> str:
    """Returns a summary of the comparison. Raises Wrong at the first difference."""
    with closing(Stored(url, stream)) as stored:
        return _check(ward, stored, partitions)


def _check(ward: Ward, stored: Stored, partitions: int) -> str:
    admission = pd.read_csv(ward.folder / "admission.csv", sep=";").set_index("pat_id")
    signal = pd.read_csv(ward.folder / "signal.csv", sep=";", dtype={"day": "category"})
    signal.index = pd.RangeIndex(1, len(signal) + 1, name="seq")  # in the stream's order
    staying = admission.index[admission["date_discharge"].isna()]
    in_icu = int(signal["pat_id"].isin(staying).sum())
    models = _check_counts(stored, signal, in_icu)

    parts = {patient: crc32(str(patient).encode()) % partitions for patient in admission.index}
    last = signal.index.to_series().groupby(signal["pat_id"].map(parts).to_numpy()).max()
    if stored.positions() != last.to_dict():
        raise Wrong(f"positions {stored.positions()}, not {last.to_dict()}")

    rows = _with_stays(_some_patients(signal), admission, ward.folder / "age.csv")
    expected = _features(rows)
    sample = expected.sample(min(SAMPLE, len(expected)), random_state=1).sort_index()
    _same(
        stored.rows("readings", "seq", sample.index.tolist()),
        sample,
        ["pat_id", "date_admission", "measured_at", "parameter", "value"],
    )
    predicted = sample[sample["pat_id"].isin(staying)]
    _check_predictions(stored, sample.index.tolist(), predicted, rows)
    _vitals(stored, rows)
    return (
        f"{len(signal):,} readings, {in_icu:,} predictions of "
        f"{' and '.join(models) or 'no model'} and {len(last)} positions "
        f"counted; {len(sample):,} readings, {len(predicted):,} rows of features and the vitals "
        f"of {rows['pat_id'].nunique():,} patients compared"
    )


def _check_counts(stored: Stored, signal: pd.DataFrame, in_icu: int) -> list[str]:
    """Checks the number of rows of each table. Returns the models with predictions."""
    for table, count in {
        "readings": len(signal),
        "stays": signal["pat_id"].nunique(),
        "vitals": len(signal[["pat_id", "parameter"]].drop_duplicates()),
        "rejected": 0,
        "pending": 0,
    }.items():
        found = stored.count(table)
        if found != count:
            raise Wrong(f"{table}: {found} rows, not {count}")
    models = stored.models()
    for model, made in models.items():
        if made != in_icu:
            raise Wrong(f"predictions of {'/'.join(model)}: {made} rows, not {in_icu}")
    if in_icu and not models:
        raise Wrong("no model made predictions")
    return ["/".join(model) for model in models]


def _with_stays(rows: pd.DataFrame, admission: pd.DataFrame, ages: Path) -> pd.DataFrame:
    """The readings, each with its day of admission, its time and the patient's age."""
    age = pd.read_csv(ages, sep=";").set_index("pat_id")["age"].astype(float)
    hours = pd.to_timedelta(rows["hour"], unit="h")
    return rows.assign(
        date_admission=pd.to_datetime(rows["pat_id"].map(admission["date_admission"])),
        measured_at=pd.to_datetime(rows["day"].astype(str)) + hours,
        age=rows["pat_id"].map(age),
    )


def _check_predictions(
    stored: Stored, seqs: list[int], predicted: pd.DataFrame, rows: pd.DataFrame
) -> None:
    """Compares the predictions of a sample: all features of the formula, and the windows of other
    models."""
    names = {key: stored.features(*key) for key in stored.models()}
    made = with_features(stored.rows("predictions", "seq", seqs), names)
    for (name, version), some in made.groupby(["model", "version"]) if len(made) else ():
        if name == FORMULA:
            found = pd.DataFrame(some["values"].tolist(), columns=names[name, version])
            _same(
                some.reset_index(drop=True).join(found.astype(float)),
                predicted,
                ["pat_id", "date_admission", "measured_at", *FEATURES, "output"],
            )
        else:
            values = some.set_index("seq")["values"].head(WINDOW_SAMPLE)
            _windows(values, names[name, version], rows)


def _some_patients(signal: pd.DataFrame) -> pd.DataFrame:
    """All readings of random patients: at least 20 patients, and enough for twice the sample."""
    patients = signal["pat_id"].drop_duplicates().sample(frac=1, random_state=1)
    each = len(signal) / len(patients)
    chosen = patients[: max(20, int(2 * SAMPLE / each) + 1)]
    return signal[signal["pat_id"].isin(chosen)].copy()


def _features(rows: pd.DataFrame) -> pd.DataFrame:
    """The four features of the formula as of each reading, and its output."""

    def of(parameter: str) -> Any:
        return rows["value"].where(rows["parameter"] == parameter).groupby(rows["pat_id"])

    rows["last_blood_pressure"] = of("blood_pressure").ffill()
    rows["rmean_respiration_rate"] = of("respiration_rate").expanding().mean().droplevel(0)
    deviation = of("temperature").expanding().std().droplevel(0)
    rows["standard_deviation_temperature"] = deviation.fillna(0.0)
    x = (
        -5
        + 0.002 * rows["age"]
        + 0.001 * rows["last_blood_pressure"]
        + 0.03 * rows["rmean_respiration_rate"]
        + 0.02 * rows["standard_deviation_temperature"]
    )
    rows["output"] = 1 / (1 + np.exp(-x))
    return rows


def _windows(stored: "pd.Series[Any]", names: list[str], rows: pd.DataFrame) -> None:
    """Compares min, max, mean and std over windows, for example heart_rate__max__6h, one by one."""
    for seq, values in zip(stored.index.tolist(), stored.tolist(), strict=True):
        known = rows[(rows["pat_id"] == rows.at[seq, "pat_id"]) & (rows.index <= seq)]
        windows: dict[tuple[str, str], pd.Series[float]] = {}
        for name, found in zip(names, values, strict=True):
            parameter, _, rest = name.partition("__")
            aggregation, _, hours = rest.partition("__")
            if aggregation not in ("min", "max", "mean", "std") or not hours:
                continue
            if (parameter, hours) not in windows:
                since = known["measured_at"].max() - pd.Timedelta(hours)
                within = (known["parameter"] == parameter) & (known["measured_at"] > since)
                windows[parameter, hours] = known.loc[within, "value"]
            expected = windows[parameter, hours].agg(aggregation)
            value = float("nan") if found is None else found
            if not np.isclose(value, expected, rtol=1e-9, atol=1e-9, equal_nan=True):
                raise Wrong(f"message {seq}: {name} is {found}, not {expected}")


def _vitals(stored: Stored, rows: pd.DataFrame) -> None:
    key = ["pat_id", "parameter"]
    groups = rows.groupby(key)["value"]
    expected = groups.agg(
        n="size", mean="mean", minimum="min", maximum="max", first_value="first", last_value="last"
    )
    expected["m2"] = groups.var(ddof=0) * expected["n"]
    found = stored.rows("vitals", "pat_id", rows["pat_id"].unique().tolist())
    found = found.set_index(key).sort_index()
    if not found.index.equals(expected.index):
        raise Wrong(f"vitals: {len(found)} rows, not {len(expected)}")
    for column in expected:
        left, right = found[column].astype(float), expected[column].astype(float)
        wrong = ~np.isclose(left, right, rtol=1e-9, atol=1e-7)
        if wrong.any():
            raise Wrong(f"vitals: {column} of {left[wrong].head(1)}, not {right[wrong].head(1)}")


def _same(found: pd.DataFrame, expected: pd.DataFrame, columns: list[str]) -> None:
    found = found.set_index("seq").sort_index() if len(found) else found
    if found.index.tolist() != expected.index.tolist():
        raise Wrong(f"{len(found)} rows of the sample are stored, not {len(expected)}")
    if not len(found):
        return
    for column in columns:
        left, right = found[column], expected[column]
        if pd.api.types.is_float_dtype(right):
            same = np.isclose(left.astype(float), right, rtol=1e-9, atol=1e-12, equal_nan=True)
        else:
            same = (left == right).to_numpy()
        if not same.all():
            place = int(np.flatnonzero(~same)[0])
            raise Wrong(
                f"message {found.index[place]}: {column} is {left.iloc[place]!r}, "
                f"not {right.iloc[place]!r}"
            )
