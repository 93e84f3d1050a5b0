"""Keeps a stay in a worker's memory, and converts it from and to rows."""

from collections import defaultdict
from collections.abc import Iterable

from tool.database import Changes, Database, VitalKey
from tool.features import Stay
from tool.statistics import Statistics
from tool.times import hours_of, text_of
from wire.messages import Admission, ordinal
from wire.tables import ReadingRow, StayRow, VitalRow

StayKey = tuple[str, int, str]  # stream, pat_id, date_admission


class KnownStay:
    """A stay in memory, and its changes that are not stored yet.

    changed: its row of `stays` must be written. touched: parameters whose rows of `vitals` must be
    written. seq: all rows of `vitals` include the messages up to this one. withdrawn: parameters
    whose statistics still include a withdrawn reading.
    """

    __slots__ = (
        *("admitted", "changed", "discharge", "identifier", "key", "place", "seq", "stay"),
        *("touched", "withdrawn"),
    )

    def __init__(self, key: StayKey, stay: Stay, row: StayRow | None, seq: int) -> None:
        self.key = key
        self.admitted = ordinal(key[2])
        self.stay = stay
        self.seq = seq
        self.discharge = row.date_discharge if row else None
        self.identifier = row.identifier if row else None
        self.place = row.place if row else None
        self.changed = row is None
        self.touched: set[str] = set()
        self.withdrawn: set[str] = set()

    def update(self, age: float | None, discharge: str | None) -> None:
        """Updates age and discharge from a message; None leaves a value unchanged."""
        if age is not None and age != self.stay.age:
            self.stay.age = age
            self.changed = True
        if discharge is not None and discharge != self.discharge:
            self.discharge = discharge
            self.changed = True

    def admit(self, message: Admission) -> None:
        """Opens the stay, or reopens it after a discharge."""
        before = self.row()
        self.discharge = None
        self.update(message.age, None)
        self.place = message.place or self.place
        self.identifier = message.identifier or self.identifier
        self.changed = self.changed or self.row() != before

    def row(self) -> StayRow:
        """The row of `stays`."""
        return StayRow(*self.key, self.stay.age, self.discharge, self.identifier, self.place)

    def write_vitals(self, changes: Changes) -> None:
        """Adds the changed rows of `vitals` to `changes`."""
        seq = max(self.seq, changes.last)
        for parameter in sorted(self.touched):
            statistics = self.stay.statistics.get(parameter)
            if statistics is None:
                changes.emptied.append(VitalKey(*self.key, parameter))
            else:
                row = vital_row(self.key, parameter, statistics, self.admitted, seq)
                changes.vitals.append(row)

    def fold_again(self, database: Database, changes: Changes) -> None:
        """Recomputes the statistics of parameters with withdrawals, and all windows, from the
        readings.

        A reading cannot be subtracted from the statistics. Uses the readings in the table and in
        `changes`.
        """
        removed = {row.of_seq for row in changes.withdrawn}
        new = [row for row in changes.readings if _stay_of(row) == self.key]

        def with_new(stored: Iterable[ReadingRow], parameter: str) -> list[tuple[float, float]]:
            readings = [row for row in stored if row.seq not in removed]
            readings += [row for row in new if row.parameter == parameter]
            return [(hours_of(row.measured_at, self.admitted), row.value) for row in readings]

        for parameter in self.withdrawn:
            statistics = Statistics()
            for at, value in with_new(database.readings_of(*self.key, parameter), parameter):
                statistics.add(at, value)
            if statistics.n:
                self.stay.statistics[parameter] = statistics
            else:
                self.stay.statistics.pop(parameter, None)
        self.withdrawn.clear()
        # The clock may move back, so readings may enter the windows again.
        self.stay.reset_clock()
        recent = self.recent(database)
        for parameter in self.stay.recent:
            self.stay.recall(parameter, with_new(recent[parameter], parameter))

    def recent(self, database: Database) -> defaultdict[str, list[ReadingRow]]:
        """The stored readings that a window may include, by parameter."""
        found: defaultdict[str, list[ReadingRow]] = defaultdict(list)
        if self.stay.recent and self.stay.statistics:
            widest = max(recent.hours for recent in self.stay.recent.values())
            since = text_of(self.admitted, self.stay.clock - widest)
            for row in database.recent(*self.key, since):
                found[row.parameter].append(row)
        return found


def read_stay(
    database: Database,
    key: StayKey,
    row: StayRow | None,
    vitals: Iterable[VitalRow],
    windows: dict[str, int],
) -> KnownStay:
    """Restores a stay from its rows, and its windows from the stored readings."""
    rows = list(vitals)
    stay = Stay(
        windows,
        age=row.age if row else None,
        statistics={vital.parameter: statistics_of(vital) for vital in rows},
    )
    known = KnownStay(key, stay, row, max((vital.seq for vital in rows), default=0))
    recent = known.recent(database)
    for parameter in windows:
        stay.recall(
            parameter,
            [(hours_of(row.measured_at, known.admitted), row.value) for row in recent[parameter]],
        )
    return known


def statistics_of(row: VitalRow) -> Statistics:
    """Converts a row of `vitals` to statistics."""
    admitted = ordinal(row.date_admission)
    return Statistics(
        row.n,
        row.mean,
        row.m2,
        row.minimum,
        row.maximum,
        row.first_value,
        hours_of(row.first_at, admitted),
        row.last_value,
        hours_of(row.last_at, admitted),
        row.hours_mean,
        row.hours_m2,
        row.covariance,
        row.mean_low,
    )


def vital_row(
    key: StayKey, parameter: str, statistics: Statistics, admitted: int, seq: int
) -> VitalRow:
    """Converts statistics to a row of `vitals` that includes the messages up to `seq`."""
    return VitalRow(
        *key,
        parameter,
        statistics.n,
        statistics.mean,
        statistics.m2,
        statistics.minimum,
        statistics.maximum,
        statistics.first_value,
        text_of(admitted, statistics.first_at),
        statistics.last_value,
        text_of(admitted, statistics.last_at),
        statistics.hours_mean,
        statistics.hours_m2,
        statistics.covariance,
        statistics.mean_low,
        seq,
    )


def _stay_of(row: ReadingRow) -> StayKey:
    return row.stream, row.pat_id, row.date_admission
