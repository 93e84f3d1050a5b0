"""The messages of the stream, version 2. Every version 1 message is a valid version 2 message.

`day`, `hour`, `minute` and `second` are a time of the stream's own clock, without a time zone.
"""

import re
from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta

from wire.vitals import implausible

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Seq = Annotated[int, Meta(ge=1, le=10**18)]
Age = Annotated[float, Meta(ge=0, le=150)] | None
# Limited so that squares of deviations do not overflow.
Value = Annotated[float, Meta(ge=-1e100, le=1e100)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Hour = Annotated[int, Meta(ge=0, le=23)]
Sixty = Annotated[int, Meta(ge=0, le=59)]


class Rejected(Exception):
    """The message is rejected. The text is the reason; `code` is one of CODES."""

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.code = code


# malformed: not a valid message. dates: not a date, or a day outside the stay. implausible: a value
# that no living patient has. unusable: the source itself could not use what it received.
# unknown_reading: the withdrawal of a reading that is not stored. dead_letter: the message passed
# all checks, but processing failed.
CODES = ("malformed", "dates", "implausible", "unusable", "unknown_reading", "dead_letter")


class Reading(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="reading"):
    """One value of one parameter of a stay."""

    pat_id: Id
    age: Age
    date_admission: str
    date_discharge: str | None
    day: str
    hour: Hour
    parameter: Name
    value: Value
    minute: Sixty = 0
    second: Sixty = 0


class Discharge(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="discharge"):
    """Ends a stay; without an hour, at the end of the day."""

    pat_id: Id
    age: Age
    date_admission: str
    date_discharge: str
    day: str
    hour: Annotated[int, Meta(ge=0, le=24)] = 24
    minute: Sixty = 0
    second: Sixty = 0


class Admission(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="admission"):
    """Opens a stay, or reopens a discharged one.

    place: the bed. identifier: the patient's number or name at the hospital.
    """

    pat_id: Id
    age: Age
    date_admission: str
    day: str
    hour: Hour = 0
    minute: Sixty = 0
    second: Sixty = 0
    place: Name | None = None
    identifier: Name | None = None


class Withdrawal(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="withdrawal"):
    """Withdraws the wrong reading in message `of` of the same stream.

    A correction is a withdrawal followed by the corrected reading.
    """

    pat_id: Id
    date_admission: str
    of: Seq


class Outcome(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="outcome"):
    """An outcome of a stay, such as `died` with value 1."""

    pat_id: Id
    date_admission: str
    name: Name
    value: Value
    day: str
    hour: Hour = 0
    minute: Sixty = 0
    second: Sixty = 0


class Acknowledgement(
    msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="acknowledgement"
):
    """A person has seen the active alarm of a stay, and silences it for `snooze_hours`.

    model: None for the alarms of all models.
    """

    pat_id: Id
    date_admission: str
    author: Name
    day: str
    hour: Hour = 0
    minute: Sixty = 0
    second: Sixty = 0
    model: Name | None = None
    snooze_hours: Annotated[float, Meta(ge=0, le=12)] = 0.0


class Unusable(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="unusable"):
    """Reports data that the source received but could not use. `decode` rejects the message.

    received: the number of the raw data in the source's log.
    """

    reason: Annotated[str, Meta(min_length=1, max_length=255)]
    pat_id: Id | None = None
    received: Seq | None = None


Message = Reading | Discharge | Admission | Withdrawal | Outcome | Acknowledgement

_decoder: msgspec.json.Decoder[Message | Unusable] = msgspec.json.Decoder(Message | Unusable)
# Dates and names recur in almost every message, so their checks are cached.
_REMEMBERED = 100_000
_days: dict[str, int] = {}
_stays: set[tuple[str, str | None, str]] = set()
_names: set[str] = set()
# Stricter than ISO 8601, because another spelling of the same day would make another stay.
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def ordinal(text: str) -> int:
    """The number of a day, counted from 0001-01-01. Raises Rejected if the text is not YYYY-MM-DD.

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
            raise Rejected(f"{text!r} is not a date (YYYY-MM-DD)", "dates") from None
        if len(_days) > _REMEMBERED:
            _days.clear()
        _days[text] = day
    return day


def decode(data: bytes) -> Message:
    """The message in `data`. Raises Rejected with one of CODES.

    >>> decode(b'{"type":"reading","pat_id":17}')
    Traceback (most recent call last):
    ...
    wire.messages.Rejected: Object missing required field `age`
    """
    try:
        message = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(str(error), "malformed") from None
    if message.__class__ is Reading:
        _check_days(message.date_admission, message.date_discharge, message.day)
        _check_name(message.parameter)
        reason = implausible(message.parameter, message.value)
        if reason is not None:
            raise Rejected(reason, "implausible")
    elif isinstance(message, Discharge):
        _check_days(message.date_admission, message.date_discharge, message.day)
    elif isinstance(message, Withdrawal):
        ordinal(message.date_admission)
    elif isinstance(message, Unusable):
        raise Rejected(message.reason, "unusable")
    else:
        _check_other(message)
    return message


def _check_other(message: Message) -> None:
    """Checks the dates and names of an admission, an outcome or an acknowledgement."""
    assert not isinstance(message, Withdrawal)
    ordinal(message.date_admission)
    ordinal(message.day)
    if isinstance(message, Admission):
        names = [message.place, message.identifier]
    elif isinstance(message, Outcome):
        names = [message.name]
    else:
        names = [getattr(message, "author", None), getattr(message, "model", None)]
    for name in names:
        if name is not None:
            _check_name(name)


def _check_name(name: str) -> None:
    """Rejects a name with spaces at its ends or an unprintable character, because a table or a
    person could confuse it with another name."""
    if name in _names:
        return
    if name != name.strip() or not name.isprintable():
        reason = f"{name!r} starts or ends with a space, or has an unprintable character"
        raise Rejected(reason, "malformed")
    if len(_names) > _REMEMBERED:
        _names.clear()
    _names.add(name)


def _check_days(date_admission: str, date_discharge: str | None, on: str) -> None:
    """Rejects an invalid date, a discharge before the admission and a day `on` outside the stay."""
    dates = (date_admission, date_discharge, on)
    if dates in _stays:
        return
    admission, day = ordinal(date_admission), ordinal(on)
    if day < admission:
        raise Rejected(f"day {on} is before the admission on {date_admission}", "dates")
    if date_discharge is not None:
        discharge = ordinal(date_discharge)
        if discharge < admission:
            raise Rejected(f"discharge on {date_discharge} is before the admission", "dates")
        if day > discharge:
            raise Rejected(f"day {on} is after the discharge on {date_discharge}", "dates")
    if len(_stays) > _REMEMBERED:
        _stays.clear()
    _stays.add(dates)
