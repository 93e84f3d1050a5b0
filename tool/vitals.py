"""Brings table `vitals` up to date with the readings, using only the tables.

While batches queue up, `vitals` is behind the readings. Each row has the number of the last message
that it includes. Each partition has the number of the message up to which all its rows are complete
(`vitals_seq`). Features are computed from `vitals`, so a worker that takes over a stream first
brings it up to date.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence

from tool.database import Database, Moved
from tool.known_stay import statistics_of, vital_row
from tool.statistics import Statistics
from tool.times import hours_of
from wire.messages import ordinal
from wire.tables import ReadingRow, StayRow, VitalRow

log = logging.getLogger("tool")

PatientStay = tuple[int, str]  # patient number, day of admission
# Maximum number of patients per query.
PATIENTS_PER_QUERY = 500


def catch_up(database: Database, stream: str) -> None:
    """Adds the readings that `vitals` does not include. Raises PermanentFailure or Unavailable."""
    while (behind := database.behind(stream)).positions:
        later: defaultdict[PatientStay, list[ReadingRow]] = defaultdict(list)
        for reading in behind.readings:
            later[reading.pat_id, reading.date_admission].append(reading)
        rows: list[VitalRow] = []
        for some in chunks(sorted(later)):
            _, stored = read_rows(database, stream, some)
            for stay in some:
                rows += _continue(stream, stay, stored[stay], later[stay])
        try:
            database.catch_up(stream, behind, rows)
        except Moved:
            continue
        log.info("stream %s: brought %d rows of vitals up to date", stream, len(rows))
        return


def read_rows(
    database: Database, stream: str, keys: Sequence[PatientStay]
) -> tuple[dict[PatientStay, StayRow], defaultdict[PatientStay, list[VitalRow]]]:
    """The rows of `stays` and `vitals` of these stays."""
    stays, vitals = database.stays(stream, sorted({pat_id for pat_id, _ in keys}))
    by_stay: defaultdict[PatientStay, list[VitalRow]] = defaultdict(list)
    for row in vitals:
        by_stay[row.pat_id, row.date_admission].append(row)
    return {(row.pat_id, row.date_admission): row for row in stays}, by_stay


def chunks(keys: Sequence[PatientStay]) -> Iterator[Sequence[PatientStay]]:
    for start in range(0, len(keys), PATIENTS_PER_QUERY):
        yield keys[start : start + PATIENTS_PER_QUERY]


def _continue(
    stream: str, stay: PatientStay, rows: list[VitalRow], readings: list[ReadingRow]
) -> list[VitalRow]:
    """Adds the readings that `rows` do not include; returns the changed rows."""
    admitted = ordinal(stay[1])
    statistics = {row.parameter: statistics_of(row) for row in rows}
    reached = {row.parameter: row.seq for row in rows}
    changed = set()
    for reading in readings:
        parameter = reading.parameter
        if reading.seq > reached.get(parameter, 0):
            at = hours_of(reading.measured_at, admitted)
            statistics.setdefault(parameter, Statistics()).add(at, reading.value)
            reached[parameter] = reading.seq
            changed.add(parameter)
    return [
        vital_row((stream, *stay), parameter, statistics[parameter], admitted, reached[parameter])
        for parameter in sorted(changed)
    ]
