"""Measures the time from the start to the first stored prediction."""

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, Result, seconds
from benchmarks.databases import open_database
from embedded.programs import ROOT

PROGRAMS = ("redis", "hospital", "modelapi", "buffer", "tool")
SLOWEST = "import gunicorn.app.wsgiapp, modelapi.wsgi"


def run(bench: Bench) -> Iterator[Result]:
    """Starts all programs at once, as `make run` does, with CSVs that were never merged."""
    ward = bench.ward(100, 9_999, 1.0)  # no other benchmark uses this folder
    for name in ("all_data.csv", "all_data.json"):
        (ward.folder / name).unlink(missing_ok=True)
    url = bench.server.fresh("startup")
    connection = open_database(url)
    cursor = connection.cursor()

    def predicted() -> bool:
        cursor.execute("SELECT 1 FROM predictions WHERE output IS NOT NULL LIMIT 1")
        found = cursor.fetchone()
        connection.commit()
        return found is not None

    with bench.pipeline(ward.folder, url, REPLAY_RATE="50") as pipeline:
        start = time.monotonic()
        pipeline.start(*PROGRAMS)
        pipeline.wait(predicted, "no prediction")
        taken = time.monotonic() - start
    connection.close()
    bench.server.drop("startup")
    imports = seconds(lambda: subprocess.run([sys.executable, "-c", SLOWEST], cwd=ROOT, check=True))
    yield Result(
        "startup",
        "start to first prediction stored",
        taken,
        "s",
        imports,
        "imports of the slowest program",
    )
