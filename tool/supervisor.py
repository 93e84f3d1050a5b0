"""Starts a worker per partition and the background process, and restarts those that die."""

import logging
import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from types import FrameType

from redis.exceptions import RedisError
from rq import Queue
from rq.serializers import JSONSerializer
from tenacity import before_sleep_log, retry, retry_if_exception_type, wait_exponential

from tool import metrics, processes
from tool.database import Unavailable
from tool.settings import Settings, database_of, redis_of
from wire.keys import queue_name

log = logging.getLogger("tool")

# A new interpreter, without this process's connections and signal handlers.
_spawn = multiprocessing.get_context("spawn")


def run(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT.

    Raises SettingError for a port that is taken, Refused for tables that it cannot use.
    """
    with metrics.serving(
        settings.metrics_host, settings.metrics_port, settings.database_url
    ) as supervised:
        signal.signal(signal.SIGTERM, _interrupt)
        supervisor = Supervisor(settings, supervised)
        try:
            supervisor.supervise(prepare(settings))
        except KeyboardInterrupt:
            log.info("stopping")
        finally:
            supervisor.stop()


@retry(
    retry=retry_if_exception_type((Unavailable, RedisError)),
    wait=wait_exponential(multiplier=0.5, max=5),
    before_sleep=before_sleep_log(log, logging.WARNING),
)
def prepare(settings: Settings) -> list[int]:
    """Creates the tables and returns the partitions. Waits for the database and Redis."""
    create_tables(settings)
    return partitions(settings)


def create_tables(settings: Settings) -> None:
    """Creates or upgrades the tables. Raises Refused or Unavailable."""
    database = database_of(settings)
    database.create_tables()
    database.close()


def partitions(settings: Settings) -> list[int]:
    """The partitions, and those of an earlier, larger number that still have jobs."""
    queues = Queue.all(connection=redis_of(settings), serializer=JSONSerializer)
    names = {queue.name for queue in queues}
    found = set(range(settings.partitions))
    for name in names:
        part = name.rpartition("-")[2]
        if part.isdecimal() and name == queue_name(int(part)):
            found.add(int(part))
    return sorted(found)


class Supervisor:
    """The processes of one tool."""

    def __init__(self, settings: Settings, supervised: metrics.Supervised) -> None:
        self._settings = settings
        self._supervised = supervised
        self._processes: dict[str, BaseProcess] = {}

    def supervise(self, partitions: list[int]) -> None:
        """Starts all processes, and restarts each that dies, until interrupted."""
        while True:
            for part in partitions:
                self._keep(f"worker {queue_name(part)}", processes.work, part)
            self._keep("background process", processes.run_in_background)
            time.sleep(0.5)

    def _keep(self, name: str, target: Callable[..., None], *arguments: object) -> None:
        process = self._processes.get(name)
        if process is not None and process.is_alive():
            return
        if process is not None:
            self._supervised.restarts.inc()
            log.warning("%s died (%s); restarting it", name, process.exitcode)
        process = _spawn.Process(target=target, args=(self._settings, *arguments), name=name)
        self._processes[name] = process
        process.start()

    def stop(self) -> None:
        """Ends all processes, after their jobs under way if these take less than 8 s."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join(8)
            if process.is_alive():
                process.kill()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
