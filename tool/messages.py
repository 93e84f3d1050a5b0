"""The messages of the stream, decoded once."""

from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta

from tool.plausible import implausible

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Age = Annotated[float, Meta(ge=0, le=150)] | None
Name = Annotated[str, Meta(min_length=1, max_length=64)]


class Unusable(Exception):
    """A message that cannot be used; its text is the reason."""


class Reading(msgspec.Struct, frozen=True, tag_field="type", tag="reading"):
    """One value of one vital of one stay; `hour` counts from 0 to 23."""

    pat_id: Id
    age: Age
    date_admission: str
    date_discharge: str | None
    day: str
    hour: Annotated[int, Meta(ge=0, le=23)]
    parameter: Name
    value: float


class Discharge(msgspec.Struct, frozen=True, tag_field="type", tag="discharge"):
    """The news that a stay has ended."""

    pat_id: Id
    age: Age
    date_admission: str
    date_discharge: str
    day: str


Message = Reading | Discharge

_decode = msgspec.json.Decoder(Message).decode
_days: dict[str, int] = {}


def ordinal(text: str) -> int:
    """The number of an ISO date's day. Unusable when it is not one.

    >>> ordinal("2019-02-03") - ordinal("2019-02-01")
    2
    """
    day = _days.get(text)
    if day is None:
        try:
            if len(text) != 10:
                raise ValueError
            day = date.fromisoformat(text).toordinal()
        except ValueError:
            raise Unusable(f"{text!r} is not a date (YYYY-MM-DD)") from None
        if len(_days) > 100_000:
            _days.clear()
        _days[text] = day
    return day


def decode(data: bytes) -> Message:
    """The message in `data`. Raises Unusable, with the reason.

    >>> decode(b'{"type":"reading","pat_id":17}')
    Traceback (most recent call last):
    ...
    tool.messages.Unusable: Object missing required field `age`
    """
    try:
        message = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unusable(str(error)) from None
    admission = ordinal(message.date_admission)
    day = ordinal(message.day)
    if day < admission:
        raise Unusable(f"day {message.day} is before the admission on {message.date_admission}")
    if message.date_discharge is not None:
        discharge = ordinal(message.date_discharge)
        if discharge < admission:
            raise Unusable(f"discharge on {message.date_discharge} is before the admission")
        if day > discharge:
            raise Unusable(f"day {message.day} is after the discharge on {message.date_discharge}")
    if isinstance(message, Reading):
        reason = implausible(message.parameter, message.value)
        if reason is not None:
            raise Unusable(reason)
    return message
