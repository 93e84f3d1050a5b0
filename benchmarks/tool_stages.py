"""Measures each stage of the tool and the model API separately, and its raw limit."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import joblib
import msgspec
import numpy as np
import urllib3
from msgspec.structs import astuple
from numpy.typing import NDArray

from benchmarks.bench import INSERT, Bench, Result, rates, readings, seconds
from benchmarks.databases import mark, open_database
from benchmarks.pipeline import Pipeline
from embedded.programs import ROOT
from tool import inference
from tool.database import Changes, connect
from tool.features import FeatureSet, Stay
from wire.features import Feature
from wire.messages import decode
from wire.tables import PredictionRow, ReadingRow

BATCH = 1_000
NOW = "2150-01-01 00:00:00.000"
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

    speed, limit = rates(parse, raw)
    return Result(
        "parse",
        "parse and check (tool)",
        speed,
        "messages/s",
        limit,
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

    speed, limit = rates(compute, bare)
    return Result(
        "features",
        "statistics and features (tool)",
        speed,
        "messages/s",
        limit,
        "n, mean and m2 in a bare loop",
    )


def insert(bench: Bench, url: str) -> Iterator[Result]:
    """Measures commits of 1,000 readings, each in turn with bare inserts of the same rows."""
    for predicted in (False, True):
        speed, limit = _inserts(bench, url, predicted)
        yield Result(
            "insert predicted" if predicted else "insert",
            f"insert of {BATCH:,} readings" + " and as many predictions" * predicted,
            speed,
            "messages/s",
            limit,
            "executemany into both tables" if predicted else "X: bare executemany",
        )


def _inserts(bench: Bench, url: str, predicted: bool) -> tuple[float, float]:
    """Messages per second of the tool's commits, and of `executemany`."""
    bare_url = bench.server.fresh("bare")
    with closing(connect(url)) as database, closing(open_database(bare_url)) as connection:
        cursor = connection.cursor()
        into_readings = INSERT.format(marks=", ".join([mark(url)] * 7))
        into_predictions = f"INSERT INTO predictions VALUES ({', '.join([mark(url)] * 13)})"
        taken, bare = 0.0, 0.0
        count = 20 if bench.quick else 100
        for start in range(1, count * BATCH, BATCH):
            change, rows = _changes(start, predicted)
            predictions = list(map(astuple, change.predictions))

            def insert(
                rows: list[Any] = rows, predictions: list[tuple[Any, ...]] = predictions
            ) -> None:
                cursor.executemany(into_readings, rows)
                if predictions:
                    cursor.executemany(into_predictions, predictions)
                connection.commit()

            taken += seconds(partial(database.commit, change))
            bare += seconds(insert)
    bench.server.drop("bare")
    return count * BATCH / taken, count * BATCH / bare


def _changes(start: int, predicted: bool) -> tuple[Changes, list[tuple[Any, ...]]]:
    """A batch, and its readings as tuples."""
    rows = readings(start, BATCH)
    stream = "0predicted" if predicted else "0bare"
    changes = Changes(stream, 0, rows[0][1] - 1, rows[-1][1], NOW)
    changes.readings = [ReadingRow(stream, *row[1:]) for row in rows]
    if predicted:
        changes.predictions = [_prediction(stream, row) for row in rows]
    return changes, rows


def _prediction(stream: str, row: tuple[Any, ...]) -> PredictionRow:
    features = msgspec.json.encode([row[6] for _ in FORMULA]).decode()
    seq, pat_id, admission, at = row[1:5]
    place = (pat_id, admission, at)
    return PredictionRow(stream, seq, "formula", "1", *place, features, 0.123456789, None, NOW)


def model(pipeline: Pipeline) -> Iterator[Result]:
    """Measures a client that sends an array, and `predict_proba` on the same array in turn."""
    estimator = joblib.load(ROOT / "models/formula/1/model.joblib")
    pool = urllib3.connection_from_url(pipeline.environ["MODEL_URL"], retries=False)
    path = inference.path("formula", "1")
    for count in (1, BATCH):
        array = np.array([(60.0, 120.0, 18.0 + n % 7, 0.4) for n in range(count)])

        def ask(array: NDArray[np.float64] = array) -> int:
            body, headers = inference.of_matrix(array.tobytes(), *array.shape)
            answer = pool.urlopen("POST", path, body=body, headers=headers)
            length = int(answer.headers[inference.LENGTH])
            return len(np.frombuffer(answer.data, "<f8", offset=length))

        def bare(array: NDArray[np.float64] = array) -> int:
            return len(estimator.predict_proba(array))

        assert ask() == count
        speed, limit = rates(ask, bare)
        yield Result(
            f"model {count}",
            f"model API, {count:,} row{'s' * (count > 1)} per call, through gunicorn",
            speed,
            "rows/s",
            limit,
            "predict_proba on an array",
        )
