"""Starts, stops and kills the programs of the Procfile by name."""

import json
import math
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from honcho.environ import parse_procfile
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import RedisError

from wire import keys

ROOT = Path(__file__).parent.parent
COMMANDS: dict[str, str] = parse_procfile((ROOT / "Procfile").read_text()).processes
# For a live ward, the gateway takes hospital's place.
COMMANDS["gateway"] = COMMANDS["hospital"].replace("hospital", "gateway")
# The programs that store a stream and predict for it, in the order in which they start.
PIPELINE = ("redis", "hospital", "modelapi", "buffer", "tool")
# Seconds between SIGTERM and SIGKILL.
STOP_SECONDS = 10.0
NO_METRICS = {"BUFFER_METRICS_PORT": "0", "TOOL_METRICS_PORT": "0"}


class Programs:
    """Running programs, each with a log in `folder`. Leaving the context stops all programs.

    environ: the result of `embedded.stack.environment`.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.environ = dict(environ)
        Path(self.environ["REDIS_FOLDER"]).mkdir(parents=True, exist_ok=True)
        self.redis: Any = keys.connection(self.environ["REDIS_URL"])
        # The other checkout from which a program runs, by the name of the program.
        self.roots: dict[str, Path] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)
        self.redis.close()

    def start(self, *names: str) -> None:
        """Starts programs. The name `tool-2` stands for a second tool, without metrics."""
        for name in names:
            program, _, number = name.partition("-")
            with (self.folder / f"{name}.log").open("ab") as output:
                self._running[name] = subprocess.Popen(
                    ["sh", "-c", COMMANDS[program]],
                    cwd=self.roots.get(name, ROOT),
                    env=self.environ | (NO_METRICS if number else {}),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a process group, with the program's workers
                )

    def send(self, name: str, number: int) -> None:
        """Sends a signal to the program and its workers, if it runs."""
        process = self._running.get(name)
        if process is not None and process.poll() is None:
            os.killpg(process.pid, number)

    def kill(self, name: str) -> None:
        """Kills the program and its workers with SIGKILL."""
        self.send(name, signal.SIGKILL)
        self._running.pop(name).wait(STOP_SECONDS)

    def stop(self, name: str) -> None:
        """Stops a program as `docker stop` does: SIGTERM, then SIGKILL after 10 seconds."""
        process = self._running.pop(name, None)
        if process is None:
            return
        _signal_group(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()

    def alive(self, name: str) -> bool:
        return self._running[name].poll() is None

    def ended(self) -> list[str]:
        """The programs that have ended by themselves."""
        return [name for name in self._running if not self.alive(name)]

    def pids(self, name: str) -> list[int]:
        """The processes of a program, the main process first."""
        group = str(self._running[name].pid)
        listed = subprocess.run(
            ["ps", "-o", "pid=", "-g", group], capture_output=True, text=True, check=False
        )
        return sorted(map(int, listed.stdout.split()))

    def log(self, name: str) -> str:
        """A program's log; empty before its first start."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def logs(self, names: Iterable[str], length: int = 3000) -> str:
        """The end of each program's log."""
        return "\n".join(f"--- {name}\n{self.log(name)[-length:]}" for name in names)

    def health(self) -> dict[str, Any]:
        """The health report of hospital; empty if it does not answer."""
        return get_json(f"http://127.0.0.1:{self.environ['HOSPITAL_PORT']}/health")

    def tool_is_ready(self) -> bool:
        """Whether each partition has a worker, and the tool knows the models in use."""
        try:
            parts = range(int(self.environ.get("PARTITIONS", 2)))
            workers = [self.redis.scard(f"rq:workers:{keys.queue_name(part)}") for part in parts]
            return all(workers) and bool(self.redis.exists(keys.DECLARATION))
        except RedisError:
            return False

    def position(self) -> dict[str, Any]:
        """The buffer's position; empty if there is none."""
        try:
            found: dict[str, Any] = json.loads(self.redis.get(keys.POSITION) or "{}")
        except (RedisError, ValueError):
            return {}
        return found

    def stored_up_to(self) -> int:
        """The number of the message up to which all messages of the stream are stored."""
        position = self.position()
        last_stored = self._last_stored(position.get("stream", ""))
        behind = [
            last_stored.get(part, 0)
            for part, last in position.get("parts", {}).items()
            if last_stored.get(part, 0) < last
        ]
        return min(behind, default=position.get("seq", 0))

    def stored(self) -> bool:
        """Whether all messages that the buffer has read are stored."""
        position = self.position()
        return bool(position) and self.stored_up_to() >= position["seq"]

    def done(self) -> bool:
        """Whether the stream has ended and all of it is stored."""
        return bool(self.position().get("ended")) and self.stored()

    def _last_stored(self, stream: str) -> dict[str, int]:
        try:
            committed = self.redis.hgetall(keys.COMMITTED)
        except RedisError:
            return {}
        prefix = f"{stream}/".encode()
        return {
            field.removeprefix(prefix).decode(): int(seq)
            for field, seq in committed.items()
            if field.startswith(prefix)
        }

    def committed(self) -> int:
        """The highest number of a stored message."""
        return max(self._last_stored(self.position().get("stream", "")).values(), default=0)

    def work(self) -> dict[str, float]:
        """The seconds that the tool's workers have spent on each kind of work."""
        return self.tool_metric("icu_tool_work_seconds_total", "kind")

    def tool_metric(self, name: str, label: str) -> dict[str, float]:
        """The values of one of the tool's metrics, by the value of one of its labels."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.environ['TOOL_METRICS_PORT']}/metrics", timeout=5
        ) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return {
                sample.labels[label]: sample.value
                for family in families
                for sample in family.samples
                if sample.name == name
            }

    def latency(self, stream: str) -> dict[str, float]:
        """The milliseconds from the buffer's receipt of a message to the commit: p50, p99 and max;
        NaN without messages."""
        found = self.redis.hgetall(f"{keys.LATENCY}:{stream}")
        counts = sorted((int(bucket), int(count)) for bucket, count in found.items())
        total = sum(count for _, count in counts)
        shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
        return {name: _quantile(counts, share * total) for name, share in shares.items()}


def get_json(url: str) -> dict[str, Any]:
    """The JSON object at an address; empty if it cannot be read."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found
    except (OSError, ValueError):
        return {}


def _quantile(counts: list[tuple[int, int]], rank: float) -> float:
    seen = 0
    for milliseconds, count in counts:
        seen += count
        if seen >= rank:
            return float(milliseconds)
    return math.nan


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
