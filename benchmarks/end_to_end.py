"""Measures all programs together at full speed, from hospital's HTTP to committed rows."""

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import oracle
from benchmarks.bench import Bench, Result
from benchmarks.databases import Server, SQLiteFiles, feature_bytes
from benchmarks.history import fill_history
from benchmarks.ward import FIRST_PATIENT, Ward
from embedded.programs import ROOT

PATIENTS = 2_000
SHIPPED = ROOT / "models"


def run(bench: Bench) -> Iterator[Result]:
    """Measures with 1 and 2 workers, and with the formula's predictions for 30 % and 100 % of the
    readings. Also measures with the models as shipped, predictions for 100 % of the readings, 2
    workers and a quarter of the rows."""
    for staying in (0.3, 1.0):
        for workers in (1, 2):
            yield through(bench, bench.ward(PATIENTS, rows(bench), staying), workers)
    shipped = through(bench, bench.ward(PATIENTS, rows(bench) // 4, 1.0), 2, models=SHIPPED)
    yield shipped
    size = shipped.details["feature_bytes"] / 1e3
    yield Result(
        "feature bytes", "stored features per prediction of the champion as shipped", size, "kB"
    )


def patients(bench: Bench) -> Iterator[Result]:
    """Measures few patients with many readings each, and many patients with few readings each."""
    for count in (50, 20_000):
        yield through(bench, bench.ward(count, rows(bench), 0.3), workers=2)


def history(bench: Bench) -> Iterator[Result]:
    """Measures 2 workers and the formula, with many readings already in the tables."""
    for stored in (100_000,) if bench.quick else (1_000_000, 10_000_000):
        bench.say(f"storing a history of {stored:,} readings")
        url = bench.server.fresh("history")
        fill_history(url, stored, PATIENTS, FIRST_PATIENT)
        for staying in (1.0,) if bench.quick else (0.3, 1.0):
            ward = bench.ward(PATIENTS, rows(bench), staying)
            yield through(bench, ward, 2, url=url, stored=stored)
        bench.server.drop("history")


def sqlite(bench: Bench) -> Iterator[Result]:
    """Measures with SQLite, as in `make replay`."""
    if isinstance(bench.server, SQLiteFiles):
        return
    server = SQLiteFiles(bench.folder / "sqlite")
    for staying in (0.3, 1.0):
        ward = bench.ward(PATIENTS, rows(bench), staying)
        yield through(bench, ward, 2, server=server)
    ward = bench.ward(PATIENTS, rows(bench) // 4, 1.0)
    yield through(bench, ward, 2, server=server, models=SHIPPED)


def memory(bench: Bench) -> Iterator[Result]:
    """Measures the resident memory after each tenth of a long replay."""
    ward = bench.ward(20_000, 100_000 if bench.quick else 10_000_000, 0.3)
    marks: dict[int, dict[str, int]] = {}

    def look(stored: int, resident: Callable[[], dict[str, int]], total: int) -> None:
        tenth = stored * 10 // total
        if tenth not in marks:
            marks[tenth] = resident()

    url = bench.server.fresh("memory")
    with bench.pipeline(ward.folder, url, PARTITIONS="2") as pipeline:
        pipeline.ready("redis", "modelapi", "tool", "hospital")
        total = pipeline.messages
        usage = pipeline.run(
            120 + total / 2_000, lambda stored: look(stored, pipeline.resident, total)
        )
        marks[10] = pipeline.resident()
        pipeline.wait_for_model()
    correct = oracle.check(ward, url, pipeline.stream, 2)
    bench.server.drop("memory")
    first = marks[min(tenth for tenth in marks if tenth > 0)]
    for program in ("hospital", "buffer", "tool"):
        yield Result(
            f"memory {program}",
            f"memory of {program} after {total:,} messages"
            + (" (largest process)" if program == "tool" else ""),
            marks[10][program] / 1e6,
            "MB",
            first[program] / 1e6,
            "the same program after a tenth of the messages",
            {
                "megabytes_by_tenth": {t: round(m[program] / 1e6, 1) for t, m in marks.items()},
                "correct": correct,
                **usage.details(),
            },
        )


def rows(bench: Bench) -> int:
    return 60_000 if bench.quick else 1_000_000


def through(
    bench: Bench,
    ward: Ward,
    workers: int,
    url: str | None = None,
    stored: int = 0,
    server: Server | None = None,
    models: Path | None = None,
) -> Result:
    """Runs the pipeline on all messages of `ward`, and checks the tables."""
    server = server or bench.server
    before = bench.x(server)
    target = url or server.fresh("pipeline")
    settings = {"PARTITIONS": str(workers)} | ({"MODELS": str(models)} if models else {})
    with bench.pipeline(ward.folder, target, server, **settings) as pipeline:
        pipeline.ready("redis", "modelapi", "tool", "hospital")
        usage = pipeline.run(60 + ward.rows / 1_000)
        pipeline.wait_for_model()
        latency = pipeline.latency(pipeline.stream)
    limit = (before + bench.x(server)) / 2
    correct = oracle.check(ward, target, pipeline.stream, workers)
    details = usage.details() | {"latency_ms": latency, "correct": correct}
    if models:
        details["feature_bytes"] = feature_bytes(target, pipeline.stream)
    if url is None:
        server.drop("pipeline")
    kind = "sqlite" if isinstance(server, SQLiteFiles) else "server"
    parts = [
        f"{ward.staying * 100:.0f} % predicted",
        f"{workers} worker{'s' * (workers > 1)}",
        *([f"{ward.patients:,} patients"] if ward.patients != PATIENTS else []),
        *([f"after {stored:,} readings"] if stored else []),
        *(["SQLite"] if kind == "sqlite" else []),
        *(["models as shipped"] if models else []),
    ]
    return Result(
        f"e2e {kind} {ward.staying:.0%} {workers}w {ward.patients}p {stored}h"
        + " shipped" * bool(models),
        f"end to end, {', '.join(parts)}",
        usage.messages / usage.seconds,
        "messages/s",
        limit,
        "bare executemany into SQLite" if kind == "sqlite" else "X: bare executemany",
        details,
    )
