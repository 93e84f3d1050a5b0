"""The tables: one row type each, whose fields are the columns in order.

The structs are not garbage-collected, because a worker makes three rows per message.

Dates and times are ISO text, `2019-02-03` and `2019-02-03 07:25:30`, in the stream's own clock.
`stream` names the input and is part of every key.
"""

from typing import Any

import msgspec


class ReadingRow(msgspec.Struct, frozen=True, gc=False):
    """A reading, stored once."""

    stream: str
    seq: int
    pat_id: int
    date_admission: str
    measured_at: str
    parameter: str
    value: float


class StayRow(msgspec.Struct, frozen=True, gc=False):
    """A stay; in the ICU while date_discharge is null."""

    stream: str
    pat_id: int
    date_admission: str
    age: float | None
    date_discharge: str | None
    identifier: str | None
    place: str | None


class VitalRow(msgspec.Struct, frozen=True, gc=False):
    """Running statistics of one parameter of a stay, up to message `seq`."""

    stream: str
    pat_id: int
    date_admission: str
    parameter: str
    n: int
    mean: float
    m2: float
    minimum: float
    maximum: float
    first_value: float
    first_at: str
    last_value: float
    last_at: str
    hours_mean: float
    hours_m2: float
    covariance: float
    mean_low: float
    seq: int


class PredictionRow(msgspec.Struct, frozen=True, gc=False):
    """The prediction of one version of a model for one reading.

    probability is null while the model has not answered, or if it cannot; reason explains which.
    """

    stream: str
    seq: int
    model: str
    version: str
    pat_id: int
    date_admission: str
    measured_at: str
    features: str
    probability: float | None
    reason: str | None
    created_at: str


class PendingRow(msgspec.Struct, frozen=True, gc=False):
    """A prediction that waits for its model."""

    stream: str
    seq: int
    model: str
    version: str


class RejectedRow(msgspec.Struct, frozen=True, gc=False):
    """A rejected message, unchanged."""

    stream: str
    seq: int
    pat_id: int | None
    reason: str
    message: str
    rejected_at: str


class PositionRow(msgspec.Struct, frozen=True, gc=False):
    """The last stored message of a partition, and the last one that `vitals` includes."""

    stream: str
    part: int
    seq: int
    vitals_seq: int
    committed_at: str


class ModelRow(msgspec.Struct, frozen=True, gc=False):
    """The last declaration of a version of a model. role: champion, shadow or retired."""

    model: str
    version: str
    role: str
    features: str
    seen_at: str


class OutcomeRow(msgspec.Struct, frozen=True, gc=False):
    """An outcome of a stay."""

    stream: str
    seq: int
    pat_id: int
    date_admission: str
    name: str
    value: float
    happened_at: str


class WithdrawnRow(msgspec.Struct, frozen=True, gc=False):
    """Reading `of_seq`, which message `seq` removed from `readings`."""

    stream: str
    seq: int
    of_seq: int
    pat_id: int
    date_admission: str
    measured_at: str
    parameter: str
    value: float


class AcknowledgementRow(msgspec.Struct, frozen=True, gc=False):
    """A person has seen the alarm of a stay."""

    stream: str
    seq: int
    pat_id: int
    date_admission: str
    model: str | None
    author: str
    acknowledged_at: str
    snooze_hours: float


TABLES: dict[str, type[Any]] = {
    "readings": ReadingRow,
    "stays": StayRow,
    "vitals": VitalRow,
    "predictions": PredictionRow,
    "pending": PendingRow,
    "rejected": RejectedRow,
    "positions": PositionRow,
    "models": ModelRow,
    "outcomes": OutcomeRow,
    "withdrawn": WithdrawnRow,
    "acknowledgements": AcknowledgementRow,
}
KEYS: dict[str, tuple[str, ...]] = {
    "readings": ("stream", "seq"),
    "stays": ("pat_id", "date_admission", "stream"),
    "vitals": ("pat_id", "date_admission", "parameter", "stream"),
    "predictions": ("stream", "seq", "model", "version"),
    "pending": ("stream", "seq", "model", "version"),
    "rejected": ("stream", "seq"),
    "positions": ("stream", "part"),
    "models": ("model", "version"),
    "outcomes": ("stream", "seq"),
    "withdrawn": ("stream", "of_seq"),
    "acknowledgements": ("stream", "seq"),
}


def columns(table: str) -> tuple[str, ...]:
    """The names of a table's columns, in order."""
    return tuple(TABLES[table].__struct_fields__)
