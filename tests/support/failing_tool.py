"""A tool that fails at chosen points. Tests start it instead of the real tool.

FAIL_POINTS has pairs of a point and the number of a message, such as "predicted=300 committed=400".
The first process that handles this message or a later one kills itself at the point. If the name of
the point ends in `-stop`, the process stops itself (SIGSTOP) instead. Before that, it writes its id
to a file in the folder FAIL_MARKS; the file has the name of the point. FAIL_PART, if set, limits
these failures to one partition. `Poisoned` describes the points `poisoned` and `deadly`.
"""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rq import Queue
from rq.job import Job

from tool import alarms, batch, data_handler, processes, webhook, worker
from tool.__main__ import main
from tool.database import Changes, Database
from tool.database.alarms import AlarmChanges, AlarmTables
from tool.jobs import Jobs, Step
from tool.result import Result
from tool.settings import Settings, client_of, database_of, redis_of
from wire.batches import RawMessage
from wire.keys import JobId
from wire.tables import AlarmRow


class Points:
    """Kills or stops one process at each point, once."""

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
        job_id = JobId.parse(job.id)
        points.reached("dequeued", job_id.last, job_id.part)
        super().execute_job(job, queue)


class FailingJobs(Jobs):
    def store(self, begin: Step, finish: Step, key: str) -> None:
        super().store(begin, finish, key)
        _, part, last = key.rsplit("-", 2)
        points.reached("acknowledged", int(last), part)


def failing(database: Database) -> Database:
    """The database, with points of failure around and inside its transaction."""
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


class FailingAlarms(AlarmTables):
    """The tables of the alarms, with points of failure around and inside their transaction."""

    def commit(self, changes: AlarmChanges) -> None:
        last = max(seq for _, seq in changes.moves) if changes.alarms else 0
        points.reached("alarms-computed", last, "")
        insert = self._session.insert

        def failing_insert(cursor: Any, table: str, rows: Any) -> None:
            insert(cursor, table, rows)
            points.reached("alarms-inserted", last, "")

        self._session.insert = failing_insert  # type: ignore[method-assign]
        super().commit(changes)
        self._session.insert = insert  # type: ignore[method-assign]
        points.reached("alarms-committed", last, "")

    def sent(self, alarm: AlarmRow) -> None:
        points.reached("alarm-accepted", alarm.seq, "")
        super().sent(alarm)
        points.reached("alarm-sent", alarm.seq, "")


class Poisoned(batch.BatchProcessor):
    """Raises an exception whenever it processes the message of the point `poisoned`, and kills the
    worker whenever it processes that of `deadly`."""

    def process(self, messages: Sequence[RawMessage], changes: Changes) -> Result:
        seqs = {raw.seq for raw in messages}
        if points.at.get("deadly") in seqs:
            os.kill(os.getpid(), signal.SIGKILL)
        if points.at.get("poisoned") in seqs:
            raise RuntimeError("a message that fails")
        return super().process(messages, changes)


def work(started: Callable[[], None], settings: Settings, part: int) -> None:
    processes.begin(settings)
    database = database_of(settings)
    client = client_of(settings)
    if points.at.keys() & {"poisoned", "deadly"}:
        vars(data_handler)["BatchProcessor"] = Poisoned
    else:
        failing(database)
        worker.PartitionWorker = Worker  # type: ignore[misc]
        vars(worker)["Jobs"] = FailingJobs
    handler = data_handler.DataHandler(database, client)
    worker.work(part, redis_of(settings), database, handler, started)


def run_in_background(started: Callable[[], None], settings: Settings) -> None:
    vars(alarms)["AlarmTables"] = FailingAlarms
    vars(webhook)["AlarmTables"] = FailingAlarms
    begin_background(started, settings)


points = Points()
begin_background = processes.run_in_background

if __name__ == "__main__":
    # The processes import these functions by the name of their module, which must not be __main__.
    from tests.support import failing_tool

    processes.work = failing_tool.work
    processes.run_in_background = failing_tool.run_in_background
    raise SystemExit(main())
