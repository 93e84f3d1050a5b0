"""The tool, failing once at a chosen point. Started by tests in the real one's place.

FAIL_POINT names the point, FAIL_AT the message whose batch it strikes, FAIL_PART the partition
(empty: any), FAIL_MARK a file that is made when it has happened, with the process's id.
"""

import os
import signal
from pathlib import Path
from typing import Any

from rq import Queue
from rq.job import Job

import tool.run
from tool import data_handler, worker
from tool.__main__ import main
from tool.db_connector import Changes, Database
from tool.settings import Settings


class Point:
    """Strikes once, in one process."""

    def __init__(self) -> None:
        self.name = os.environ["FAIL_POINT"]
        self._at = int(os.environ["FAIL_AT"])
        self._part = os.environ.get("FAIL_PART", "")
        self._mark = Path(os.environ["FAIL_MARK"])

    def reached(self, name: str, last: int, part: object) -> None:
        if (name, last >= self._at) != (self.name.removesuffix("-stop"), True):
            return
        if self._part not in ("", str(part)):
            return
        try:
            with self._mark.open("x") as mark:
                mark.write(str(os.getpid()))
        except FileExistsError:
            return
        number = signal.SIGSTOP if self.name.endswith("-stop") else signal.SIGKILL
        os.kill(os.getpid(), number)


class Worker(worker.PartitionWorker):
    def execute_job(self, job: Job, queue: Queue) -> None:
        _, part, last, _ = job.id.rsplit("-", 3)
        point.reached("dequeued", int(last), part)
        super().execute_job(job, queue)  # type: ignore[no-untyped-call]

    def _say(self, batch: data_handler.Batch, *rest: Any) -> None:
        super()._say(batch, *rest)
        point.reached("acknowledged", batch.messages[-1][0], batch.part)


def failing(database: Database) -> Database:
    """The same database with fail points around and inside its transaction."""
    commit, insert = database.commit, database._insert
    current: list[Changes] = []

    def failing_commit(changes: Changes) -> None:
        current[:] = [changes]
        point.reached("predicted", changes.last, changes.part)
        commit(changes)
        point.reached("committed", changes.last, changes.part)

    def failing_insert(cursor: Any, table: str, *rest: Any, **named: Any) -> None:
        insert(cursor, table, *rest, **named)
        if table == "readings" and current:
            point.reached("inserted", current[0].last, current[0].part)

    database.commit = failing_commit  # type: ignore[method-assign]
    database._insert = failing_insert  # type: ignore[method-assign]
    return database


class Poisoned(data_handler.DataHandler):
    """Cannot process message FAIL_AT, or dies of it."""

    def _walk(self, decoded: Any, *rest: Any) -> Any:
        if any(seq == int(os.environ["FAIL_AT"]) for seq, _ in decoded):
            if os.environ["FAIL_POINT"] == "deadly":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("a message like no other")
        return super()._walk(decoded, *rest)


def work(settings: Settings, part: int) -> None:
    worker.follow_parent()
    tool.run.set_up_logging(settings)
    database = tool.run.database_of(settings)
    client = tool.run.client_of(settings)
    handler = data_handler.DataHandler(database, client)
    if os.environ["FAIL_POINT"] in ("poisoned", "deadly"):
        handler = Poisoned(database, client)
    else:
        failing(database)
        worker.PartitionWorker = Worker  # type: ignore[misc]
    worker.work(part, tool.run.redis_of(settings), database, handler)


point = Point()

if __name__ == "__main__":
    # From the module, not from __main__: it is imported by name in the worker's process.
    from tests.failing_tool import work as importable

    tool.run.work = importable
    raise SystemExit(main())
