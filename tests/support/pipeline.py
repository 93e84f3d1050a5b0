"""The embedded pipeline in a test's hands: each program started, killed and held by name."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from honcho.environ import parse_procfile
from redis import Redis
from redis.exceptions import RedisError

from embedded.redis_server import NoRedis, executable
from embedded.stack import PORTS, ROOT, environment, free_port

COMMANDS: dict[str, str] = parse_procfile((ROOT / "Procfile").read_text()).processes
# What a replay needs, in the order it is started.
PROGRAMS = ("redis", "hospital", "modelapi", "buffer", "tool")


class Pipeline:
    """The programs of the Procfile in a folder of their own. Use it as a context manager."""

    def __init__(self, folder: Path, patient_data: Path, **settings: str) -> None:
        ports = {key: str(free_port()) for key in PORTS}
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "CI") if key in os.environ}
        self.environ = environment(
            folder,
            {**inherited, **ports, "PATIENT_DATA": str(patient_data), "REPLAY_RATE": "0"}
            | settings,
        )
        (folder / "redis").mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.database_url = self.environ["DATABASE_URL"]
        self.redis: Any = Redis.from_url(self.environ["REDIS_URL"], socket_timeout=5)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Pipeline":
        try:
            executable()
        except NoRedis as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        self.start(*PROGRAMS)
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(PROGRAMS):
            self.stop(name)
        self.redis.close()

    def start(self, *names: str) -> None:
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as output:
                self._running[name] = subprocess.Popen(
                    ["sh", "-c", COMMANDS[name]],
                    cwd=ROOT,
                    env=self.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a group: gunicorn's and the tool's workers go with it
                )

    def send(self, name: str, number: int) -> None:
        """Sends the signal to the program and all its children."""
        process = self._running.get(name)
        if process is not None and process.poll() is None:
            os.killpg(process.pid, number)

    def kill(self, name: str) -> None:
        """As `kill -9`, of the program and all its children."""
        self.send(name, signal.SIGKILL)
        self._running.pop(name).wait(10)

    def stop(self, name: str) -> None:
        """As `docker stop`: SIGTERM, and 10 seconds later SIGKILL."""
        process = self._running.pop(name, None)
        if process is None:
            return
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def alive(self, name: str) -> bool:
        return self._running[name].poll() is None

    def pids(self, name: str) -> list[int]:
        """The process group's members, the program first."""
        group = self._running[name].pid
        found = subprocess.run(
            ["ps", "-o", "pid=", "-g", str(group)], capture_output=True, text=True, check=False
        )
        return sorted(int(pid) for pid in found.stdout.split())

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def health(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.environ['HOSPITAL_PORT']}/health"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (OSError, ValueError):
            return {}

    def position(self) -> dict[str, Any]:
        """The buffer's position, as Redis has it."""
        try:
            found: dict[str, Any] = json.loads(self.redis.get("icu:position") or "{}")
        except (RedisError, ValueError):
            found = {}
        return found

    def committed(self) -> int:
        """The last message in the database of the partition that is furthest."""
        try:
            known = self.redis.hgetall("icu:committed")
        except RedisError:
            return 0
        return max((int(seq) for field, seq in known.items() if b"/" in field), default=0)

    def stored(self) -> bool:
        """All messages that the buffer has read are in the database."""
        position = self.position()
        try:
            committed = self.redis.hgetall("icu:committed")
        except RedisError:
            return False
        return bool(position) and all(
            int(committed.get(f"{position['stream']}/{part}".encode(), 0)) >= last
            for part, last in position["parts"].items()
        )

    def done(self) -> bool:
        """All messages of a finished stream are in the database."""
        return bool(self.position().get("ended")) and self.stored()

    def wait(self, what: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {name}\n{self.log(name)[-3000:]}" for name in PROGRAMS)
                pytest.fail(f"not reached within {seconds} s: {what}\n{logs}")
            time.sleep(0.05)


def synthetic(folder: Path, *arguments: str) -> Path:
    """A folder with synthetic CSVs."""
    subprocess.run(
        [sys.executable, "-m", "hospital.synthetic", "--to", str(folder), *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return folder
