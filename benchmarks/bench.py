"""The parts that all benchmarks share: the inputs, the database server, the raw limit X,
and the type of a result."""

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import processes, ward
from benchmarks.databases import Server, mark, open_database
from benchmarks.pipeline import Pipeline
from benchmarks.ward import Ward
from embedded.programs import ROOT

INSERT = (
    "INSERT INTO readings (stream, seq, pat_id, date_admission, measured_at, parameter, value)"
    " VALUES ({marks})"
)


@dataclass
class Result:
    """One row of the table.

    raw: the raw limit, in the unit of `figure`, measured in the same run. ratio: limit / figure for
    times and memory, figure / limit for rates, so higher is always better; above 1, the pipeline
    beats the raw limit.
    """

    key: str
    stage: str
    figure: float
    unit: str
    raw: float | None = None
    raw_is: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        if not self.raw or not self.figure:
            return None
        return (
            self.raw / self.figure
            if self.unit in ("µs", "ms", "s", "MB")
            else self.figure / self.raw
        )


class Bench:
    """A run of the benchmarks, with its size, folder and server."""

    def __init__(self, folder: Path, server: Server, quick: bool) -> None:
        self.folder = folder
        self.server = server
        self.quick = quick
        self._wards: dict[tuple[int, int, float], Ward] = {}
        self._runs = 0

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def ward(self, patients: int, rows: int, staying: float) -> Ward:
        """The CSVs of this size; they are written once per run."""
        key = (patients, rows, staying)
        if key not in self._wards:
            folder = self.folder / f"ward-{patients}-{rows}-{staying:g}"
            self._wards[key] = ward.write(folder, *key)
        return self._wards[key]

    @contextmanager
    def pipeline(
        self, patient_data: Path, database_url: str, server: Server | None = None, **settings: str
    ) -> Iterator[Pipeline]:
        """Yields the programs. The formula is the only model, unless `settings` contain MODELS."""
        self._runs += 1
        settings = {"MODELS": str(self._formula())} | settings
        folder = self.folder / f"run-{self._runs}"
        with Pipeline(
            folder, patient_data, database_url, server or self.server, **settings
        ) as pipeline:
            yield pipeline

    def _formula(self) -> Path:
        folder = self.folder / "models"
        if not folder.exists():
            shutil.copytree(ROOT / "models/formula", folder / "formula")
            champion = {"model": "formula", "version": "1"}
            (folder / "default.json").write_text(json.dumps({"champion": champion, "shadows": []}))
        return folder

    def x(self, server: Server) -> float:
        """X: the rows per second of a bare `executemany` into `readings`. It is measured before and
        after each figure that is compared with it, because the machine's speed may change."""
        limit = executemany(server, 10_000 if self.quick else 50_000)
        cpu = ", ".join(f"{name} {used:.1f}" for name, used in limit.cpu_us.items())
        self.say(
            f"bare executemany into {server.name}: {limit.rows_per_s:,.0f} rows/s, "
            f"µs of CPU per row: {cpu}"
        )
        return limit.rows_per_s


@dataclass
class BareInsert:
    """The speed of a bare `executemany`. cpu_us: microseconds of CPU time per row, of the client
    and of the database server."""

    rows_per_s: float
    cpu_us: dict[str, float]


def executemany(server: Server, rows: int) -> BareInsert:
    """Measures a bare `executemany` into `readings`, with 1,000 rows per call and a commit after
    each call. Returns the median rate and the mean CPU time of three runs."""
    speeds = []
    own, other = 0.0, 0.0
    for _ in range(3):
        url = server.fresh("bare")
        connection = open_database(url)
        cursor = connection.cursor()
        statement = INSERT.format(marks=", ".join([mark(url)] * 7))
        calls = [readings(start, 1_000) for start in range(1, rows, 1_000)]

        def insert(
            cursor: Any = cursor,
            statement: str = statement,
            connection: Any = connection,
            calls: list[list[tuple[Any, ...]]] = calls,
        ) -> None:
            for call in calls:
                cursor.executemany(statement, call)
                connection.commit()

        before = time.process_time(), processes.cpu_seconds(server.pid or 0)
        speeds.append(rows / seconds(insert))
        own += time.process_time() - before[0]
        other += processes.cpu_seconds(server.pid or 0) - before[1]
        connection.close()
    server.drop("bare")
    return BareInsert(
        statistics.median(speeds),
        {"client": own / rows / 3 * 1e6, "database": other / rows / 3 * 1e6},
    )


def readings(start: int, count: int) -> list[tuple[Any, ...]]:
    """Rows of `readings` in the order in which a ward of 2,000 patients sends them."""
    return [
        (
            "bare",
            seq,
            ward.FIRST_PATIENT + seq // 4 % 2_000,
            "2150-01-01",
            f"2150-01-{1 + seq // 192_000 % 28:02} {seq // 8_000 % 24:02}:00:00",
            list(ward.PARAMETERS)[seq % 4],
            80.0 + seq % 97,
        )
        for seq in range(start, start + count)
    ]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rates(work: Callable[[], int], raw: Callable[[], int]) -> tuple[float, float]:
    """The items per second of `work` and of its raw limit `raw`, measured in turn."""
    return in_turn(partial(rate, work, 0.2), partial(rate, raw, 0.2), 7)


def in_turn(work: Callable[[], float], raw: Callable[[], float], turns: int) -> tuple[float, float]:
    """The medians of two figures that are measured in turn, so that other load on the machine
    affects both."""
    figures = [(work(), raw()) for _ in range(turns)]
    first, second = zip(*figures, strict=True)
    return statistics.median(first), statistics.median(second)


def rate(work: Callable[[], int], least: float = 1.0) -> float:
    """The items per second that `work` handles; each call returns the number of its items. Repeats
    it for at least `least` seconds."""
    done = 0
    start = time.perf_counter()
    while (passed := time.perf_counter() - start) < least:
        done += work()
    return done / passed
