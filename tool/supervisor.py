"""Starts a worker per partition and the background process, and restarts those that die."""

import logging
import multiprocessing
import secrets
import signal
import socket
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError
from tenacity import before_sleep_log, retry, retry_if_exception_type, wait_exponential

from tool import metrics, processes
from tool.database import Unavailable
from tool.leases import Leases
from tool.partitions import to_work_on
from tool.settings import Settings, database_of, redis_of
from wire.keys import queue_name

log = logging.getLogger("tool")

# New interpreters do not inherit this process's connections and signal handlers.
_spawn = multiprocessing.get_context("spawn")

ROUND = 0.5  # seconds
# Number of consecutive failed starts of a process after which the tool ends.
STARTS = 5
# Seconds that a process has to finish its job.
STOP_SECONDS = 8.0


def run(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT.

    Raises SettingError if the metrics port is taken, PermanentFailure if it cannot use the tables,
    and CannotStart.
    """
    names = {"tool", *settings.allowed_hosts}
    with metrics.serving(
        settings.metrics_host, settings.metrics_port, names, settings.database_url
    ) as supervised:
        signal.signal(signal.SIGTERM, _interrupt)
        supervisor = Supervisor(settings, redis_of(settings), supervised)
        try:
            prepare(settings)
            supervisor.supervise()
        except KeyboardInterrupt:
            log.info("stopping")
        finally:
            supervisor.stop()


@retry(
    retry=retry_if_exception_type(Unavailable),
    wait=wait_exponential(multiplier=0.5, max=5),
    before_sleep=before_sleep_log(log, logging.WARNING),
)
def prepare(settings: Settings) -> None:
    """Creates or upgrades the tables. Waits until the database is available. Raises
    PermanentFailure."""
    create_tables(settings)


def create_tables(settings: Settings) -> None:
    """Creates or upgrades the tables. Raises PermanentFailure or Unavailable."""
    database = database_of(settings)
    database.create_tables()
    database.close()


class CannotStart(Exception):
    """A process dies each time it is started."""


class Child:
    """A process of this tool, which is restarted when it dies."""

    def __init__(self, name: str, target: Callable[..., None], *arguments: object) -> None:
        self.name = name
        self._target = target
        self._arguments = arguments
        self._process: BaseProcess | None = None
        # The value has no lock, because a killed process would never release the lock.
        self._started = _spawn.RawValue("b", 0)
        self._failed_starts = 0
        self._kill_at: float | None = None

    def keep(self) -> bool:
        """Starts the process unless it is running; returns whether it had died.

        Raises CannotStart.
        """
        if self._process is not None and self._process.is_alive():
            return False
        died = self._process is not None and self._kill_at is None
        if died and self._process is not None:
            self._count_death(self._process.exitcode)
        self._kill_at = None
        self._started.value = 0
        arguments = (partial(setattr, self._started, "value", 1), *self._arguments)
        self._process = _spawn.Process(target=self._target, args=arguments, name=self.name)
        self._process.start()
        return died

    def _count_death(self, exit_code: int | None) -> None:
        self._failed_starts = 0 if self._started.value else self._failed_starts + 1
        if self._failed_starts == STARTS:
            raise CannotStart(
                f"{self.name} died at {STARTS} starts in a row (exit code {exit_code}); "
                "its log is above"
            )
        log.warning("%s died (%s); restarting it", self.name, exit_code)

    def stop(self) -> bool:
        """Stops the process after its current job, or after 8 s. Returns at once; call this method
        until it returns True, which means that the process has ended.
        """
        if self._process is None or not self._process.is_alive():
            return True
        if self._kill_at is None:
            self._kill_at = time.monotonic() + STOP_SECONDS
            self._process.terminate()
        elif time.monotonic() > self._kill_at:
            self._process.kill()
        return False


class Supervisor:
    """The processes of one tool."""

    def __init__(self, settings: Settings, redis: Redis, supervised: metrics.Supervised) -> None:
        self._settings = settings
        self._redis = redis
        self._supervised = supervised
        self._leases = Leases(redis, _name(settings))
        self._background = Child("background process", processes.run_in_background, settings)
        self._workers: dict[int, Child] = {}
        self._mine: list[int] = []
        self._outage = False

    def supervise(self) -> None:
        """Runs a worker for each partition that this tool leases, until interrupted."""
        while True:
            try:
                self._mine = self._leases.renew(to_work_on(self._redis, self._settings.partitions))
                self._hand_over([part for part in self._workers if part not in self._mine])
                self._outage = False
            except RedisError as error:
                # The workers keep running; they wait for Redis too.
                if not self._outage:
                    log.warning("leases: redis: %s; waiting for it", error)
                self._outage = True
            self._keep(self._mine)
            time.sleep(ROUND)

    def _keep(self, parts: Collection[int]) -> None:
        self._supervised.partitions.set(len(parts))
        for part in parts:
            if part not in self._workers:
                log.info("partition %d: lease taken", part)
                name = f"worker {queue_name(part)}"
                self._workers[part] = Child(name, processes.work, self._settings, part)
        for child in (*(self._workers[part] for part in parts), self._background):
            if child.keep():
                self._supervised.restarts.inc()
                # Raises PermanentFailure if the process died because a newer program has upgraded
                # the tables.
                with suppress(Unavailable):
                    create_tables(self._settings)

    def _hand_over(self, parts: Collection[int]) -> None:
        """Stops the workers of these partitions, then releases the leases."""
        for part in parts:
            if self._workers[part].stop():
                del self._workers[part]
                self._leases.release(part)
                log.info("partition %d: lease released", part)

    def stop(self) -> None:
        """Stops all processes after their current jobs, or after 8 s."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        children = [*self._workers.values(), self._background]
        while children := [child for child in children if not child.stop()]:
            time.sleep(0.05)
        with suppress(RedisError):
            self._leases.release_all()


def _name(settings: Settings) -> str:
    """A name for this tool. If it has a metrics port, which no other program on the host can have,
    the tool has the same name after a restart; otherwise the name is random."""
    if settings.metrics_port:
        return f"{socket.gethostname()}:{settings.metrics_port}"
    return secrets.token_hex(8)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
