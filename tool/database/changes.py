"""The rows that one batch writes, and the readings that `vitals` lacks."""

from dataclasses import dataclass, field
from typing import NamedTuple

from wire.tables import (
    AcknowledgementRow,
    DischargeRow,
    OutcomeRow,
    PendingRow,
    PredictionRow,
    ReadingRow,
    RejectedRow,
    StayRow,
    VitalRow,
    WithdrawnRow,
)


class VitalKey(NamedTuple):
    """The key of a row of `vitals`."""

    stream: str
    pat_id: int
    date_admission: str
    parameter: str


@dataclass
class Changes:
    """The rows of one batch. part: None for a replayed message. after: the partition's last message
    before the batch. last: the last message of the batch. now: the time in these rows, in UTC.
    partitions: the number of partitions; 0 if it is unknown. first: the first message of the batch;
    0 if it has none. complete: after these rows are written, `vitals` includes all readings of the
    partition. withdrawn: the readings that these rows name are deleted from `readings`. emptied:
    the rows of `vitals` to delete, because their parameters have no readings left.
    """

    stream: str
    part: int | None
    after: int
    last: int
    now: str
    partitions: int = 0
    first: int = 0
    complete: bool = False
    readings: list[ReadingRow] = field(default_factory=list)
    withdrawn: list[WithdrawnRow] = field(default_factory=list)
    stays: list[StayRow] = field(default_factory=list)
    vitals: list[VitalRow] = field(default_factory=list)
    emptied: list[VitalKey] = field(default_factory=list)
    predictions: list[PredictionRow] = field(default_factory=list)
    pending: list[PendingRow] = field(default_factory=list)
    outcomes: list[OutcomeRow] = field(default_factory=list)
    acknowledgements: list[AcknowledgementRow] = field(default_factory=list)
    discharges: list[DischargeRow] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)


class Behind(NamedTuple):
    """Readings that `vitals` may not include yet, in the order of the stream.

    positions: the last stored message of each partition. withdrawals: the number of withdrawn
    readings.
    """

    positions: dict[int, int]
    readings: list[ReadingRow]
    withdrawals: int
