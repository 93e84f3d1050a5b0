"""The background process: acknowledgements, declarations, pending predictions, alarms, drift."""

import logging
import threading
from collections.abc import Callable, Mapping

from redis import Redis
from redis.exceptions import RedisError

from tool.acknowledge import Acknowledgements
from tool.alarms import Alarms
from tool.database import Database, DatabaseError, Outdated
from tool.database.drift import DriftTables
from tool.declarations import Publisher, Subscriber
from tool.drift import Drift
from tool.model_client import ModelClient
from tool.model_server import ModelUnavailable
from tool.pending import CatchUp
from tool.webhook import NotAccepted

log = logging.getLogger("tool")

ROUND = 1.0  # seconds

Tasks = Mapping[str, Callable[[], None]]


def tasks(redis: Redis, database: Database, client: ModelClient, webhook: bool = False) -> Tasks:
    """The tasks of the background process. Several tools may run them at the same time. webhook:
    whether to add the alarms to the outbox.
    """
    publisher = Publisher(redis, database, client)
    pending = CatchUp(database, client)
    return {
        "acknowledgement": Acknowledgements(redis, database).copy,
        "declaration": publisher.publish,
        "models in use": publisher.keep,
        "pending predictions": pending.fill_in,
        "count of pending predictions": pending.count,
        "alarms": Alarms(database, webhook).compute,
        "drift": Drift(DriftTables(database.session), Subscriber(redis, database)).update,
    }


def run(tasks: Tasks, stop: threading.Event, started: Callable[[], None]) -> None:
    """Runs rounds until `stop` is set: all tasks, then a pause of a second. Logs only the first
    failure of a task until it succeeds again. started: called after the tasks of each round. Raises
    Outdated if the tables are newer than this program.
    """
    failing: set[str] = set()
    while not stop.is_set():
        for name, task in tasks.items():
            try:
                task()
                failing.discard(name)
            except Outdated:
                raise
            except (DatabaseError, RedisError, ModelUnavailable, NotAccepted) as error:
                if name not in failing:
                    log.warning("%s: %s; retrying every second", name, error)
                failing.add(name)
        started()
        stop.wait(ROUND)
