"""Measures each stage of the tool and the model API separately, and its raw limit."""

from collections.abc import Iterator
from typing import Any

import joblib
import msgspec
import numpy as np
from msgspec.structs import astuple

from benchmarks.bench import INSERT, Bench, Result, rate, readings, seconds
from benchmarks.databases import mark, open_database
from benchmarks.pipeline import Pipeline
from embedded.stack import ROOT
from tool.database import Changes, connect
from tool.features import FeatureSet, Stay
from tool.model_client import Model, ModelClient
from wire.features import Feature
from wire.messages import decode
from wire.tables import PredictionRow, ReadingRow

BATCH = 1_000
FORMULA = (
    Feature.parse("age", required=True),
    Feature.parse("last_blood_pressure", required=True),
    Feature.parse("rmean_respiration_rate", required=True),
    Feature.parse("standard_deviation_temperature", fill=0.0),
)


def parse(messages: list[bytes]) -> Result:
    bare = msgspec.json.Decoder()

    def parse() -> int:
        for message in messages[:10_000]:
            decode(message)
        return 10_000

    def raw() -> int:
        for message in messages[:10_000]:
            bare.decode(message)
        return 10_000

    return Result(
        "parse",
        "parse and check (tool)",
        rate(parse),
        "messages/s",
        rate(raw),
        "msgspec to a dict, unchecked",
    )


def features(messages: list[bytes]) -> Result:
    decoded: list[Any] = [msgspec.json.decode(message) for message in messages[:50_000]]
    given = [(row["pat_id"], float(row["hour"]), row["parameter"], row["value"]) for row in decoded]
    features = FeatureSet(FORMULA)

    def compute() -> int:
        stays: dict[int, Stay] = {}
        for pat_id, at, parameter, value in given:
            stay = stays.get(pat_id)
            if stay is None:
                stay = stays[pat_id] = Stay(features.windows, age=60.0)
            stay.add(at, parameter, value)
            features.row(stay)
        return len(given)

    def bare() -> int:
        sums: dict[tuple[int, str], tuple[int, float, float]] = {}
        for pat_id, _, parameter, value in given:
            n, mean, m2 = sums.get((pat_id, parameter), (0, 0.0, 0.0))
            delta = value - mean
            mean += delta / (n + 1)
            sums[pat_id, parameter] = (n + 1, mean, m2 + delta * (value - mean))
        return len(given)

    return Result(
        "features",
        "statistics and features (tool)",
        rate(compute),
        "messages/s",
        rate(bare),
        "n, mean and m2 in a bare loop",
    )


def insert(bench: Bench, url: str) -> Iterator[Result]:
    database = connect(url)
    now = "2150-01-01 00:00:00.000"
    for key, predicted in (("insert", False), ("insert predicted", True)):
        calls = [
            readings(start, BATCH) for start in range(1, 20_000 if bench.quick else 100_000, BATCH)
        ]
        changes = []
        for rows in calls:
            change = Changes(f"0{key[6:8]}", 0, rows[0][1] - 1, rows[-1][1], now)
            change.readings = [ReadingRow(change.stream, *row[1:]) for row in rows]
            if predicted:
                change.predictions = [_prediction(change.stream, row, now) for row in rows]
            changes.append(change)

        def commit(changes: list[Changes] = changes) -> None:
            for change in changes:
                database.commit(change)

        speed = len(calls) * BATCH / seconds(commit)
        yield Result(
            key,
            f"insert of {BATCH:,} readings" + (" and as many predictions" if predicted else ""),
            speed,
            "messages/s",
            _executemany_both(bench, calls, now) if predicted else bench.x,
            "executemany into both tables" if predicted else "X: bare executemany",
        )
    database.close()


def _prediction(stream: str, row: tuple[Any, ...], now: str) -> PredictionRow:
    features = msgspec.json.encode([row[6] for _ in FORMULA]).decode()
    seq, pat_id, admission, at = row[1:5]
    place = (pat_id, admission, at)
    return PredictionRow(stream, seq, "formula", "1", *place, features, 0.123456789, None, now)


def _executemany_both(bench: Bench, calls: list[list[tuple[Any, ...]]], now: str) -> float:
    url = bench.server.fresh("bare")
    connection = open_database(url)
    cursor = connection.cursor()
    into_readings = INSERT.format(marks=", ".join([mark(url)] * 7))
    into_predictions = f"INSERT INTO predictions VALUES ({', '.join([mark(url)] * 13)})"
    both = [(rows, [astuple(_prediction("bare", row, now)) for row in rows]) for rows in calls]

    def insert() -> None:
        for rows, predictions in both:
            cursor.executemany(into_readings, rows)
            cursor.executemany(into_predictions, predictions)
            connection.commit()

    speed = len(calls) * BATCH / seconds(insert)
    connection.close()
    bench.server.drop("bare")
    return speed


def model(pipeline: Pipeline) -> Iterator[Result]:
    client = ModelClient(pipeline.environ["MODEL_URL"], timeout=10)
    estimator = joblib.load(ROOT / "models/formula/1/model.joblib")
    model = Model("formula", "1", [feature.declaration() for feature in FORMULA])
    for count in (1, BATCH):
        array = np.array([(60.0, 120.0, 18.0 + n % 7, 0.4) for n in range(count)])

        def ask(array: Any = array) -> int:
            client.predict(model, array.tolist())
            return len(array)

        def bare(array: Any = array) -> int:
            estimator.predict_proba(array)
            return len(array)

        rate(ask, 0.3)
        yield Result(
            f"model {count}",
            f"model API, {count:,} row{'s' * (count > 1)} per call, through gunicorn",
            rate(ask),
            "rows/s",
            rate(bare),
            "predict_proba on an array",
        )
