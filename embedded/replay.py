"""Runs the whole stream through the pipeline once, into a fresh database, and sums it up."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from tqdm import tqdm

from embedded.stack import PORTS, ROOT, CannotRun, environment, free_port, prepare, without_password
from hospital.settings import Settings as HospitalSettings
from hospital.settings import writable_folder
from tool.database import Database, connect

FOLDER = Path("var/replay")
DATABASE = Path("var/replay.sqlite")


class NothingToReplay(CannotRun):
    """No program is to blame, so that no log is shown."""


def replay() -> int:
    """Starts the programs, waits until all is stored and predicted, stops them.

    The last line on stdout is a JSON object: messages, refused_rows (of the CSVs, when they were
    merged), stored, predictions, rejected, seconds, messages_per_s, latency_ms (p50, p99: from
    the buffer's receipt of a message to the commit of its batch).
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{DATABASE}{suffix}").unlink(missing_ok=True)
    ours = {
        "DATABASE_URL": f"sqlite:///{DATABASE.resolve()}",
        "REPLAY_RATE": "0",
        **{key: str(free_port()) for key in PORTS},
    }
    environ = environment(FOLDER, ours | {k: v for k, v in os.environ.items() if v})
    prepare(FOLDER, environ)
    log = FOLDER / "log"
    with log.open("wb") as output:
        programs = subprocess.Popen(
            [sys.executable, "-m", "honcho", "--no-colour", "start"],
            cwd=ROOT,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # As Ctrl-C: otherwise the programs would outlive this one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = _follow(programs, environ)
    except KeyboardInterrupt:
        print("\nstopped; what is stored so far stays in the database", file=sys.stderr)
        return 130
    except NothingToReplay:
        raise
    except CannotRun as error:
        sys.stderr.writelines(log.read_text(errors="replace").splitlines(keepends=True)[-30:])
        raise CannotRun(f"{error} (its log is above, and in {log})") from None
    finally:
        programs.terminate()
        programs.wait()
    print(summary(result, environ), file=sys.stderr)
    print(json.dumps(result))
    return 0


def _follow(programs: "subprocess.Popen[bytes]", environ: dict[str, str]) -> dict[str, Any]:
    health: dict[str, Any] = {}
    while "messages" not in health:
        if programs.poll() is not None:
            raise CannotRun("the pipeline did not start")
        time.sleep(0.1)
        health = _health(environ["HOSPITAL_PORT"])
    stream, total = health["stream"], health["messages"]
    refused = health["refused_rows"]
    if not total:
        why = f"; rows that cannot be used: {refused:,}, see {_refused(environ)}" if refused else ""
        raise NothingToReplay(f"the CSVs have no message{why}")
    redis: Any = Redis.from_url(environ["REDIS_URL"])
    database = connect(environ["DATABASE_URL"], _secret(environ.get("DATABASE_PASSWORD_FILE")))
    started: float | None = None
    with tqdm(total=total, unit="msg", unit_scale=True, desc="stored", disable=None) as bar:
        while True:
            if programs.poll() is not None:
                raise CannotRun("the pipeline broke off")
            position, stored = _progress(redis, stream)
            if position and started is None:
                started = time.monotonic()
            bar.update(min(stored, total) - bar.n)
            if position and position["ended"] and stored >= total and not database.waiting(1):
                break
            time.sleep(0.02)
    seconds = time.monotonic() - (started or time.monotonic())
    return {
        "messages": total,
        "refused_rows": refused,
        **_counts(database, stream),
        "seconds": round(seconds, 3),
        "messages_per_s": round(total / seconds, 1),
        "latency_ms": _latency(redis.hgetall(f"icu:latency:{stream}")),
    }


def summary(result: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """The result for people; a second line where rows of the CSVs could not be used."""
    text = (
        f"{result['messages']:,} messages in {result['seconds']:.1f} s: "
        f"{result['stored']:,} stored, "
        f"{result['rejected']:,} rejected, {result['predictions']:,} predictions "
        f"({result['messages_per_s']:,.0f} messages/s); "
        f"rows in {without_password(environ['DATABASE_URL'])}"
    )
    if rows := result["refused_rows"]:
        text += f"\nrows of the CSVs that could not be used: {rows:,}; see {_refused(environ)}"
    return text


def _refused(environ: Mapping[str, str]) -> Path:
    """Where hospital says why: beside the CSVs, if it could write there."""
    settings = HospitalSettings.from_environment(environ)
    return writable_folder(settings.patient_data, settings.derived_data) / "rejected.csv"


def _health(port: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except (urllib.error.URLError, OSError, ValueError):
        return {}


def _progress(redis: Any, stream: str) -> tuple[dict[str, Any] | None, int]:
    """The buffer's position, and up to which message all are in the database."""
    try:
        position = json.loads(redis.get("icu:position") or "null")
        committed = redis.hgetall("icu:committed")
    except RedisError:
        return None, 0
    if not position or position["stream"] != stream:
        return None, 0
    behind = [
        seq
        for part, last in position["parts"].items()
        if (seq := int(committed.get(f"{stream}/{part}".encode(), 0))) < last
    ]
    return position, min(behind, default=position["seq"])


def _counts(database: Database, stream: str) -> dict[str, int]:
    return {
        "stored": database.count("readings", stream),
        "predictions": database.count("predictions", stream),
        "rejected": database.count("rejected", stream),
    }


def _latency(buckets: dict[bytes, bytes]) -> dict[str, float | None]:
    counts = sorted((int(bucket), int(count)) for bucket, count in buckets.items())
    total = sum(count for _, count in counts)
    found: dict[str, float | None] = {}
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        seen = 0
        found[name] = None
        for milliseconds, count in counts:
            seen += count
            if seen >= share * total:
                found[name] = float(milliseconds)
                break
    return found


def _secret(file: str | None) -> str:
    return Path(file).read_text().strip() if file else ""
