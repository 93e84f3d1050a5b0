"""The types of the rows that the dashboard reads, and the stream's times."""

from datetime import date, datetime, time, timedelta
from typing import NamedTuple

FIRST_MOMENT = datetime.fromisoformat("0001-01-01")
LAST_MOMENT = datetime.fromisoformat("9999-12-31 23:59:59")


class StayKey(NamedTuple):
    """A stay within a stream."""

    pat_id: int
    admitted: date


class ModelKey(NamedTuple):
    """A version of a model."""

    name: str
    version: str


class Position(NamedTuple):
    """The last stored message of a partition, and the last one that `vitals` includes."""

    stream: str
    part: int
    seq: int
    vitals_seq: int
    committed_at: datetime


class Stay(NamedTuple):
    """A stay. age: in years. identifier: the name that the pages show instead of the patient's
    number, if there is one."""

    key: StayKey
    age: float | None
    discharged: date | None
    identifier: str | None = None
    place: str | None = None

    @property
    def name(self) -> str:
        return self.identifier or str(self.key.pat_id)


class Summary(NamedTuple):
    """A stay in the ICU, with the number of its readings and the times of the first and the last
    one. seq: the last message that is counted. It also changes if a correction replaces a reading
    by another reading of the same time.
    """

    stay: Stay
    n: int
    first_at: datetime | None
    last_at: datetime | None
    seq: int


class Latest(NamedTuple):
    """The latest value of a parameter in a stay. n: the number of readings of this parameter up to
    message `seq`. first_at: the time of the earliest one."""

    n: int
    first_at: datetime
    value: float
    at: datetime
    seq: int


class Risk(NamedTuple):
    """A prediction of the champion, and the time and the number of the reading. probability: for a
    score, points / maximum."""

    probability: float
    at: datetime
    seq: int


class Reading(NamedTuple):
    """A reading and the champion's prediction. predicted: whether there is a prediction, even if it
    is pending."""

    seq: int
    at: datetime
    parameter: str
    value: float
    predicted: bool
    probability: float | None
    reason: str | None


class Prediction(NamedTuple):
    """A prediction with its features."""

    model: ModelKey
    at: datetime
    features: dict[str, float | None]
    probability: float | None
    reason: str | None


class Alarm(NamedTuple):
    """An active alarm of a stay. quiet_until: the end of a snooze."""

    raised_at: datetime
    acknowledged_by: str | None
    quiet_until: datetime | None


class AlarmEvent(NamedTuple):
    """An event of an alarm: raise, again, acknowledge or clear."""

    seq: int
    kind: str
    at: datetime
    probability: float | None
    author: str | None


class Rejected(NamedTuple):
    """A rejected message. `seq` is its number in the stream."""

    seq: int
    reason: str
    message: str


def moment(value: str | datetime) -> datetime:
    """Converts a time as returned by SQLite or MySQL."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def day(value: str | date) -> date:
    """Converts a day as returned by SQLite or MySQL."""
    return date.fromisoformat(value) if isinstance(value, str) else value


def hours(start: datetime | date, to: datetime) -> float:
    """Hours from one moment (or a day's midnight) to another."""
    if not isinstance(start, datetime):
        start = datetime.combine(start, time())
    return (to - start) / timedelta(hours=1)


def earlier(at: datetime, by: timedelta) -> datetime:
    """The time `by` before `at`, or the first possible time if that is later."""
    return at - by if at - FIRST_MOMENT > by else FIRST_MOMENT


def later(at: datetime, by: timedelta) -> datetime:
    """The time `by` after `at`, or the last possible time if that is earlier."""
    return at + by if LAST_MOMENT - at > by else LAST_MOMENT
