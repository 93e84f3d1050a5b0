"""The expected rows of the tables, computed from the CSVs with pandas.

`python -m tests.support.oracle PATIENT_DATA DATABASE_URL live|hindsight` compares all rows of a
finished replay: readings, stays, vitals and the predictions of the models as shipped. It uses
neither the code of the services nor the files that they derive.
"""

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mysql.connector
import numpy as np
import pandas as pd

from tests.support import prediction_oracle

ROOT = Path(__file__).parents[2]
STAY = ["pat_id", "date_admission"]
# The models as shipped.
MODEL, VERSIONS = "icu-mortality", ("2", "1")


class Expected:
    """The rows of a replay of clean CSVs. mode: the REPLAY_MODE, `live` or `hindsight`."""

    def __init__(self, patient_data: Path, mode: str) -> None:
        age = _read(patient_data / "age.csv").set_index("pat_id")["age"]
        stays = _read(patient_data / "admission.csv")[[*STAY, "date_discharge"]]
        for column in ("date_admission", "date_discharge"):
            stays[column] = _dates(stays[column])
        signal = _read(patient_data / "signal.csv")
        signal = signal[["pat_id", "day", "hour", "parameter", "value"]]
        signal["day"] = _dates(signal["day"])
        signal["line"] = range(len(signal))
        # The first and the last day belong to a stay. A day in two stays belongs to the later stay.
        joined = signal.merge(stays, on="pat_id")
        ends = joined["date_discharge"].fillna(pd.Timestamp("2262-01-01"))
        joined = joined[joined["day"].between(joined["date_admission"], ends)]
        joined = joined.sort_values("date_admission").drop_duplicates("line", keep="last")
        joined["measured_at"] = joined["day"] + pd.to_timedelta(joined["hour"], unit="h")
        joined["age"] = joined["pat_id"].map(age).astype(float)
        joined = joined.sort_values(["measured_at", "line"]).reset_index(drop=True)

        discharged = stays.dropna(subset="date_discharge")
        if mode == "live":
            # The discharges of a day are sent after its last reading, in the order of patients.
            discharges = pd.DataFrame(
                {
                    "at": discharged["date_discharge"] + pd.Timedelta("24h"),
                    "kind": 0,
                    "order": discharged["pat_id"],
                }
            )
            rows = pd.DataFrame(
                {"at": joined["measured_at"], "kind": 1, "order": range(len(joined))}
            )
            merged = pd.concat([rows, discharges]).sort_values(["at", "kind", "order"])
            place = pd.Series(range(1, len(merged) + 1), index=merged["order"].to_numpy())
            joined["seq"] = place[(merged["kind"] == 1).to_numpy()].to_numpy()
            self.messages = len(merged)
        else:
            joined["seq"] = range(1, len(joined) + 1)
            self.messages = len(joined)
        self.readings = joined

        predicted = joined if mode == "live" else joined[joined["date_discharge"].isna()]
        self.predictions = predicted.reset_index(drop=True)
        seen = joined[STAY].drop_duplicates()
        if mode == "live":
            seen = pd.concat([seen, discharged[STAY]]).drop_duplicates()
        self.stays = seen.merge(stays, on=STAY)
        self.stays["age"] = self.stays["pat_id"].map(age).astype(float)


def check(patient_data: Path, database_url: str, mode: str) -> str:
    """Compares every row; raises AssertionError at the first difference. Returns a summary."""
    expected = Expected(patient_data, mode)
    found = table(database_url, "readings").sort_values("seq").reset_index(drop=True)
    assert found["stream"].nunique() == 1
    assert len(table(database_url, "rejected")) == 0
    assert len(table(database_url, "pending")) == 0
    _same(
        found,
        expected.readings.sort_values("seq").reset_index(drop=True),
        ["seq", "pat_id", "date_admission", "measured_at", "parameter", "value"],
    )
    by_stay: Any = {"by": STAY, "ignore_index": True}
    stays = table(database_url, "stays").sort_values(**by_stay)
    wanted = expected.stays.sort_values(**by_stay)
    if mode == "live":
        # In live mode, a stay has a row if it has a message: a reading or a discharge.
        assert set(stays[STAY].itertuples(index=False, name=None)) == set(
            wanted[STAY].itertuples(index=False, name=None)
        )
    _same(stays, wanted, [*STAY, "age", "date_discharge"])

    vitals = table(database_url, "vitals").sort_values([*STAY, "parameter"], ignore_index=True)
    groups = expected.readings.sort_values("seq").groupby([*STAY, "parameter"])["value"]
    wanted = groups.agg(
        n="size", mean="mean", minimum="min", maximum="max", last_value="last", first_value="first"
    ).reset_index()
    _same(vitals, wanted, list(wanted.columns))
    spread = groups.var(ddof=0).to_numpy() * wanted["n"].to_numpy()
    np.testing.assert_allclose(vitals["m2"].astype(float), spread, rtol=1e-9, atol=1e-7)

    wanted = expected.predictions.sort_values("seq", ignore_index=True)
    predicted = 0
    names = {
        (row.model, row.version): [feature["name"] for feature in json.loads(row.features)]
        for row in table(database_url, "models").itertuples()
    }
    every = prediction_oracle.with_features(table(database_url, "predictions"), names)
    for version in VERSIONS:
        predictions = every[(every["model"] == MODEL) & (every["version"] == version)]
        predictions = predictions.sort_values("seq", ignore_index=True)
        _same(predictions, wanted, ["seq", *STAY, "measured_at"])
        folder = ROOT / "models" / MODEL / version
        prediction_oracle.check(predictions, wanted, names[MODEL, version], folder)
        predicted += len(predictions)
    return (
        f"{len(found)} readings, {len(stays)} stays, {len(vitals)} vitals, {predicted} "
        f"predictions of {len(VERSIONS)} models: all equal"
    )


def at_rest(database_url: str) -> bool:
    """Whether no prediction is pending, and `vitals` includes all readings."""
    behind = table(database_url, "positions", "vitals_seq < seq")
    return bool(behind.empty and table(database_url, "pending").empty)


def table(database_url: str, name: str, where: str = "1 = 1") -> pd.DataFrame:
    """The rows of a table that satisfy `where`, with dates as timestamps."""
    if database_url.startswith("sqlite:///"):
        connection: Any = sqlite3.connect(
            f"file:{database_url.removeprefix('sqlite:///')}?mode=ro", uri=True
        )
    else:
        parts = urlsplit(database_url)
        connection = mysql.connector.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=parts.username,
            password=parts.password or "",
            database=parts.path.strip("/"),
        )
    cursor = connection.cursor()
    cursor.execute(f"SELECT * FROM {name} WHERE {where}")
    frame = pd.DataFrame(cursor.fetchall(), columns=[column[0] for column in cursor.description])
    connection.close()
    for column in ("date_admission", "date_discharge", "measured_at"):
        if column in frame:
            frame[column] = pd.to_datetime(frame[column])
    return frame


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep=";", dtype={"day": str})


def _dates(texts: pd.Series) -> pd.Series:
    iso = pd.to_datetime(texts, format="%Y-%m-%d", errors="coerce")
    return iso.fillna(pd.to_datetime(texts, format="%d/%m/%Y", errors="coerce"))


def _same(found: pd.DataFrame, wanted: pd.DataFrame, columns: list[str]) -> None:
    assert len(found) == len(wanted), f"{len(found)} rows, {len(wanted)} expected"
    for column in columns:
        left, right = found[column], wanted[column]
        if pd.api.types.is_float_dtype(right):
            np.testing.assert_allclose(left.astype(float), right, rtol=1e-9, atol=0, err_msg=column)
        else:
            same = (left == right) | (left.isna() & right.isna())
            assert same.all(), f"{column}: {found[~same].head(3)} but {wanted[~same].head(3)}"


if __name__ == "__main__":
    print(check(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
