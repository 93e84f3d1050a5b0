"""Starts one worker for each partition, and the attendant; starts anew what dies."""

import logging
import multiprocessing
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from pythonjsonlogger.json import JsonFormatter
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue
from rq.serializers import JSONSerializer
from tenacity import before_sleep_log, retry, retry_if_exception_type, wait_exponential

from tool import attendant, metrics, worker
from tool.data_handler import DataHandler
from tool.database import Database, Unavailable, connect
from tool.model_client import ModelClient
from tool.settings import Settings

log = logging.getLogger("tool")

_spawn = multiprocessing.get_context("spawn")


def redis_of(settings: Settings) -> Redis:
    password = _secret(settings.redis_password_file)
    return Redis.from_url(
        settings.redis_url,
        password=password or None,
        socket_timeout=8,  # longer than a worker waits for a job
        socket_connect_timeout=5,
        retry=Retry(NoBackoff(), 1),
    )


def database_of(settings: Settings) -> Database:
    return connect(settings.database_url, _secret(settings.database_password_file))


def client_of(settings: Settings, rest_max: float = 8.0) -> ModelClient:
    return ModelClient(
        settings.model_url, settings.model_timeout, settings.model_token_file, rest_max
    )


def _secret(file: str) -> str:
    return Path(file).read_text().strip() if file else ""


def set_up_logging(settings: Settings) -> None:
    """To stderr. As JSON, a line is an object with time, level, service, logger and message."""
    handler = logging.StreamHandler()
    if settings.log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{levelname}{name}{message}",
                style="{",
                rename_fields={"levelname": "level", "name": "logger"},
                static_fields={"service": "tool"},
                timestamp="time",
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    logging.getLogger("rq").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def work(settings: Settings, part: int) -> None:
    """A worker process's whole life."""
    worker.follow_parent()
    set_up_logging(settings)
    metrics.begin()
    database = database_of(settings)
    worker.work(part, redis_of(settings), database, DataHandler(database, client_of(settings)))


def attend(settings: Settings) -> None:
    """The attendant process's whole life."""
    worker.follow_parent()
    set_up_logging(settings)
    metrics.begin()
    # It holds up nobody, so it may try often; what it finds predicted, no worker has to.
    client = client_of(settings, rest_max=2.0)
    attendant.attend(redis_of(settings), database_of(settings), client)


@retry(
    retry=retry_if_exception_type((Unavailable, RedisError)),
    wait=wait_exponential(multiplier=0.5, max=5),
    before_sleep=before_sleep_log(log, logging.WARNING),
)
def prepare(settings: Settings) -> list[int]:
    """Makes the tables; gives the partitions to work on. Waits for the database and Redis."""
    prepare_tables(settings)
    return parts(settings)


def prepare_tables(settings: Settings) -> None:
    """Creates or upgrades the tables. Raises Refused or Unavailable."""
    database = database_of(settings)
    database.create_tables()
    database.close()


def parts(settings: Settings) -> list[int]:
    """The partitions, and those of an earlier, larger number that still have jobs."""
    found = set(range(settings.partitions))
    for queue in Queue.all(connection=redis_of(settings), serializer=JSONSerializer):
        prefix, _, part = queue.name.rpartition("-")
        if prefix == "tool" and part.isdecimal():
            found.add(int(part))
    return sorted(found)


def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT.

    Raises SettingError for a port that cannot be had, Refused for tables of another version.
    """
    with metrics.serving(
        settings.metrics_host, settings.metrics_port, settings.database_url
    ) as supervised:
        supervise(settings, supervised)


def supervise(settings: Settings, supervised: metrics.Supervised) -> None:
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    processes: dict[str, multiprocessing.process.BaseProcess] = {}
    try:
        partitions = prepare(settings)
        programs: dict[str, tuple[Callable[..., None], tuple[object, ...]]] = {
            f"worker tool-{part}": (work, (settings, part)) for part in partitions
        }
        programs["attendant"] = (attend, (settings,))
        while True:
            for name, (target, args) in programs.items():
                process = processes.get(name)
                if process is not None and process.is_alive():
                    continue
                if process is not None:
                    supervised.restarts.inc()
                    log.warning("%s died (%s); starting it anew", name, process.exitcode)
                processes[name] = _spawn.Process(target=target, args=args, name=name)
                processes[name].start()
            time.sleep(0.5)
    except KeyboardInterrupt:
        log.info("stopping")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join(8)
            if process.is_alive():
                process.kill()
