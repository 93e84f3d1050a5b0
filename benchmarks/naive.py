"""A naive implementation: one job, one insert, one query of all rows of the stay and one model call
per message.

`python -m benchmarks.naive REDIS_URL DATABASE_URL MODEL_URL` runs a worker that ends when the queue
is empty. The worker is faster than typical ones: it does not fork per job, keeps its connections,
and does not store the prediction.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import urllib3
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from benchmarks.bench import INSERT, Bench, Result
from benchmarks.databases import mark, open_database
from benchmarks.ward import FIRST_PATIENT, PARAMETERS
from embedded.programs import ROOT

PATIENTS = 50
WORKERS = 2
ADMISSION = "2150-01-01"


class Service:
    """The connections and clients that the job uses, created once per worker."""

    def __init__(self, database_url: str, model_url: str) -> None:
        self._connection = open_database(database_url)
        self._cursor = self._connection.cursor()
        self._mark = mark(database_url)
        self._model_url = f"{model_url}/api/model"
        self._http = urllib3.PoolManager()

    def handle(self, message: dict[str, Any]) -> float:
        """Stores a reading and returns the patient's new probability."""
        self._execute(
            INSERT.format(marks=", ".join("?" * 7)),
            "naive",
            message["seq"],
            message["pat_id"],
            message["date_admission"],
            f"{message['day']} {message['hour']:02}:00:00",
            message["parameter"],
            message["value"],
        )
        self._connection.commit()
        self._execute(
            "SELECT parameter, value FROM readings WHERE pat_id = ? AND date_admission = ?"
            " ORDER BY measured_at, seq",
            message["pat_id"],
            message["date_admission"],
        )
        values: dict[str, list[float]] = {name: [] for name in PARAMETERS}
        for parameter, value in self._cursor.fetchall():
            values[parameter].append(value)
        self._connection.commit()
        features = {
            "age": message["age"],
            "last_blood_pressure": values["blood_pressure"][-1],
            "rmean_respiration_rate": statistics.fmean(values["respiration_rate"]),
            "standard_deviation_temperature": statistics.stdev(values["temperature"]),
        }
        answer = self._http.request("POST", self._model_url, json=features)
        probability: float = msgspec.json.decode(answer.data)["probability"]
        return probability

    def _execute(self, statement: str, *values: object) -> None:
        self._cursor.execute(statement.replace("?", self._mark), values)


_service: Service | None = None


def handle(message: dict[str, Any]) -> None:
    """Runs the job of one message."""
    assert _service is not None
    _service.handle(message)


def work(redis_url: str, database_url: str, model_url: str) -> None:
    global _service
    _service = Service(database_url, model_url)
    queue = Queue("naive", connection=Redis.from_url(redis_url), serializer=JSONSerializer)
    worker = SimpleWorker([queue], connection=queue.connection, serializer=JSONSerializer)
    worker.work(burst=True, logging_level="ERROR")


def run(bench: Bench) -> Iterator[Result]:
    """Measures the naive implementation with two workers, at 1,000 and at 18,000 stored rows per
    patient. All readings are predicted."""
    for each, jobs in ((1_000, 200),) if bench.quick else ((1_000, 2_000), (18_000, 500)):
        yield _measure(bench, each, jobs)


def _check(url: str, expected: int) -> None:
    """Raises AssertionError unless the table has the expected number of readings."""
    connection = open_database(url)
    cursor = connection.cursor()
    cursor.execute("SELECT COUNT(*) FROM readings")
    found = cursor.fetchone()[0]
    connection.close()
    if found != expected:
        raise AssertionError(f"the naive baseline stored {found} rows")


def _measure(bench: Bench, each: int, jobs: int) -> Result:
    url = bench.server.fresh("naive")
    messages = [_message(each * PATIENTS + n + 1) for n in range(jobs)]
    _fill(url, each)
    before = bench.x(bench.server)
    with bench.pipeline(bench.folder, url) as pipeline:
        pipeline.ready("redis", "modelapi")
        queue = Queue("naive", connection=pipeline.redis, serializer=JSONSerializer)
        started = time.monotonic()
        for message in messages:
            queue.enqueue("benchmarks.naive.handle", message, result_ttl=0)
        queued = time.monotonic() - started
        workers = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.naive", pipeline.environ["REDIS_URL"]),
                    *(url, pipeline.environ["MODEL_URL"]),
                ],
                cwd=ROOT,
            )
            for _ in range(WORKERS)
        ]
        try:
            pipeline.wait(lambda: queue.count < jobs, "no job was done")
            left, start = queue.count, time.monotonic()
            pipeline.wait(lambda: queue.count == 0, "not all jobs were done", 300)
            working = (time.monotonic() - start) * jobs / left
            for worker in workers:
                worker.wait(30)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    _check(url, each * PATIENTS + jobs)
    bench.server.drop("naive")
    # In service, the jobs would be queued while the workers run, so the slower of the two counts.
    return Result(
        f"naive {each}",
        f"naive baseline at {each:,} rows per patient, {WORKERS} workers",
        jobs / max(queued, working),
        "messages/s",
        (before + bench.x(bench.server)) / 2,
        "X: bare executemany",
        {"jobs": jobs, "queueing_s": round(queued, 3), "working_s": round(working, 3)},
    )


def _fill(url: str, each: int) -> None:
    connection = open_database(url)
    cursor = connection.cursor()
    statement = INSERT.format(marks=", ".join([mark(url)] * 7))
    for start in range(1, each * PATIENTS + 1, 1_000):
        count = min(1_000, each * PATIENTS + 1 - start)
        rows = []
        for seq in range(start, start + count):
            message = _message(seq)
            rows.append(
                (
                    *("naive", seq, message["pat_id"], ADMISSION),
                    f"{message['day']} {message['hour']:02}:00:00",
                    *(message["parameter"], message["value"]),
                )
            )
        cursor.executemany(statement, rows)
        connection.commit()
    connection.close()


def _message(seq: int) -> dict[str, Any]:
    turn = seq // 4 // PATIENTS  # the hour, in which each patient has a reading of each parameter
    return {
        "seq": seq,
        "pat_id": FIRST_PATIENT + seq // 4 % PATIENTS,
        "age": 60.0,
        "date_admission": ADMISSION,
        "day": f"2150-{1 + turn // 24 // 28 % 12:02}-{1 + turn // 24 % 28:02}",
        "hour": turn % 24,
        "parameter": list(PARAMETERS)[seq % 4],
        "value": 40.0 + seq % 97,
    }


if __name__ == "__main__":
    # The module is imported under its own name, so that the job finds the service that `work`
    # created.
    from benchmarks import naive

    naive.work(*sys.argv[1:4])
