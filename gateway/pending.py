"""Table `pending` of the log: the readings to move after a merge, or to withdraw after a
cancelled admission.

A patient may have hundreds of thousands of readings. Each transaction moves only some of them, so
that other senders are served in between. If a message concerns a reading that is not moved
yet, that reading is moved first, so the result does not depend on the progress of the task. Here,
moving includes withdrawing.
"""

import msgspec

from gateway.beds import Beds
from gateway.facts import Observed, Value
from gateway.log import Log
from gateway.readings import Readings
from gateway.refs import Row
from gateway.stays import Stay
from gateway.times import Moment
from wire.messages import Withdrawal

# Number of readings that one step moves. The transaction that stores a message also executes the
# first step of its task, unless an earlier task is pending.
AT_ONCE = 1_000
# Higher than the number of any event.
ALL = 2**62


class Task(msgspec.Struct, frozen=True, array_like=True):
    """A row of `pending`: a task about the readings of a patient up to event `upto`.

    admission: the stay; None for all stays. survivor: the pat_id that gets the readings;
    None if they are withdrawn. received: the message that caused the task.
    """

    id: int
    pat_id: int
    admission: str | None
    upto: int
    survivor: int | None
    received: int

    def covers(self, row: Row) -> bool:
        own = row.pat_id == self.pat_id and self.admission in (None, row.admission)
        return own and row.seq <= self.upto


class Pending:
    """The tasks, oldest first. Each starts when the task before it is complete."""

    def __init__(self, log: Log, beds: Beds, readings: Readings) -> None:
        self._log = log
        self._beds = beds
        self._readings = readings
        self._refs = readings.refs
        self._tasks: list[Task] | None = None
        self._after = 0  # the last row of `refs` that the first task has moved

    @property
    def tasks(self) -> list[Task]:
        if self._tasks is None:
            rows = self._log.connection.execute("SELECT * FROM pending ORDER BY id")
            self._tasks = [Task(*row) for row in rows]
        return self._tasks

    def forget(self) -> None:
        """Forgets the tasks after a rollback, so that their next use reloads them."""
        self._tasks = None
        self._after = 0

    def merge(self, prior: int, survivor: int) -> None:
        """Starts to move all readings of `prior` to `survivor`."""
        self._add(prior, None, ALL, survivor)

    def cancel(self, stay: Stay) -> None:
        """Starts to withdraw all readings of a stay."""
        while any(task.survivor == stay.pat_id for task in self.tasks):
            self.step()  # the moved readings may belong to the stay
        self._add(stay.pat_id, stay.admission, self._log.last, None)

    def step(self) -> None:
        """Moves the next AT_ONCE readings, or a few more."""
        left = AT_ONCE
        while self.tasks and left > 0:
            task = self.tasks[0]
            rows = self._refs.of_patient(task.pat_id, task.admission, self._after, task.upto)
            for row in rows:
                self._move(task, row)
                self._after = row.seq
                left -= len(row.entries)
                if left <= 0:
                    break
            if not rows:
                self.drop_first()

    def drop_first(self) -> Task:
        """Removes and returns the first task."""
        task = self.tasks.pop(0)
        self._after = 0
        self._log.connection.execute("DELETE FROM pending WHERE id = ?", (task.id,))
        return task

    def settle(self, source: str, at: Moment | None = None) -> None:
        """Moves the remaining readings of a source. at: only those of this time."""
        while self.tasks:
            rows = self._refs.rows(source, at)
            found = [(task, row) for row in rows if (task := self._of(row)) is not None]
            if not found:
                return
            for task, row in found:
                self._move(task, row)

    def settle_for(self, fact: Observed) -> None:
        """Moves the readings that an observation could repeat, correct or withdraw."""
        self.settle(fact.source, fact.at)
        for value in fact.values:
            if value.corrects or value.value is None:
                for ref in self._refs.latest(fact.source, value.name):
                    self.settle(fact.source, ref.at)

    def _add(self, pat_id: int, admission: str | None, upto: int, survivor: int | None) -> None:
        before = self.tasks[-1:]
        task = Task(
            *(before[0].id + 1 if before else 1, pat_id, admission, upto, survivor),
            self._log.current,
        )
        self._log.connection.execute(
            "INSERT INTO pending VALUES (?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(task)
        )
        self.tasks.append(task)
        if not before:
            self.step()

    def _of(self, row: Row) -> Task | None:
        return next((task for task in self.tasks if task.covers(row)), None)

    def _move(self, task: Task, row: Row) -> None:
        self._refs.remove(row)
        self._log.send(*(Withdrawal(row.pat_id, row.admission, entry.seq) for entry in row.entries))
        if task.survivor is None:
            return
        stays = self._beds.stays
        own = stays.at(task.survivor, row.at) or stays.get(task.survivor, row.admission)
        if own is None:
            own = self._beds.open(task.survivor, row.at, None)
        values = [Value(e.name, e.parameter, e.value, corrects=False) for e in row.entries]
        self._readings.add(own, row.source, row.at, values)
