"""The stays that a worker has in memory.

A patient's next readings change the same rows of `vitals` again. Therefore these rows are only
written every few seconds while further batches wait, and more often in a small ward; see
`tool.vitals`.
"""

import math
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice
from operator import attrgetter

from tool.database import Changes, Database
from tool.known_stay import KnownStay, StayKey, read_stay
from tool.vitals import PatientStay, catch_up, chunks, read_rows

# Maximum number of stays in each worker's memory, at about 2 kB each.
STAYS_IN_MEMORY = 10_000
# While more batches are waiting, a partition's rows of `vitals` are written every VITALS_SOON to
# VITALS_EVERY seconds, such that at most STAYS_PER_SECOND stays are written per second.
VITALS_SOON, VITALS_EVERY = 1.0, 5.0
STAYS_PER_SECOND = 50

Part = tuple[str, int | None]  # stream, partition


class Stays:
    """The stays of one worker's partitions.

    Memory is ahead of the tables until `commit` returns. Call `forget` after a failed commit, or
    after another worker has written to the stream.

    backlog: more batches are waiting, so `vitals` may be written later.
    """

    def __init__(self, database: Database) -> None:
        self.backlog = False
        self._database = database
        self._windows: dict[str, int] = {}
        self._known: OrderedDict[StayKey, KnownStay] = OrderedDict()
        # Streams whose `vitals` include all readings that are not in memory.
        self._complete: set[str] = set()
        self._unwritten: defaultdict[Part, dict[StayKey, KnownStay]] = defaultdict(dict)
        self._complete_at: dict[Part, float] = {}
        # Partitions whose `vitals` are behind. `_looked`: whether those that earlier workers left
        # behind have been added.
        self._behind: set[Part] = set()
        self._looked = False

    def keep(self, windows: dict[str, int]) -> None:
        """Sets how many hours of readings to keep per parameter, and drops all stays in memory."""
        self._windows = windows
        for stream in list(self._complete):
            self.forget(stream)

    def forget(self, stream: str) -> None:
        """Drops the stream's stays, with their unwritten rows."""
        self._complete.discard(stream)
        for key in [key for key in self._known if key[0] == stream]:
            del self._known[key]
        for part in [part for part in self._unwritten if part[0] == stream]:
            del self._unwritten[part]

    def load(self, stream: str, keys: Iterable[PatientStay]) -> dict[StayKey, KnownStay]:
        """The stays with these keys, from memory or from the database; new ones if they are in
        neither."""
        if stream not in self._complete:
            self._catch_up(stream)
        found: dict[StayKey, KnownStay] = {}
        missing: list[PatientStay] = []
        for pat_id, admission in keys:
            key = (stream, pat_id, admission)
            known = self._known.get(key)
            if known is None:
                missing.append((pat_id, admission))
            else:
                self._known.move_to_end(key)
                found[key] = known
        for some in chunks(missing):
            rows, vitals = read_rows(self._database, stream, some)
            for stay in some:
                key = (stream, *stay)
                self._known[key] = found[key] = read_stay(
                    self._database, key, rows.get(stay), vitals[stay], self._windows
                )
        return found

    def fold_again(self, known: KnownStay, changes: Changes) -> None:
        """Recomputes the stay's statistics and windows, without the withdrawn readings."""
        known.fold_again(self._database, changes)

    def commit(self, changes: Changes, loaded: Mapping[StayKey, KnownStay]) -> None:
        """Commits the changes and the loaded stays. With a backlog, writes most rows of `vitals`
        only every few seconds.

        Raises the errors of `Database.commit`.
        """
        part = (changes.stream, changes.part)
        stays = len(self._unwritten[part].keys() | loaded.keys())
        wait = min(VITALS_EVERY, max(VITALS_SOON, stays / STAYS_PER_SECOND))
        due = time.monotonic() - self._complete_at.get(part, -math.inf) > wait
        changes.complete = changes.stream in self._complete and (due or not self.backlog)
        self._commit(changes, loaded)

    def complete(self, positions: Mapping[Part, int], now: str) -> None:
        """Brings `vitals` up to date with the readings. Raises the errors of `Database.commit`."""
        self.backlog = False
        if not self._looked:
            # A killed worker may have left partitions that are behind and get no further batches.
            self._behind.update((row.stream, row.part) for row in self._database.parts_behind())
            self._looked = True
        for stream, part in sorted(self._behind, key=str):
            position = positions.get((stream, part))
            try:
                if stream in self._complete and position is not None:
                    self.commit(Changes(stream, part, position, position, now), {})
                else:
                    self._catch_up(stream)
            except BaseException:
                self.forget(stream)
                raise

    def _catch_up(self, stream: str) -> None:
        catch_up(self._database, stream)
        self._complete.add(stream)
        self._behind = {part for part in self._behind if part[0] != stream}

    def _commit(self, changes: Changes, loaded: Mapping[StayKey, KnownStay]) -> None:
        part = (changes.stream, changes.part)
        unwritten = self._unwritten[part]
        unwritten.update((key, known) for key, known in loaded.items() if known.touched)
        changes.stays += [known.row() for known in loaded.values() if known.changed]
        # Sorted, so that all workers take locks in the same order.
        changes.stays.sort(key=attrgetter("stream", "pat_id", "date_admission"))
        evicted = list(islice(self._known, max(0, len(self._known) - STAYS_IN_MEMORY)))
        if changes.complete:
            written = sorted(unwritten)
        else:
            # Rows that include a withdrawn reading must be rewritten in the same transaction.
            changed = {(row.stream, row.pat_id, row.date_admission) for row in changes.withdrawn}
            written = sorted(changed.union(key for key in evicted if key in unwritten))
        for key in written:
            unwritten[key].write_vitals(changes)

        self._database.commit(changes)

        for known in loaded.values():
            known.changed = False
        for key in written:
            known = unwritten.pop(key)
            known.seq = max(known.seq, changes.last)
            known.touched.clear()
        self._evict(evicted)
        if changes.complete:
            self._complete_at[part] = time.monotonic()
            self._behind.discard(part)
        else:
            self._behind.add(part)

    def _evict(self, keys: Iterable[StayKey]) -> None:
        for key in keys:
            known = self._known.pop(key, None)
            if known is not None and known.touched:
                # The stay belongs to another partition, which this commit does not write.
                self.forget(key[0])
