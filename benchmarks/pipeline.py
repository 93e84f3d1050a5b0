"""The real programs, as the Procfile starts them, and what they use while they work."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from honcho.environ import parse_procfile
from redis import Redis
from redis.exceptions import RedisError

from benchmarks import processes
from benchmarks.databases import CannotMeasure, Server, open_database
from embedded.stack import PORTS, ROOT, environment, free_port

COMMANDS: dict[str, str] = parse_procfile((ROOT / "Procfile").read_text()).processes
METRICS = ("BUFFER_METRICS_PORT", "TOOL_METRICS_PORT")
START_SECONDS = 60.0
MERGE_SECONDS = 300.0  # hospital merges its CSVs before it is ready
LOOK = 0.02  # seconds between two looks at the positions


@dataclass
class Usage:
    """What was used from the first batch to the last commit. CPU in seconds, memory in bytes."""

    messages: int
    seconds: float
    cpu: dict[str, float]
    peak: dict[str, int]
    others: float  # share of the machine's CPU time that went elsewhere

    def details(self) -> dict[str, Any]:
        return {
            "messages": self.messages,
            "seconds": round(self.seconds, 3),
            "cpu_us_per_message": {
                name: round(seconds / self.messages * 1e6, 2) for name, seconds in self.cpu.items()
            },
            "peak_mb": {name: round(size / 1e6) for name, size in self.peak.items()},
            "others_cpu_share": round(self.others, 3),
        }


class Pipeline:
    """Programs in a folder of their own. A context manager: leaving it ends what it started."""

    def __init__(
        self, folder: Path, patient_data: Path, database_url: str, server: Server, **settings: str
    ) -> None:
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        self.environ: Mapping[str, str] = environment(
            folder,
            {
                **inherited,
                **{key: str(free_port()) for key in (*PORTS, *METRICS)},
                "PATIENT_DATA": str(patient_data),
                "DATABASE_URL": database_url,
                "REPLAY_RATE": "0",
                "REPLAY_MODE": "hindsight",
            }
            | settings,
        )
        (folder / "redis").mkdir(parents=True)
        self.folder = folder
        self.server = server
        self.redis: Any = Redis.from_url(self.environ["REDIS_URL"], socket_timeout=5)
        self.stream = ""
        self.messages = 0
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self.redis.close()
        for process in self._running.values():
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + 10
        for name in reversed(self._running):
            process = self._running[name]
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()

    def start(self, *names: str) -> None:
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as output:
                self._running[name] = subprocess.Popen(
                    ["sh", "-c", COMMANDS[name]],
                    cwd=ROOT,
                    env=dict(self.environ),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a group, with all that the program starts
                )

    def wait(self, what: Callable[[], Any], told: str, seconds: float = START_SECONDS) -> None:
        """Until `what()` is true. Raises CannotMeasure, with the end of the logs."""
        deadline = time.monotonic() + seconds
        while not what():
            dead = [name for name, p in self._running.items() if p.poll() is not None]
            if dead or time.monotonic() > deadline:
                reason = f"{dead[0]} ended" if dead else f"not within {seconds:.0f} s"
                raise CannotMeasure(f"{told}: {reason}\n{self._logs()}")
            time.sleep(LOOK)

    def _logs(self) -> str:
        logs = {name: (self.folder / f"{name}.log").read_bytes() for name in self._running}
        return "\n".join(
            f"--- {name}\n{log[-800:].decode(errors='replace')}" for name, log in logs.items()
        )

    def ready(self, *names: str) -> None:
        """Starts the programs and waits until each would take work."""
        self.start(*names)
        for name in names:
            seconds = MERGE_SECONDS if name == "hospital" else START_SECONDS
            self.wait(getattr(self, f"_{name}_ready"), f"{name} did not get ready", seconds)

    def _redis_ready(self) -> bool:
        try:
            return bool(self.redis.ping())
        except RedisError:
            return False

    def _modelapi_ready(self) -> bool:
        return bool(_get_json(f"{self.environ['MODEL_URL']}/health"))

    def _tool_ready(self) -> bool:
        parts = int(self.environ.get("PARTITIONS", 2))
        at_work = all(self.redis.scard(f"rq:workers:tool-{part}") for part in range(parts))
        return at_work and bool(self.redis.exists("icu:declaration"))

    def _hospital_ready(self) -> bool:
        found = _get_json(f"http://127.0.0.1:{self.environ['HOSPITAL_PORT']}/health")
        self.stream, self.messages = found.get("stream", ""), found.get("messages", 0)
        return bool(self.stream)

    def _dashboard_ready(self) -> bool:
        return bool(_get_json(f"http://127.0.0.1:{self.environ['DASHBOARD_PORT']}/health"))

    def _front_ready(self) -> bool:
        return bool(_get_json(f"http://127.0.0.1:{self.environ['FRONT_PORT']}/api/model"))

    def run(self, seconds: float, look: Callable[[int], None] = lambda stored: None) -> Usage:
        """Starts the buffer; what was used from its first batch until all is stored.

        `look` is called all the while with the number of messages that are stored.
        Raises CannotMeasure when that takes more than `seconds`.
        """
        self.start("buffer")
        self.wait(lambda: self.redis.exists("icu:position"), "no message came")
        start, cpu, machine = time.monotonic(), self._cpu(), processes.machine_cpu_seconds()

        def done() -> bool:
            stored = self.stored()
            look(stored)
            return stored >= self.messages

        self.wait(done, "not all messages were stored", seconds)
        taken = time.monotonic() - start
        machine = processes.machine_cpu_seconds() - machine
        used = {name: after - cpu.get(name, 0.0) for name, after in self._cpu().items()}
        own = sum(used.values()) + time.process_time() - cpu["benchmark"]
        used.pop("benchmark")
        cores = os.cpu_count() or 1
        return Usage(
            self.messages, taken, used, self.peak(), max(0.0, machine - own) / (taken * cores)
        )

    def stored(self) -> int:
        """Up to which message all are in the database."""
        try:
            position = json.loads(self.redis.get("icu:position") or "{}")
            committed = self.redis.hgetall("icu:committed")
        except RedisError:
            return 0
        behind = [
            seq
            for part, last in position.get("parts", {}).items()
            if (seq := int(committed.get(f"{self.stream}/{part}".encode(), 0))) < last
        ]
        return min(behind, default=position.get("seq", 0))

    def latency(self) -> dict[str, float]:
        """Milliseconds from the buffer's receipt to the commit, as the tool has counted them."""
        found = self.redis.hgetall(f"icu:latency:{self.stream}")
        counts = sorted((int(bucket), int(count)) for bucket, count in found.items())
        total = sum(count for _, count in counts)
        latency = {"max": float(counts[-1][0])}
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            seen = 0
            for milliseconds, count in counts:
                seen += count
                if seen >= share * total:
                    latency[name] = float(milliseconds)
                    break
        return latency

    def wait_for_model(self, seconds: float = 30) -> None:
        """Until no prediction waits for the model API: a busy one may have been late."""
        connection = open_database(self.environ["DATABASE_URL"])
        cursor = connection.cursor()

        def nothing_waits() -> bool:
            cursor.execute("SELECT COUNT(*) FROM pending")
            waiting = cursor.fetchone()[0]
            connection.commit()  # else the next look sees what this one saw
            return not waiting

        self.wait(nothing_waits, "predictions wait for their model", seconds)
        connection.close()

    def peak(self) -> dict[str, int]:
        """The most memory that any one process of each program ever had."""
        return self._memory(peak=True)

    def resident(self) -> dict[str, int]:
        """The memory of each program's largest process now."""
        return self._memory(peak=False)

    def _memory(self, peak: bool) -> dict[str, int]:
        return {
            name: max(processes.memory(pid, peak) for pid in pids)
            for name, pids in self._pids().items()
            if pids
        }

    def _cpu(self) -> dict[str, float]:
        used = {
            name: sum(processes.cpu_seconds(pid) for pid in pids)
            for name, pids in self._pids().items()
        }
        return used | {"benchmark": time.process_time()}

    def _pids(self) -> dict[str, list[int]]:
        found = {name: processes.group(process.pid) for name, process in self._running.items()}
        if self.server.pid is not None:
            found["database"] = [self.server.pid]
        return found


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _get_json(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found
    except (OSError, ValueError):
        return {}
