"""The faults of the compose stack. Programs are killed by pid, and Docker restarts them.

This must run as root on the machine of the Docker Engine.
"""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from chaos.faults import BOUND, Fault, at_once, held
from chaos.mysql import Reader
from embedded.programs import ROOT
from embedded.stack import free_port

PROJECT = "icu-chaos"
FILES = ("--file", "docker-compose.yml", "--file", "chaos/compose.yml")
CUTS = (
    ("hospital", "ward"),
    ("buffer", "ward"),
    ("buffer", "queue"),
    ("redis", "queue"),
    ("tool", "queue"),
    ("tool", "database"),
    ("tool", "front"),
    ("tooldb", "database"),
    ("modelapi", "front"),
    ("nginx", "front"),
)
# This transaction is larger than the tool's, so MySQL resolves the deadlock by aborting the tool's.
DEADLOCK = """
START TRANSACTION;
INSERT INTO pending (stream, seq, model, version)
  SELECT 'deadlock', seq, 'x', '1' FROM readings ORDER BY seq LIMIT 20000;
SELECT COUNT(*) FROM vitals FOR UPDATE;
DO SLEEP(2);
SELECT COUNT(*) FROM positions FOR UPDATE;
ROLLBACK;
"""


class ComposeStack:
    """The stack of docker-compose.yml, with a proxy in front of the model API, and with the
    database on a small disk.
    """

    programs = ("redis", "hospital", "modelapi", "buffer", "tool", "tooldb", "nginx")

    def __init__(self, folder: Path, patient_data: Path, rate: float) -> None:
        self._fault = folder / "model"
        for path in (folder, folder.parent, *patient_data.iterdir(), patient_data):
            # The users in the containers must be able to read the files.
            path.chmod(0o755 if path.is_dir() else 0o644)
        self._environ = os.environ | {
            "PATIENT_DATA": str(patient_data),
            "REPLAY_RATE": f"{rate:g}",
            "CHAOS_FOLDER": str(folder),
            "PORT": str(free_port()),
            # Isolated networks would prevent the oracle from connecting to the database.
            "INTERNAL_GATEWAY": "nat",
        }
        self.query = Reader(lambda: self.database_url).query

    def __enter__(self) -> "ComposeStack":
        self._down()
        self._compose("up", "--build", "--wait", "--wait-timeout", "600", "--quiet-pull")
        self._password = self._exec("tooldb", "cat", "/run/secrets/dashboard/password").strip()
        return self

    def __exit__(self, *_: object) -> None:
        if os.environ.get("CHAOS_LOGS"):
            Path(os.environ["CHAOS_LOGS"]).write_text(
                self._compose("logs", "--no-color", "--timestamps")
            )
        self._down()

    def _down(self) -> None:
        self._compose(
            *("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "3")
        )

    def _compose(self, *arguments: str) -> str:
        return _run("docker", "compose", "-p", PROJECT, *FILES, *arguments, env=self._environ)

    def _name(self, service: str) -> str:
        return f"{PROJECT}-{service}-1"

    def _inspect(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(_run("docker", "inspect", self._name(service)))[0]
        return found

    def _exec(self, service: str, *command: str, given: str | None = None) -> str:
        return _run("docker", "exec", "-i", self._name(service), *command, given=given)

    def _processes(self, service: str) -> list[tuple[int, int, str]]:
        """The processes of a service: (pid, pid of the parent, command), as the host sees them."""
        said = _run("docker", "top", self._name(service), "-eo", "pid,ppid,args")
        rows = [line.split(None, 2) for line in said.splitlines()[1:]]
        return [(int(pid), int(parent), command) for pid, parent, command in rows]

    def kill(self, program: str) -> None:
        os.kill(self._inspect(program)["State"]["Pid"], signal.SIGKILL)

    def kill_worker(self, program: str, number: int) -> None:
        processes = self._processes(program)
        init = self._inspect(program)["State"]["Pid"]
        [main] = [pid for pid, parent, _ in processes if parent == init]
        workers = [
            pid
            for pid, parent, command in processes
            if parent == main and "resource_tracker" not in command
        ]
        os.kill(workers[number % len(workers)], signal.SIGKILL)

    def pause(self, program: str) -> None:
        for pid, _, _ in self._processes(program):
            os.kill(pid, signal.SIGSTOP)

    def resume(self, program: str) -> None:
        for pid, _, _ in self._processes(program):
            os.kill(pid, signal.SIGCONT)

    def redis_command(self, *command: str) -> str:
        return self._exec(
            "redis",
            *("sh", "-c", 'REDISCLI_AUTH=$(cat /run/secrets/redis/password) exec redis-cli "$@"'),
            *("redis-cli", *command),
        ).strip()

    def lose_last_second(self) -> None:
        log = "$(ls /data/appendonlydir/*.incr.aof)"
        size = int(self._exec("redis", "sh", "-c", f"stat -c %s {log}"))
        time.sleep(1)
        # Docker must not restart Redis before the file is truncated.
        name = self._name("redis")
        _run("docker", "update", "--restart", "no", name)
        self.kill("redis")
        _run("docker", "wait", name)
        _run(
            *("docker", "run", "--rm", "--user", "root", "--network", "none"),
            *("--volume", f"{PROJECT}_redis:/data", "--entrypoint", "sh", "redis:8"),
            *("-c", f"truncate -s {size} {log}"),
        )
        _run("docker", "update", "--restart", "unless-stopped", name)
        _run("docker", "start", name)

    def break_model(self, fault: str) -> None:
        self._fault.write_text(fault)

    def own_faults(self, rng: random.Random) -> list[Fault]:
        faults = [
            held(
                f"network: {service} cut from {network}",
                8.0,
                partial(self._cut, service, network),
                partial(self._mend, service, network),
            )
            for service, network in CUTS
        ]
        return [
            *faults,
            held(
                "mysql: read-only",
                8.0,
                lambda: self._sql("SET GLOBAL super_read_only = 1"),
                lambda: self._sql("SET GLOBAL read_only = 0"),
            ),
            held("mysql: out of connections", 8.0, self._take_connections, self._give_connections),
            at_once("mysql: transaction aborted by a deadlock, three times", self._deadlock),
            held(
                "mysql: disk full",
                10.0,
                lambda: self._exec("disk", "sh", "-c", "cat /dev/zero >/disk/ballast || true"),
                lambda: self._exec("disk", "rm", "/disk/ballast"),
                # If the binary log is full, MySQL looks for space only every 60 s.
                bound=60.0 + BOUND,
            ),
        ]

    def _cut(self, service: str, network: str) -> None:
        _run("docker", "network", "disconnect", f"{PROJECT}_{network}", self._name(service))

    def _mend(self, service: str, network: str) -> None:
        name = f"{PROJECT}_{network}"
        _run("docker", "network", "connect", "--alias", service, name, self._name(service))

    def _sql(self, statements: str) -> str:
        """Runs statements as root, for whom MySQL reserves one connection."""
        return self._exec(
            "tooldb", "mysql", "--force", "--skip-column-names", "tooldb", given=statements
        )

    def _take_connections(self) -> None:
        ids = self._sql("SELECT id FROM information_schema.processlist WHERE user <> 'root'")
        # One session runs all statements, because clients would take the connections between two
        # sessions.
        kills = "".join(f"KILL {number};" for number in ids.split())
        self._sql(f"SET GLOBAL max_connections = 1; {kills}")

    def _give_connections(self) -> None:
        # A client that MySQL rejects counts as a connection for a moment.
        for _ in range(50):
            try:
                self._sql("SET GLOBAL max_connections = 200")
                return
            except RuntimeError:
                time.sleep(0.1)
        raise RuntimeError("MySQL gave root no connection")

    def _deadlock(self) -> None:
        for _ in range(3):
            self._sql(DEADLOCK)

    @property
    def database_url(self) -> str:
        [network] = self._inspect("tooldb")["NetworkSettings"]["Networks"].values()
        return f"mysql://dashboard:{self._password}@{network['IPAddress']}/tooldb"

    def hurry(self) -> None:
        """Sends the rest of the stream at full speed."""
        self._environ["REPLAY_RATE"] = "0"
        self._compose("up", "--detach", "--no-deps", "hospital")


@contextmanager
def stack(folder: Path, patient_data: Path, rate: float) -> Iterator[ComposeStack]:
    running = ComposeStack(folder, patient_data, rate)
    try:
        yield running.__enter__()
    finally:
        running.__exit__()


def _run(*command: str, given: str | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=env, input=given or "", capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])}: {done.stderr[-2000:]}")
    return done.stdout
