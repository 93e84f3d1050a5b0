"""Runs the whole stream through the pipeline once, into an empty database, and prints figures."""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from embedded.programs import PIPELINE, Programs
from embedded.stack import CannotRun, environment, free_ports, make_private, prepare, remove
from hospital.files import writable_folder
from hospital.settings import Settings as HospitalSettings
from tool.database import connect
from wire.settings import SecretFile, read, without_password

FOLDER = Path("var/replay")
DATABASE = Path("var/replay.sqlite")
# The table whose rows each figure counts.
COUNTED = {"stored": "readings", "predictions": "predictions", "rejected": "rejected"}


def replay() -> int:
    """Starts the programs, waits until all messages are stored and predicted, and stops the
    programs.

    The last line on stdout is a JSON object with these figures:

        messages          in the stream
        rejected_rows     of the CSVs
        stored            readings
        predictions       of the champion
        rejected          messages
        start_s           seconds until the CSVs are merged, and the workers and models are ready
        seconds           from the first queued message to the last stored prediction
        messages_per_s    messages / seconds
        latency_ms        p50 and p99, from the buffer's receipt of a message to its commit
        work_s            seconds of all workers for database, features, model and queue (the rest)
    """
    make_private(Path("var"))
    ours = {
        "DATABASE_URL": f"sqlite:///{DATABASE.resolve()}",
        "REPLAY_RATE": "0",
        **free_ports(),
    }
    environ = environment(FOLDER, ours | {k: v for k, v in os.environ.items() if v})
    remove(FOLDER, environ)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{DATABASE}{suffix}").unlink(missing_ok=True)
    prepare(FOLDER, environ)
    # SIGTERM is handled like Ctrl-C, so that the programs are stopped too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Programs(FOLDER, environ) as programs:
            result = run(programs, "dashboard", "front")
    except KeyboardInterrupt:
        print("\nstopped; the rows stored so far remain in the database", file=sys.stderr)
        return 130
    print(summary(result, environ), file=sys.stderr)
    print(json.dumps(result))
    return 0


def run(programs: Programs, *others: str) -> dict[str, Any]:
    """Starts the pipeline and other programs, and waits until all messages are stored and
    predicted; returns the figures."""
    began = time.monotonic()
    # The buffer starts last, so that no message waits for a program that is starting.
    programs.start(*(name for name in PIPELINE if name != "buffer"), *others)
    health = _wait_until_ready(programs)
    starting = time.monotonic() - began
    programs.start("buffer")
    stream, total = health["stream"], health["messages"]
    environ = programs.environ
    database = connect(
        environ["DATABASE_URL"], SecretFile(environ.get("DATABASE_PASSWORD_FILE", "")).secret
    )
    started: float | None = None
    with tqdm(total=total, unit="msg", unit_scale=True, desc="stored", disable=None) as bar:
        while True:
            _check(programs)
            position = programs.position()
            begun = position.get("stream") == stream
            if begun and started is None:
                started = time.monotonic()
            stored = programs.stored_up_to() if begun else 0
            bar.update(min(stored, total) - bar.n)
            if begun and position["ended"] and stored >= total and not database.waiting(1):
                break
            time.sleep(0.02)
    seconds = time.monotonic() - (started or 0.0)
    latency = programs.latency(stream)
    work = programs.work()
    work["queue"] = max(0.0, len(position["parts"]) * seconds - sum(work.values()))
    return {
        "messages": total,
        "rejected_rows": health["rejected_rows"],
        **{name: database.count(table, stream) for name, table in COUNTED.items()},
        "start_s": round(starting, 3),
        "seconds": round(seconds, 3),
        "messages_per_s": round(total / seconds, 1),
        "latency_ms": {name: latency[name] for name in ("p50", "p99")},
        "work_s": {part: round(spent, 3) for part, spent in work.items()},
    }


def _wait_until_ready(programs: Programs) -> dict[str, Any]:
    """Waits for the merge, the workers and the models; returns hospital's health report. Raises
    CannotRun if the stream is empty.
    """
    health: dict[str, Any] = {}
    while "messages" not in health:
        _check(programs)
        time.sleep(0.1)
        health = programs.health()
    if not health["messages"]:
        rejected_rows = health["rejected_rows"]
        where = f"; {rejected_rows:,} rows are rejected, see {_rejected_csv(programs.environ)}"
        raise CannotRun(f"the CSVs have no message{where if rejected_rows else ''}")
    while not programs.tool_is_ready():
        _check(programs)
        time.sleep(0.05)
    return health


def _check(programs: Programs) -> None:
    """If a program has ended, prints the end of its log and raises CannotRun."""
    for name in programs.ended():
        sys.stderr.writelines(programs.log(name).splitlines(keepends=True)[-30:])
        log = programs.folder / f"{name}.log"
        raise CannotRun(f"{name} ended unexpectedly; its log is above and in {log}")


def summary(result: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """The result as text: the figures, how the workers spent their time, and the rejected rows of
    the CSVs if there are any.
    """
    text = (
        f"{result['messages']:,} messages in {result['seconds']:.1f} s: "
        f"{result['stored']:,} stored, "
        f"{result['rejected']:,} rejected, {result['predictions']:,} predictions "
        f"({result['messages_per_s']:,.0f} messages/s) after a start of "
        f"{result['start_s']:.1f} s; "
        f"rows in {without_password(environ['DATABASE_URL'])}"
    )
    total = sum(result["work_s"].values())
    shares = ", ".join(f"{part} {spent / total:.0%}" for part, spent in result["work_s"].items())
    text += f"\ntime of the workers: {shares}"
    if rows := result["rejected_rows"]:
        text += f"\nrejected rows of the CSVs: {rows:,}; see {_rejected_csv(environ)}"
    return text


def _rejected_csv(environ: Mapping[str, str]) -> Path:
    """The path of rejected.csv: beside the CSVs or, if that is not writable, in DERIVED_DATA."""
    settings = read(HospitalSettings, environ)
    return writable_folder(settings.patient_data, settings.derived_data) / "rejected.csv"
