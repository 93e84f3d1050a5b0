"""The messages of the stream, decoded once."""

import re
from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta

from tool.plausible import implausible

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Age = Annotated[float, Meta(ge=0, le=150)] | None
# Squares of deviations must not overflow.
Value = Annotated[float, Meta(ge=-1e100, le=1e100)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]


class Unusable(Exception):
    """A message that cannot be used; its text is the reason, `kind` its class."""

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Reading(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="reading"):
    """One value of one vital of one stay; `hour` counts from 0 to 23."""

    pat_id: Id
    age: Age
    date_admission: str
    date_discharge: str | None
    day: str
    hour: Annotated[int, Meta(ge=0, le=23)]
    parameter: Name
    value: Value


class Discharge(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="discharge"):
    """The news that a stay has ended."""

    pat_id: Id
    age: Age
    date_admission: str
    date_discharge: str
    day: str


Message = Reading | Discharge

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
# Dates and names recur in almost every message: what was worked out once is kept.
_days: dict[str, int] = {}
_possible: set[tuple[str, str | None, str]] = set()
_names: set[str] = set()
# Not all that is ISO: a second spelling of a day would be a second stay.
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def ordinal(text: str) -> int:
    """The number of an ISO date's day. Unusable when it is not one.

    >>> ordinal("2019-02-03") - ordinal("2019-02-01")
    2
    """
    day = _days.get(text)
    if day is None:
        try:
            if not _DATE.fullmatch(text):
                raise ValueError
            day = date.fromisoformat(text).toordinal()
        except ValueError:
            raise Unusable(f"{text!r} is not a date (YYYY-MM-DD)", "dates") from None
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
        message = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(str(error), "malformed") from None
    dates = (message.date_admission, message.date_discharge, message.day)
    if dates not in _possible:
        _check(*dates)
        if len(_possible) > 100_000:
            _possible.clear()
        _possible.add(dates)
    if isinstance(message, Reading):
        if message.parameter not in _names:
            _check_name(message.parameter)
            if len(_names) > 100_000:
                _names.clear()
            _names.add(message.parameter)
        reason = implausible(message.parameter, message.value)
        if reason is not None:
            raise Unusable(reason, "implausible")
    return message


def _check_name(parameter: str) -> None:
    """Raises Unusable for names that a table, or a reader, may take for another's."""
    if parameter != parameter.strip() or not parameter.isprintable():
        raise Unusable(
            f"parameter {parameter!r} has a blank at its end, or what cannot be printed",
            "malformed",
        )


def _check(date_admission: str, date_discharge: str | None, on: str) -> None:
    """Raises Unusable when the day `on` is not one of the stay's."""
    admission, day = ordinal(date_admission), ordinal(on)
    if day < admission:
        raise Unusable(f"day {on} is before the admission on {date_admission}", "dates")
    if date_discharge is not None:
        discharge = ordinal(date_discharge)
        if discharge < admission:
            raise Unusable(f"discharge on {date_discharge} is before the admission", "dates")
        if day > discharge:
            raise Unusable(f"day {on} is after the discharge on {date_discharge}", "dates")
