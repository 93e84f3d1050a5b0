"""Measures the time and the memory of merging the CSVs, in a child process as in hospital."""

import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.bench import Bench, Result
from benchmarks.databases import CannotMeasure
from embedded.programs import ROOT

READ = "import sys, pandas; pandas.read_csv(sys.argv[1], sep=';')"
WATCH = """\
import resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.call(sys.argv[1:])
print(time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code)
"""


def run(bench: Bench) -> Iterator[Result]:
    for rows in (100_000,) if bench.quick else (100_000, 1_000_000, 10_000_000):
        # Uses the CSVs that other benchmarks of the same run have written, if there are any.
        ward = bench.ward(20_000 if rows == 10_000_000 else 2_000, rows, 0.3)
        for name in ("all_data.csv", "all_data.json"):
            (ward.folder / name).unlink(missing_ok=True)
        taken, peak = _run(
            ["-m", "hospital.preprocessing"], PATIENT_DATA=str(ward.folder), LOG_LEVEL="ERROR"
        )
        limit, limit_peak = _run(["-c", READ, str(ward.folder / "signal.csv")])
        details = {"rows": rows, "bytes": (ward.folder / "signal.csv").stat().st_size}
        yield Result(
            f"merge {rows} time",
            f"merge of {rows:,} rows, time",
            taken,
            "s",
            limit,
            "pandas.read_csv of signal.csv alone",
            details,
        )
        yield Result(
            f"merge {rows} memory",
            f"merge of {rows:,} rows, peak memory",
            peak / 1e6,
            "MB",
            limit_peak / 1e6,
            "pandas.read_csv of signal.csv alone",
            details,
        )


def _run(arguments: list[str], **settings: str) -> tuple[float, int]:
    """Runs Python with these arguments; returns the seconds and the peak memory in bytes."""
    # A small process starts Python, because a child's peak is at least its parent's memory at the
    # fork.
    done = subprocess.run(
        [sys.executable, "-c", WATCH, sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotMeasure(f"python {' '.join(arguments)} failed")
    taken, peak = done.stdout.split()[-2:]
    return float(taken), int(peak)
