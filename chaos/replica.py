"""`python -m chaos --stack replica`: kills MySQL twice, and each time promotes a replica by hand.

The replica is made and promoted with the statements of docs/operations.md. First it is
semi-synchronous, and must have every acknowledged message. Then the old source becomes the replica,
asynchronously, and lacks messages when it is promoted. In the end, all rows must equal those of
pandas. This needs a Docker engine.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from embedded.programs import ROOT
from embedded.stack import free_port
from tests.support import alarm_oracle
from tests.support.oracle import at_rest, check, table
from tests.support.pipeline import Pipeline
from wire import keys

NETWORK = "icu-chaos-replica"
NAMES = ("a", "b")
SECRETS = {"migrator": "migrating", "tool": "writing", "dashboard": "reading"}


class Statements(NamedTuple):
    """The blocks of SQL in docs/operations.md, in their order."""

    source: str
    copy: str
    follow: str
    promote: str


@cache
def statements() -> Statements:
    text = (ROOT / "docs/operations.md").read_text()
    [section] = re.findall(r"^## A replica of the database\n(.*?)^## ", text, re.DOTALL | re.M)
    return Statements(*re.findall(r"^```sql\n(.*?)^```", section, re.DOTALL | re.M))


def docker(*command: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["docker", *command], cwd=ROOT, input=given, capture_output=True, text=True, timeout=300
    )


def remove() -> None:
    """Removes the servers and their network, if they exist."""
    docker("rm", "--force", "--volumes", *(f"{NETWORK}-{name}" for name in NAMES))
    docker("network", "rm", NETWORK)


class Server:
    """A tooldb server with its own passwords. Its file system is read-only, as with compose."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = f"{NETWORK}-{name}"
        self._port = free_port()
        command = ["--network", NETWORK, "--publish", f"127.0.0.1:{self._port}:3306"]
        for user, word in SECRETS.items():
            (folder / name / user).mkdir(parents=True)
            (folder / name / user / "password").write_text(f"{word}-on-{name}")
            command += ["--volume", f"{folder}/{name}/{user}:/run/secrets/{user}:ro"]
        done = docker(
            *("run", "--detach", "--name", self.name, "--restart", "unless-stopped"),
            *("--read-only", "--tmpfs", "/run/mysqld:mode=0700,uid=999,gid=999"),
            *("--tmpfs", "/tmp"),  # noqa: S108
            *(*command, "icu-stream/tooldb", "mysqld"),
            *("--innodb-redo-log-capacity=64M", "--innodb-buffer-pool-size=64M"),
        )
        assert done.returncode == 0, done.stderr

    def url(self, user: str) -> str:
        password = f"{SECRETS[user]}-on-{self.name.removeprefix(NETWORK + '-')}"
        return f"mysql://{user}:{password}@127.0.0.1:{self._port}/tooldb"

    def healthy(self) -> bool:
        check = ("mysql", "--defaults-file=/run/mysqld/health.cnf", "tooldb", "--execute=SELECT 1")
        return docker("exec", self.name, *check).returncode == 0

    def copied(self) -> bool:
        """Whether the server has copied another one's data, and has started again."""
        state = "SELECT state FROM performance_schema.clone_status"
        return "Completed" in docker("exec", self.name, "mysql", "--execute", state).stdout

    def run(self, sql: str, source: str = "") -> str:
        """Runs statements as root, as an operator does."""
        sql = sql.replace("SOURCE:", f"{source}:").replace("'SOURCE'", f"'{source}'")
        done = docker("exec", "--interactive", self.name, "mysql", "--skip-column-names", given=sql)
        assert done.returncode == 0 or "3707" in done.stderr, done.stderr
        return done.stdout

    def positions(self) -> dict[int, int]:
        return dict(table(self.url("dashboard"), "positions")[["part", "seq"]].itertuples(False))


def follow(pipeline: Pipeline, replica: Server, source: Server, number: int) -> None:
    """Makes a replica of the source, and waits until it acknowledges commits."""
    source.run(statements().source)
    copy = statements().copy.replace("server_id = 2", f"server_id = {number}")
    replica.run(copy, source.name)
    pipeline.wait(replica.copied)
    replica.run(statements().follow, source.name)
    pipeline.wait(lambda: "clients\t1" in source.run("SHOW STATUS LIKE 'Rpl_semi_sync%clients'"))


def acknowledged(pipeline: Pipeline) -> dict[int, int]:
    """The last message of each partition that is stored, as far as the pipeline knows."""
    known: dict[Any, Any] = pipeline.redis.hgetall(keys.COMMITTED)
    return {int(k.rpartition(b"/")[2]): int(v) for k, v in known.items() if b"/" in k}


def use(pipeline: Pipeline, server: Server) -> dict[int, int]:
    """Promotes a replica and points the pipeline at it, with an empty Redis. Returns the positions
    that the replica had."""
    pipeline.stop("tool")
    pipeline.stop("buffer")
    server.run(statements().promote)
    found = server.positions()
    pipeline.redis.flushall()
    pipeline.environ["DATABASE_URL"] = server.url("tool")
    pipeline.start("tool", "buffer")
    return found


def run(folder: Path, patient_data: Path, rate: float, report: Callable[[str], None]) -> bool:
    """Returns True, or raises AssertionError for missing or wrong rows."""
    settings = {"REPLAY_RATE": f"{rate:g}"}
    with ExitStack() as stack:
        done = docker("build", "--quiet", "--tag", "icu-stream/tooldb", "tooldb")
        assert done.returncode == 0, done.stderr
        # An interrupted run leaves them behind.
        remove()
        stack.callback(remove)
        docker("network", "create", NETWORK)
        a, b = (Server(name, folder) for name in NAMES)
        pipeline = Pipeline(folder, patient_data, DATABASE_URL=a.url("tool"), **settings)
        pipeline.wait(lambda: a.healthy() and b.healthy(), 300)
        migrate = pipeline.environ | {"DATABASE_URL": a.url("migrator")}
        subprocess.run([sys.executable, "-m", "tool", "migrate"], cwd=ROOT, env=migrate, check=True)
        stack.enter_context(pipeline)
        _semi_synchronous(pipeline, a, b, report)
        _asynchronous(pipeline, b, a, report)
        assert not pipeline.done(), "the stream ended too early"
        pipeline.environ["REPLAY_RATE"] = "0"
        pipeline.stop("hospital")
        pipeline.start("hospital")
        url = a.url("dashboard")
        pipeline.wait(lambda: pipeline.done() and at_rest(url), 300)
        report(check(patient_data, url, "live"))
        report(alarm_oracle.check(url))
    return True


def _semi_synchronous(
    pipeline: Pipeline, source: Server, replica: Server, report: Callable[[str], None]
) -> None:
    pipeline.wait(lambda: len(acknowledged(pipeline)) == 2)
    follow(pipeline, replica, source, 2)
    after = pipeline.committed()
    pipeline.wait(lambda: pipeline.committed() > after + 50)
    docker("kill", source.name)
    last = acknowledged(pipeline)
    found = use(pipeline, replica)
    report(f"semi-synchronous: acknowledged {last}, on the promoted replica {found}")
    assert all(found[part] >= seq for part, seq in last.items())


def _asynchronous(
    pipeline: Pipeline, source: Server, replica: Server, report: Callable[[str], None]
) -> None:
    docker("start", replica.name)
    pipeline.wait(replica.healthy)
    follow(pipeline, replica, source, 3)
    source.run("SET GLOBAL rpl_semi_sync_source_enabled = OFF")
    replica.run("STOP REPLICA")
    copied = source.positions()
    pipeline.wait(lambda: all(source.positions()[part] > seq for part, seq in copied.items()))
    docker("kill", source.name)
    last = acknowledged(pipeline)
    found = use(pipeline, replica)
    report(f"asynchronous: acknowledged {last}, on the promoted replica {found}")
    assert all(found[part] < seq for part, seq in last.items())
