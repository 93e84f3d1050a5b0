"""The tables of the database: one row type per table. Its fields are the columns, in order.

The rows are exempt from cyclic garbage collection (`gc=False`), because a worker creates about
three per message.

Dates and times are ISO text, `2019-02-03` and `2019-02-03 07:25:30`, on the stream's own clock.
`stream` is the name of the stream, which is part of the key of every table that has it; `seq` is
the number of a message in the stream.
"""

from typing import Any

import msgspec

from wire.drift import DriftRow


class ReadingRow(msgspec.Struct, frozen=True, gc=False):
    """A stored reading."""

    stream: str
    seq: int
    pat_id: int
    date_admission: str
    measured_at: str
    parameter: str
    value: float


class StayRow(msgspec.Struct, frozen=True, gc=False):
    """A stay. The patient is in the ICU while date_discharge is null."""

    stream: str
    pat_id: int
    date_admission: str
    age: float | None
    date_discharge: str | None
    identifier: str | None
    place: str | None


class VitalRow(msgspec.Struct, frozen=True, gc=False):
    """Running statistics of one parameter of a stay, over the messages up to `seq`.

    The columns from n to mean_low are the fields of `tool.statistics.Statistics`.
    """

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

    features: see `wire.stored_features`. features_model, features_version: the version whose
    prediction for the reading has the array; null if this prediction has it. output: a
    probability, or points / `models.maximum` of a score; null if the model has not answered yet or
    made no prediction; `reason` says why.
    """

    stream: str
    seq: int
    model: str
    version: str
    pat_id: int
    date_admission: str
    measured_at: str
    features: str | None
    output: float | None
    reason: str | None
    created_at: str
    features_model: str | None = None
    features_version: str | None = None


class PendingRow(msgspec.Struct, frozen=True, gc=False):
    """A prediction that waits for its model."""

    stream: str
    seq: int
    model: str
    version: str


class RejectedRow(msgspec.Struct, frozen=True, gc=False):
    """A rejected message. pat_id: null if it cannot be read. message: its text; only the beginning
    if it is longer than 64 KiB."""

    stream: str
    seq: int
    pat_id: int | None
    reason: str
    message: str
    rejected_at: str


class PositionRow(msgspec.Struct, frozen=True, gc=False):
    """The last stored message of a partition, and the last message that is included in `vitals`.

    partitions: the number of partitions when this message was stored; null in rows of an earlier
    version.
    """

    stream: str
    part: int
    seq: int
    vitals_seq: int
    committed_at: str
    partitions: int | None = None


class ModelRow(msgspec.Struct, frozen=True, gc=False):
    """One version of a model, with its features as JSON. role: champion, shadow or retired.
    seen_at: the time of its last declaration or backfill. alarm: its alarm rule as JSON
    (`wire.alarms.Policy`); null if it has none. maximum: the highest number of points of a score;
    null if the model predicts a probability.
    """

    model: str
    version: str
    role: str
    features: str
    seen_at: str
    alarm: str | None = None
    maximum: int | None = None

    @property
    def names(self) -> list[str]:
        """The features' names, in the order of `predictions.features`."""
        return [feature["name"] for feature in msgspec.json.decode(self.features)]


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
    """A person has seen the alarm of a stay. model: null for the alarms of all models."""

    stream: str
    seq: int
    pat_id: int
    date_admission: str
    model: str | None
    author: str
    acknowledged_at: str
    snooze_hours: float


class DischargeRow(msgspec.Struct, frozen=True, gc=False):
    """A discharge. The table `stays` has only the last discharge of each stay."""

    stream: str
    seq: int
    pat_id: int
    date_admission: str
    happened_at: str
    created_at: str


class AlarmRow(msgspec.Struct, frozen=True, gc=False):
    """An event of an alarm: message `seq` caused the event, message `raised_seq` raised the alarm.

    kind: raise, again, acknowledge or clear. output: the output of the prediction; null for an
    acknowledgement, and if a discharge clears the alarm. revision: the revision of the alarm rule.
    author: the person who acknowledged; null for the other kinds.
    """

    stream: str
    seq: int
    model: str
    version: str
    pat_id: int
    date_admission: str
    kind: str
    raised_seq: int
    happened_at: str
    output: float | None
    revision: int
    author: str | None


class AlarmStateRow(msgspec.Struct, frozen=True, gc=False):
    """The `wire.alarms.State` of a stay after message `seq`, and who acknowledged the alarm."""

    stream: str
    pat_id: int
    date_admission: str
    model: str
    version: str
    seq: int
    clock: str
    since: str | None
    raised_seq: int | None
    raised_at: str | None
    rung_at: str | None
    quiet_until: str | None
    acknowledged_by: str | None
    first_at: str | None


class AlarmPositionRow(msgspec.Struct, frozen=True, gc=False):
    """The last message of a partition that has been applied to the alarms of a model."""

    stream: str
    part: int
    model: str
    version: str
    seq: int


class OutboxRow(PendingRow, frozen=True, gc=False):
    """An alarm that the webhook has not accepted yet."""


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
    "discharges": DischargeRow,
    "alarms": AlarmRow,
    "alarm_state": AlarmStateRow,
    "alarm_positions": AlarmPositionRow,
    "outbox": OutboxRow,
    "drift": DriftRow,
}
KEYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("readings", "rejected", "outcomes", "acknowledgements", "discharges"), ("stream", "seq")
    ),
    **dict.fromkeys(
        ("predictions", "pending", "alarms", "outbox"), ("stream", "seq", "model", "version")
    ),
    "stays": ("pat_id", "date_admission", "stream"),
    "vitals": ("pat_id", "date_admission", "parameter", "stream"),
    "positions": ("stream", "part"),
    "models": ("model", "version"),
    "withdrawn": ("stream", "of_seq"),
    "alarm_state": ("pat_id", "date_admission", "model", "version", "stream"),
    "alarm_positions": ("stream", "part", "model", "version"),
    "drift": ("stream", "day", "model", "version", "parameter", "figure"),
}


def columns(table: str) -> tuple[str, ...]:
    """The names of a table's columns, in order."""
    return tuple(TABLES[table].__struct_fields__)
