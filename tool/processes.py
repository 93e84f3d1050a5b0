"""The processes that the supervisor starts: workers, and the background process."""

import gc
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable

from tool import background, metrics, worker
from tool.data_handler import DataHandler
from tool.probes import Probes
from tool.settings import Settings, client_of, database_of, redis_of
from tool.webhook import Webhook
from wire import logs

# A batch makes thousands of objects that live until its commit. With Python's default of 700, the
# garbage collector would look at them many times, which takes longer than decoding the batch.
NEW_OBJECTS = 20_000


def work(started: Callable[[], None], settings: Settings, part: int) -> None:
    """Runs the worker of a partition. started: called when the worker is ready for jobs."""
    begin(settings)
    database = database_of(settings)
    handler = DataHandler(database, client_of(settings))
    gc.freeze()  # the modules stay in memory to the end
    gc.set_threshold(NEW_OBJECTS)
    worker.work(part, redis_of(settings), database, handler, started)


def run_in_background(started: Callable[[], None], settings: Settings) -> None:
    """Runs the background process until SIGTERM or SIGINT. started: called after each round."""
    begin(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # The pause after a failure may be short, because retries here do not delay batches.
    client = client_of(settings, pause_max=2.0)
    webhook = bool(settings.alarm_webhook)
    if webhook:
        # The webhook has its own thread, because a receiver that does not answer must not delay the
        # other tasks.
        _start(send_alarms, settings, stop)
    # The probes have their own thread, because the other tasks wait while the database does not
    # answer.
    probes = Probes(redis_of(settings), database_of(settings).session, settings.model_token_file)
    watching = {"probes": probes.measure}
    _start(background.run, watching, stop, lambda: None)
    tasks = background.tasks(redis_of(settings), database_of(settings), client, webhook)
    background.run(tasks, stop, started)


def _start(work: Callable[..., None], *arguments: object) -> None:
    """Runs a function in a thread. If it fails, ends this process, which the supervisor restarts:
    without the thread, its work would stop unnoticed."""

    def run() -> None:
        try:
            work(*arguments)
        except Exception:
            logging.getLogger("tool").exception("a thread of the background process failed")
            os._exit(1)

    threading.Thread(target=run, daemon=True).start()


def send_alarms(settings: Settings, stop: threading.Event) -> None:
    """Sends alarms to the webhook until `stop` is set."""
    webhook = Webhook(
        database_of(settings), settings.alarm_webhook, settings.alarm_webhook_token_file
    )
    background.run({"webhook": webhook.send}, stop, lambda: None)


def begin(settings: Settings) -> None:
    """Sets up a process that the supervisor has started."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_up_logging(settings)
    metrics.begin()


def set_up_logging(settings: Settings) -> None:
    logs.set_up("tool", settings.log_level, settings.log_format)
    logging.getLogger("rq").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def _end_with_parent() -> None:
    """Ends this process when the supervisor ends, even if `kill -9` ended it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
