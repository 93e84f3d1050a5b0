"""The faults of the embedded stack."""

import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from redis import Redis

from chaos.faults import Fault, held
from chaos.model_proxy import Proxy
from embedded.stack import free_port
from tests.support.alarm_rules import set_rules
from tests.support.pipeline import PROGRAMS, Pipeline

# Docker waits 0.1 s before the first restart, and doubles the delay each time.
RESTART_AFTER = 0.1


class EmbeddedStack(Pipeline):
    """Runs the programs of the Procfile, and restarts those that die, as compose does."""

    programs = PROGRAMS

    def __init__(self, folder: Path, patient_data: Path, rate: float) -> None:
        port = free_port()
        self._fault = folder / "model-fault"
        set_rules(folder)
        super().__init__(
            folder,
            patient_data,
            REPLAY_RATE=f"{rate:g}",
            MODEL_URL=f"http://127.0.0.1:{port}",
            # A fault kills one of the two, and the other must go on answering.
            MODELAPI_WORKERS="2",
        )
        upstream = f"http://127.0.0.1:{self.environ['MODELAPI_PORT']}"
        self._proxy = Proxy(("127.0.0.1", port), upstream, self._fault)
        self._over = threading.Event()
        self._hold = threading.Lock()

    def __enter__(self) -> Self:
        # The tool reads the declaration through the proxy.
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        super().__enter__()
        threading.Thread(target=self._supervise, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._proxy.shutdown()
        self._proxy.server_close()
        for program in PROGRAMS:
            self.send(program, signal.SIGCONT)
        super().__exit__(*error)

    def _supervise(self) -> None:
        while not self._over.wait(RESTART_AFTER):
            with self._hold:
                for program in PROGRAMS:
                    if not self._over.is_set() and not self.alive(program):
                        self.start(program)

    def kill(self, name: str) -> None:
        self.send(name, signal.SIGKILL)

    def kill_worker(self, program: str, number: int) -> None:
        # The shell execs the program, so the program has the shell's pid and leads the group.
        children = [pid for pid in self.pids(program)[1:] if not _tracks_resources(pid)]
        os.kill(children[number % len(children)], signal.SIGKILL)

    def pause(self, program: str) -> None:
        self.send(program, signal.SIGSTOP)

    def resume(self, program: str) -> None:
        self.send(program, signal.SIGCONT)

    def client(self) -> "Redis":
        return Redis.from_url(self.environ["REDIS_URL"], socket_timeout=10, decode_responses=True)

    def redis_command(self, *command: str) -> str:
        with self.client() as client:
            answer: Any = client.execute_command(*command)
        if isinstance(answer, dict):
            answer = [text for pair in answer.items() for text in pair]
        return " ".join(map(str, answer)) if isinstance(answer, list) else str(answer)

    def lose_last_second(self) -> None:
        # From Redis 7 on, the append-only log is a folder of files; in Redis 6.2 it is one file.
        folder = self.folder / "redis"
        [log] = [*folder.glob("appendonlydir/*.incr.aof"), *folder.glob("appendonly.aof")]
        size = log.stat().st_size
        time.sleep(1)
        with self._hold:
            process = self._running["redis"]
            self.send("redis", signal.SIGKILL)
            process.wait(10)
            os.truncate(log, min(size, log.stat().st_size))

    def break_model(self, fault: str) -> None:
        self._fault.write_text(fault)

    def own_faults(self, rng: random.Random) -> list[Fault]:
        locks: list[sqlite3.Connection] = []

        def lock() -> None:
            locks.append(sqlite3.connect(self._file, timeout=30, isolation_level=None))
            locks[0].execute("BEGIN IMMEDIATE")

        def unlock() -> None:
            locks[0].execute("ROLLBACK")
            locks.pop().close()

        return [held("sqlite: locked by another program", 10.0, lock, unlock)]

    @property
    def _file(self) -> str:
        return self.database_url.removeprefix("sqlite:///")

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def hurry(self) -> None:
        """Sends the rest of the stream at full speed."""
        self.environ["REPLAY_RATE"] = "0"
        self.kill("hospital")


@contextmanager
def stack(folder: Path, patient_data: Path, rate: float) -> Iterator[EmbeddedStack]:
    with EmbeddedStack(folder, patient_data, rate) as running:
        yield running


def _tracks_resources(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True)
    return "resource_tracker" in found.stdout
