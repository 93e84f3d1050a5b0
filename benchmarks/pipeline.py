"""Runs the real programs of the Procfile, and measures their CPU time and memory."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from benchmarks import processes
from benchmarks.databases import CannotMeasure, Server, open_database
from embedded.programs import Programs, get_json
from embedded.stack import environment, free_ports

START_SECONDS = 60.0
MERGE_SECONDS = 300.0  # seconds; hospital merges its CSVs before it is ready
LOOK = 0.02  # seconds between two reads of the positions


@dataclass
class Usage:
    """The resource usage from the first batch to the last commit. CPU in seconds, memory in
    bytes."""

    messages: int
    seconds: float
    cpu: dict[str, float]
    peak: dict[str, int]
    others: float  # share of the machine's CPU time that other programs used

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


class Pipeline(Programs):
    """Programs in a folder of their own, and the database server that they use."""

    def __init__(
        self, folder: Path, patient_data: Path, database_url: str, server: Server, **settings: str
    ) -> None:
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        chosen = {
            "PATIENT_DATA": str(patient_data),
            "DATABASE_URL": database_url,
            "REPLAY_RATE": "0",
            "REPLAY_MODE": "hindsight",
        } | settings
        super().__init__(folder, environment(folder, inherited | free_ports() | chosen))
        self.server = server
        self.stream = ""
        self.messages = 0

    def wait(
        self, reached: Callable[[], Any], failure: str, seconds: float = START_SECONDS
    ) -> None:
        """Waits until `reached()` is true. After `seconds`, or if a program ends, raises
        CannotMeasure with the end of the logs."""
        deadline = time.monotonic() + seconds
        while not reached():
            ended = self.ended()
            if ended or time.monotonic() > deadline:
                reason = f"{ended[0]} ended" if ended else f"not within {seconds:.0f} s"
                logs = self.logs(self._running, 800)
                raise CannotMeasure(f"{failure}: {reason}\n{logs}")
            time.sleep(LOOK)

    def ready(self, *names: str) -> None:
        """Starts the programs and waits until all are ready."""
        self.start(*names)
        for name in names:
            seconds = MERGE_SECONDS if name == "hospital" else START_SECONDS
            self.wait(getattr(self, f"_{name}_ready"), f"{name} did not become ready", seconds)

    def _redis_ready(self) -> bool:
        try:
            return bool(self.redis.ping())
        except RedisError:
            return False

    def _modelapi_ready(self) -> bool:
        return bool(get_json(f"{self.environ['MODEL_URL']}/health"))

    def _tool_ready(self) -> bool:
        return self.tool_is_ready()

    def _hospital_ready(self) -> bool:
        health = self.health()
        self.stream, self.messages = health.get("stream", ""), health.get("messages", 0)
        return bool(self.stream)

    def _dashboard_ready(self) -> bool:
        return bool(get_json(f"http://127.0.0.1:{self.environ['DASHBOARD_PORT']}/health"))

    def _front_ready(self) -> bool:
        return bool(get_json(f"http://127.0.0.1:{self.environ['FRONT_PORT']}/api/model"))

    def run(self, seconds: float, look: Callable[[int], None] = lambda stored: None) -> Usage:
        """Starts the buffer; returns the usage from its first batch until all messages are stored.
        `look` is called repeatedly with the number of stored messages. Raises CannotMeasure after
        `seconds`.
        """
        self.start("buffer")
        self.wait(lambda: self.position(), "no message arrived")
        start, cpu, machine = time.monotonic(), self._cpu(), processes.machine_cpu_seconds()

        def done() -> bool:
            stored = self.stored_up_to()
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

    def wait_for_model(self) -> None:
        """Waits until no prediction is pending, because a busy model API may have been late."""
        connection = open_database(self.environ["DATABASE_URL"])
        cursor = connection.cursor()

        def nothing_waits() -> bool:
            cursor.execute("SELECT COUNT(*) FROM pending")
            waiting = cursor.fetchone()[0]
            connection.commit()  # otherwise the next check would see the same state
            return not waiting

        self.wait(nothing_waits, "predictions wait for their model", 30)
        connection.close()

    def peak(self) -> dict[str, int]:
        """The peak memory of each program's largest process."""
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
