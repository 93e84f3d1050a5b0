"""Keeps the readings of one stay in memory, and reads only the new ones."""

from collections.abc import Iterable
from datetime import UTC

from dashboard.database import STAY_LIMIT, Database
from dashboard.rows import Latest, ModelKey, Reading, StayKey

# Seconds since 1970 on the stream's clock, parameter, value, probability.
Point = list[int | str | float | None]


class StayReadings:
    """The readings of one stay. all: in order of time, at most STAY_LIMIT. points: the same
    readings for the curves, by message number.
    """

    def __init__(self, database: Database, key: StayKey) -> None:
        self._database = database
        self._key = key
        self._of: tuple[str, ModelKey | None] | None = None
        self._total = 0
        self.all: list[Reading] = []
        self.points: dict[str, Point] = {}

    def update(self, stream: str, model: ModelKey | None, model_answered: bool) -> None:
        """Adds the new readings. Reads all again if the stream or the model changed, a reading was
        withdrawn, or a pending prediction may have been filled in.
        """
        database, key, known = self._database, self._key, self.all
        total = database.number_of_readings(stream, key)
        waits = model_answered and any(
            each.predicted and each.probability is None for each in known
        )
        if self._of == (stream, model) and not waits:
            last = max((each.seq for each in known), default=0)
            new = database.readings_since(stream, key, model, last)
            complete = self._total + len(new) == total
        else:
            complete = False
        if not complete:
            known, new, self.points = [], database.readings(stream, key, model), {}
        self._of, self._total = (stream, model), total
        if new or not complete:
            ordered = sorted([*known, *new], key=lambda each: (each.at, each.seq))
            # New objects, because the page may be published at the same time.
            points = self.points | {str(each.seq): _point(each) for each in new}
            for each in ordered[:-STAY_LIMIT]:
                del points[str(each.seq)]
            self.all, self.points = ordered[-STAY_LIMIT:], points


def with_later(vitals: dict[str, Latest], readings: Iterable[Reading]) -> dict[str, Latest]:
    """The latest values of a stay, with the readings that table `vitals` does not include yet:
    while batches queue up, the tool writes it only every few seconds.
    """
    found = dict(vitals)
    for reading in readings:
        row, old = vitals.get(reading.parameter), found.get(reading.parameter)
        if row is not None and reading.seq <= row.seq:
            continue
        if old is None:
            old = Latest(0, reading.at, reading.value, reading.at, 0)
        # Of several readings at the same time, the one with the highest number counts.
        later = reading.at >= old.at
        found[reading.parameter] = Latest(
            old.n + 1,
            min(old.first_at, reading.at),
            reading.value if later else old.value,
            max(old.at, reading.at),
            max(old.seq, reading.seq),
        )
    return found


def _point(reading: Reading) -> Point:
    at = int(reading.at.replace(tzinfo=UTC).timestamp())
    return [at, reading.parameter, reading.value, reading.probability]
