"""The stack of docker-compose.yml: saves MySQL with mysqldump, and SQLite files by copying them."""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from backup.archive import BLOCK, BackupError

# The services that write or cache the parts of a backup.
WRITERS = ("buffer", "tool", "dashboard", "modelapi", "gateway", "login")
FILES = {
    "models": ("modelapi", "/var/lib/modelapi/models.sqlite"),
    "gateway": ("gateway", "/var/lib/gateway/log.sqlite"),
    "login": ("login", "/var/lib/login/login.sqlite"),
}
REDIS = "REDISCLI_AUTH=$(cat /run/secrets/redis/password) redis-cli"
EMPTY_QUEUE = f"{REDIS} FLUSHALL"
# The value of `wire.keys.BACKUP`. It is not imported, because `wire.keys` needs packages that this
# module does not need.
RECORD = f"{REDIS} SET icu:backup"
EXISTS = "import os, sys; print(os.path.exists(sys.argv[1]))"
# Seconds that a restore waits for the database and Redis. A server that has just recovered is
# unhealthy until its next health check, and compose does not wait for it then.
HEALTHY_WITHIN = 120
# All profiles, because a service whose profile is not in use now may have stored data before.
COMPOSE = ("docker", "compose", "--profile", "*")
# Another backup waits, because it would replace the copy before it is opened.
COPY = """
import fcntl, os, shutil, sqlite3, sys
file, copy = sys.argv[1], sys.argv[1] + ".copy"
lock = open(copy + ".lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
if os.path.exists(copy):
    os.remove(copy)
sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30).execute("VACUUM INTO ?", (copy,))
with open(copy, "rb") as content:
    os.remove(copy)
    lock.close()
    shutil.copyfileobj(content, sys.stdout.buffer)
"""
REPLACE = """
import os, shutil, sys
file, new = sys.argv[1], sys.argv[1] + ".part"
with open(new, "wb") as output:
    shutil.copyfileobj(sys.stdin.buffer, output)
    output.flush()
    os.fsync(output.fileno())
for ending in ("-wal", "-shm"):
    if os.path.exists(file + ending):
        os.remove(file + ending)
os.replace(new, file)
"""


class ComposeStack:
    """The compose project of this folder."""

    kind = "mysql"

    def exists(self, part: str) -> bool:
        if part == "tables":
            return True
        service, file = FILES[part]
        # Before the profile of a service is first used, the service has no volume and maybe no
        # image.
        if not _has_volume(service):
            return False
        return _checked(*_python(service, EXISTS), file).strip() == "True"

    @contextmanager
    def read(self, part: str) -> Iterator[IO[bytes]]:
        if part == "tables":
            # Restoring also drops tables that are newer than the backup.
            whole = ("--add-drop-database", "--databases", "tooldb")
            command = ["exec", "-T", "tooldb", "mysqldump", "--no-tablespaces", *whole]
        else:
            service, file = FILES[part]
            command = [*_python(service, COPY), file]
        with _open(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            yield process.stdout

    def write(self, part: str, content: IO[bytes]) -> None:
        if part == "tables":
            command = ["exec", "-T", "tooldb", "mysql"]
        else:
            service, file = FILES[part]
            command = [*_python(service, REPLACE), file]
        with _open(command, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            with process.stdin as pipe:
                while block := content.read(BLOCK):
                    pipe.write(block)

    def record(self, saved_at: int) -> None:
        _run("exec", "-T", "redis", "sh", "-c", f"{RECORD} {saved_at}")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        # A service that fails at the damaged tables is restarting.
        active = ("--status", "running", "--status", "restarting")
        running = set(_lines("ps", "--services", *active))
        _start("tooldb", "redis")
        stopped = [service for service in WRITERS if service in running]
        if stopped:
            _checked("stop", *stopped)
        _checked("exec", "-T", "redis", "sh", "-c", EMPTY_QUEUE)
        try:
            yield
            if "tool" in stopped:
                # The backup may be of an earlier version, and the tool may not upgrade tables.
                _checked("run", "--rm", "-T", "migrate")
        except BackupError as error:
            # The tables may be incomplete, so the programs must not start. The next restore does
            # not know which of them ran.
            start = f"docker compose start {' '.join(stopped)}"
            also = f"; restore again, and then run: {start}" if stopped else ""
            raise BackupError(f"{error}{also}") from None
        if stopped:
            _checked("start", *stopped)


def runs() -> bool:
    """Whether the database of the compose project in this folder is running."""
    try:
        return bool(_run("ps", "--quiet", "tooldb").stdout.strip())
    except OSError:
        return False


def _has_volume(service: str) -> bool:
    project = json.loads(_checked("config", "--format", "json"))["name"]
    labels = (f"project={project}", f"volume={service}")
    filters = [f"--filter=label=com.docker.compose.{label}" for label in labels]
    done = subprocess.run(
        ["docker", "volume", "ls", "--quiet", *filters], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BackupError(f"docker volume ls: {_last_line(done.stderr)}")
    return bool(done.stdout.strip())


def _python(service: str, code: str) -> list[str]:
    """The compose command that runs Python code in a new container with the service's volume."""
    return ["run", "--rm", "--no-deps", "-T", "--entrypoint", "python", service, "-c", code]


@contextmanager
def _open(
    command: list[str], stdin: int = subprocess.DEVNULL, stdout: int | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Starts a compose command, yields its process, and waits until it ends. Raises BackupError if
    it fails."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*COMPOSE, *command],
            stdin=stdin,
            stdout=stdout,
            stderr=errors,
        )
        try:
            yield process
        except BrokenPipeError:
            pass  # the command reports the reason itself
        except BaseException:
            process.kill()  # nobody reads its output any more, for example because the disk is full
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
            code = process.wait()
        if code:
            errors.seek(0)
            raise BackupError(_last_line(errors.read().decode(errors="replace")))


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMPOSE, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _start(*services: str) -> None:
    """Starts services and waits until they are healthy. Raises BackupError."""
    command = ("up", "--detach", "--wait", *services)
    deadline = time.monotonic() + HEALTHY_WITHIN
    while "is unhealthy" in (done := _run(*command)).stderr and time.monotonic() < deadline:
        time.sleep(1)
    if done.returncode:
        raise BackupError(f"docker compose up: {_last_line(done.stderr)}")


def _checked(*command: str) -> str:
    done = _run(*command)
    if done.returncode:
        raise BackupError(f"docker compose {command[0]}: {_last_line(done.stderr)}")
    return done.stdout


def _lines(*command: str) -> list[str]:
    return _checked(*command).split()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "failed without a message"
