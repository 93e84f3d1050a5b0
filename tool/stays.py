"""The stays that a worker has in memory, and table `vitals`, which may be behind them.

A patient's next values replace the ones before, so most of what a batch would write to `vitals`
is soon written over. While further batches wait it is written every few seconds only. What it
lacks meanwhile is in `readings`: each row says how far it has come (`seq`), and each partition
up to where all rows have (`vitals_seq`). Whoever takes a stream up brings it up to date first.
"""

import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import lru_cache
from itertools import islice
from operator import itemgetter

from tool.database import Changes, Database
from tool.features import Stay, Vital
from tool.messages import ordinal
from wire.tables import ReadingRow, StayRow, VitalRow

log = logging.getLogger("tool")

# Stays kept in memory by each worker; about 2 kB each.
STAYS_IN_MEMORY = 10_000
# Seconds that table `vitals` may be behind while further batches wait.
VITALS_EVERY = 5.0

Part = tuple[str, int | None]  # stream, partition
StayKey = tuple[str, int, str]  # stream, pat_id, date_admission
Statistics = dict[str, tuple[Vital, int]]  # by parameter, and the message it has come to


class KnownStay:
    """A stay in memory, and what of it the tables do not have yet.

    changed: its row of `stays`. touched: parameters that have come further than their rows of
    `vitals`, which have come to message `seq` at least.
    """

    __slots__ = ("admitted", "changed", "discharge", "seq", "stay", "touched")

    def __init__(
        self, stay: Stay, admitted: int, discharge: str | None, seq: int, new: bool
    ) -> None:
        self.stay = stay
        self.admitted = admitted
        self.discharge = discharge
        self.seq = seq
        self.changed = new
        self.touched: set[str] = set()


class Stays:
    """The stays of one worker's partitions.

    What is in memory is ahead of the tables until `commit` has returned. When that fails, or
    when another worker was at the stream, `forget` it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._windows: dict[str, int] = {}
        self._known: OrderedDict[StayKey, KnownStay] = OrderedDict()
        # Streams of which `vitals` has all that is not in memory.
        self._whole: set[str] = set()
        self._unwritten: defaultdict[Part, dict[StayKey, KnownStay]] = defaultdict(dict)
        self._complete_at: dict[Part, float] = {}
        # Partitions that `vitals` is behind; and whether those of earlier workers are among them.
        self._behind: set[Part] = set()
        self._looked = False

    def keep(self, windows: dict[str, int]) -> None:
        """From now on, keep so many hours of each of these parameters' readings."""
        self._windows = windows
        for stream in list(self._whole):
            self.forget(stream)

    def forget(self, stream: str) -> None:
        """Lets go of the stream's stays, and of what was not written of them."""
        self._whole.discard(stream)
        for key in [key for key in self._known if key[0] == stream]:
            del self._known[key]
        for part in [part for part in self._unwritten if part[0] == stream]:
            del self._unwritten[part]

    def load(self, stream: str, keys: Iterable[tuple[int, str]]) -> dict[StayKey, KnownStay]:
        """The stays of these patients and admissions, from memory or from the database."""
        if stream not in self._whole:
            self._catch_up(stream)
        found: dict[StayKey, KnownStay] = {}
        missing: list[tuple[int, str]] = []
        for pat_id, admission in keys:
            key = (stream, pat_id, admission)
            known = self._known.get(key)
            if known is None:
                missing.append((pat_id, admission))
            else:
                self._known.move_to_end(key)
                found[key] = known
        for some in _chunks(missing):
            rows, statistics = self._stored(stream, some)
            for pat_id, admission in some:
                key = (stream, pat_id, admission)
                stored = statistics.get((pat_id, admission), {})
                self._known[key] = found[key] = self._read(
                    key, rows.get((pat_id, admission)), stored
                )
        return found

    def commit(
        self, changes: Changes, loaded: Mapping[StayKey, KnownStay], more: bool = True
    ) -> None:
        """Commits the changes, with what has become of the stays they were loaded for.

        `more`: further batches wait, so `vitals` may. Raises as `Database.commit` does.
        """
        part = (changes.stream, changes.part)
        unwritten = self._unwritten[part]
        for key, known in loaded.items():
            if known.changed:
                changes.stays.append(StayRow(*key, known.stay.age, known.discharge, None, None))
            if known.touched:
                unwritten[key] = known
        changes.stays.sort(key=itemgetter(0, 1, 2))  # locks are taken in one order by all
        leaving = list(islice(self._known, max(0, len(self._known) - STAYS_IN_MEMORY)))
        since = time.monotonic() - self._complete_at.get(part, 0.0)
        changes.complete = changes.stream in self._whole and (not more or since > VITALS_EVERY)
        written = list(unwritten) if changes.complete else [k for k in leaving if k in unwritten]
        for key in sorted(written):
            known = unwritten[key]
            seq = max(known.seq, changes.last)
            for parameter in sorted(known.touched):
                vital = known.stay.vitals[parameter]
                changes.vitals.append(_row(key, parameter, vital, known.admitted, seq))

        self._database.commit(changes)

        for known in loaded.values():
            known.changed = False
        for key in written:
            known = unwritten.pop(key)
            known.seq = max(known.seq, changes.last)
            known.touched.clear()
        for key in leaving:
            left = self._known.pop(key, None)
            if left is not None and left.touched:
                self.forget(key[0])  # of another partition: this commit was not to write it
        if changes.complete:
            self._complete_at[part] = time.monotonic()
            self._behind.discard(part)
        else:
            self._behind.add(part)

    def complete(self, positions: Mapping[Part, int], now: str) -> None:
        """Brings `vitals` up to the readings. Raises as `Database.commit` does."""
        if not self._looked:
            # What a killed worker left, which no batch may ever come after.
            self._behind.update((row.stream, row.part) for row in self._database.parts_behind())
            self._looked = True
        for stream, part in sorted(self._behind, key=str):
            position = positions.get((stream, part))
            try:
                if stream in self._whole and position is not None:
                    self.commit(Changes(stream, part, position, position, now), {}, more=False)
                else:
                    self._catch_up(stream)
            except BaseException:
                self.forget(stream)
                raise

    def _catch_up(self, stream: str) -> None:
        """Brings `vitals` up to the readings from what is in the tables alone."""
        positions, readings = self._database.behind(stream)
        later: defaultdict[tuple[int, str], list[ReadingRow]] = defaultdict(list)
        for reading in readings:
            later[reading.pat_id, reading.date_admission].append(reading)
        rows: list[VitalRow] = []
        for some in _chunks(sorted(later)):
            _, stored = self._stored(stream, some)
            for key in some:
                admitted = ordinal(key[1])
                statistics, changed = stored.get(key, {}), set()
                for reading in later[key]:
                    vital, reached = statistics.get(reading.parameter) or (Vital(), 0)
                    if reading.seq > reached:
                        vital.add(_hours(reading.measured_at, admitted), reading.value)
                        statistics[reading.parameter] = vital, reading.seq
                        changed.add(reading.parameter)
                for parameter in sorted(changed):
                    vital, seq = statistics[parameter]
                    rows.append(_row((stream, *key), parameter, vital, admitted, seq))
        if positions:
            self._database.catch_up(stream, positions, rows)
            log.info("stream %s: brought %d vitals up to the readings", stream, len(rows))
        self._whole.add(stream)
        self._behind = {part for part in self._behind if part[0] != stream}

    def _stored(
        self, stream: str, keys: list[tuple[int, str]]
    ) -> tuple[dict[tuple[int, str], StayRow], dict[tuple[int, str], Statistics]]:
        """By patient and admission: the row of `stays`, and what is in `vitals`."""
        stays, vitals = self._database.stays(stream, sorted({pat_id for pat_id, _ in keys}))
        statistics: defaultdict[tuple[int, str], Statistics] = defaultdict(dict)
        for row in vitals:
            vital = _vital(row, ordinal(row.date_admission))
            statistics[row.pat_id, row.date_admission][row.parameter] = vital, row.seq
        return {(row.pat_id, row.date_admission): row for row in stays}, statistics

    def _read(self, key: StayKey, row: StayRow | None, statistics: Statistics) -> KnownStay:
        stream, pat_id, admission = key
        admitted = ordinal(admission)
        age, discharge = (row.age, row.date_discharge) if row else (None, None)
        vitals = {parameter: vital for parameter, (vital, _) in statistics.items()}
        seq = max((seq for _, seq in statistics.values()), default=0)
        stay = Stay(self._windows, age=age, vitals=vitals)
        if self._windows and vitals:
            since = _moment(admitted, stay.clock - max(self._windows.values()))
            recent = self._database.recent(stream, pat_id, admission, since)
            for parameter in self._windows:
                stay.recall(
                    parameter,
                    [
                        (_hours(reading.measured_at, admitted), reading.value)
                        for reading in recent
                        if reading.parameter == parameter
                    ],
                )
        return KnownStay(stay, admitted, discharge, seq, new=row is None)


def _chunks(keys: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Stays by so many as one query may ask for."""
    for start in range(0, len(keys), 500):
        yield keys[start : start + 500]


# The table has times as dates, a stay as hours since the day of its admission began.


@lru_cache(maxsize=100_000)
def _moment(admitted: int, hours: float) -> str:
    days, hour = divmod(int(hours), 24)
    return f"{date.fromordinal(admitted + days).isoformat()} {hour:02}:00:00"


def _hours(moment: str, admitted: int) -> float:
    return (ordinal(moment[:10]) - admitted) * 24.0 + int(moment[11:13])


def _vital(row: VitalRow, admitted: int) -> Vital:
    return Vital(
        row.n,
        row.mean,
        row.m2,
        row.minimum,
        row.maximum,
        row.first_value,
        _hours(row.first_at, admitted),
        row.last_value,
        _hours(row.last_at, admitted),
        row.hours_mean,
        row.hours_m2,
        row.covariance,
        row.mean_low,
    )


def _row(key: StayKey, parameter: str, vital: Vital, admitted: int, seq: int) -> VitalRow:
    return VitalRow(
        *key,
        parameter,
        vital.n,
        vital.mean,
        vital.m2,
        vital.minimum,
        vital.maximum,
        vital.first_value,
        _moment(admitted, vital.first_at),
        vital.last_value,
        _moment(admitted, vital.last_at),
        vital.hours_mean,
        vital.hours_m2,
        vital.covariance,
        vital.mean_low,
        seq,
    )
