"""The tool, failing at chosen points, once at each. Started by tests in the real one's place.

FAIL_POINTS names them, each with the message whose batch it strikes: "predicted=300 committed=400".
FAIL_PART is the partition (empty: any), FAIL_MARKS a folder where a file NAME is made when it has
happened, with the process's id in it.
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
from tool.database import Changes, Database
from tool.settings import Settings


class Points:
    """Each strikes once, in one process."""

    def __init__(self) -> None:
        pairs = (point.split("=") for point in os.environ["FAIL_POINTS"].split())
        self.at = {name: int(seq) for name, seq in pairs}
        self._part = os.environ.get("FAIL_PART", "")
        self._marks = Path(os.environ["FAIL_MARKS"])

    def reached(self, name: str, last: int, part: object) -> None:
        if self._part not in ("", str(part)):
            return
        self._strike(name, signal.SIGKILL, last)
        self._strike(f"{name}-stop", signal.SIGSTOP, last)

    def _strike(self, name: str, number: signal.Signals, last: int) -> None:
        if name not in self.at or last < self.at[name]:
            return
        try:
            with (self._marks / name).open("x") as mark:
                mark.write(str(os.getpid()))
        except FileExistsError:
            return
        os.kill(os.getpid(), number)


class Worker(worker.PartitionWorker):
    def execute_job(self, job: Job, queue: Queue) -> None:
        _, part, last, _ = job.id.rsplit("-", 3)
        points.reached("dequeued", int(last), part)
        super().execute_job(job, queue)  # type: ignore[no-untyped-call]

    def _say(self, batch: data_handler.Batch, *rest: Any) -> None:
        super()._say(batch, *rest)
        points.reached("acknowledged", batch.messages[-1][0], batch.part)


def failing(database: Database) -> Database:
    """The same database with fail points around and inside its transaction."""
    commit, insert = database.commit, database.session.insert
    current: list[Changes] = []

    def failing_commit(changes: Changes) -> None:
        current[:] = [changes]
        points.reached("predicted", changes.last, changes.part)
        commit(changes)
        points.reached("committed", changes.last, changes.part)

    def failing_insert(cursor: Any, table: str, rows: Any) -> None:
        insert(cursor, table, rows)
        if table == "readings" and current:
            points.reached("inserted", current[0].last, current[0].part)

    database.commit = failing_commit  # type: ignore[method-assign]
    database.session.insert = failing_insert  # type: ignore[method-assign]
    return database


class Poisoned(data_handler.DataHandler):
    """Cannot process the message, or dies of it."""

    def _walk(self, decoded: Any, *rest: Any) -> Any:
        seqs = {seq for seq, _ in decoded}
        if points.at.get("deadly") in seqs:
            os.kill(os.getpid(), signal.SIGKILL)
        if points.at.get("poisoned") in seqs:
            raise RuntimeError("a message like no other")
        return super()._walk(decoded, *rest)


def work(settings: Settings, part: int) -> None:
    worker.follow_parent()
    tool.run.set_up_logging(settings)
    database = tool.run.database_of(settings)
    client = tool.run.client_of(settings)
    handler = data_handler.DataHandler(database, client)
    if points.at.keys() & {"poisoned", "deadly"}:
        handler = Poisoned(database, client)
    else:
        failing(database)
        worker.PartitionWorker = Worker  # type: ignore[misc]
    worker.work(part, tool.run.redis_of(settings), database, handler)


points = Points()

if __name__ == "__main__":
    # From the module, not from __main__: it is imported by name in the worker's process.
    from tests.support.failing_tool import work as importable

    tool.run.work = importable
    raise SystemExit(main())
