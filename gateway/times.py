"""Converts the senders' times to the ward's clock.

A moment is a text such as `2026-03-29 14:05:00`: the time on the wall clock in `TIME_ZONE`, as in
the stream. An offset in the field takes precedence over the offset in the header of the message,
which takes precedence over `TIME_ZONE`.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from gateway.remembered import remembered
from wire.messages import Acknowledgement, Admission, Discharge, Outcome, Reading

Moment = str
Timed = Reading | Discharge | Admission | Outcome | Acknowledgement

# A year before FIRST_YEAR, or from NEVER on, stands for an unknown time, as in hospital's CSVs:
# databases write 1900-01-01 or 9999-12-31 for it.
FIRST_YEAR, NEVER = 1901, 2900
# A reading begins no stay if it is older than this number of hours (5 years), because a clock that
# was reset is in 1970 or 2000.
PAST_HOURS = 43_800
# The reason why such a reading is rejected.
BEHIND = "the time is years before the message was received, and the patient had no stay"
# The reason why readings, admissions and discharges after `latest` are rejected.
AHEAD = "the time is more than FUTURE_HOURS after the message was received"
Clock = Callable[[str], Moment | None]  # parses a sender's time

_HL7 = re.compile(r"\d{10}(?:\d\d(?:\d\d(?:\.\d{1,6})?)?)?(?:[+-]\d{4})?", re.ASCII)
_OFFSET = re.compile(r"[+-]\d{4}\Z", re.ASCII)
_FHIR = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


@remembered
def hl7_moment(text: str, zone: ZoneInfo, offset: str) -> Moment | None:
    """The moment of a DTM or TS field; None if it has no hour. offset: that of MSH-7.

    >>> berlin = ZoneInfo("Europe/Berlin")
    >>> hl7_moment("202603290130+0000", berlin, ""), hl7_moment("20260329", berlin, "")
    ('2026-03-29 03:30:00', None)
    >>> hl7_moment("20260329023000", berlin, "")  # skipped by daylight saving
    '2026-03-29 03:30:00'
    """
    text = text.strip()
    if not _HL7.fullmatch(text):
        return None
    own = text[-5] in "+-"
    return _moment(f"{text[:8]}T{text[8:]}{'' if own else offset}", zone)


@remembered
def fhir_moment(text: str, zone: ZoneInfo) -> Moment | None:
    """The moment of a FHIR dateTime or instant; None for a date without a time.

    >>> fhir_moment("2026-10-25T01:30:00Z", ZoneInfo("Europe/Berlin"))
    '2026-10-25 02:30:00'
    """
    return _moment(text, zone) if _FHIR.fullmatch(text) else None


def _moment(text: str, zone: ZoneInfo) -> Moment | None:
    """The moment of an ISO 8601 time."""
    try:
        at = datetime.fromisoformat(text)
        if not FIRST_YEAR <= at.year < NEVER:
            return None
        aware = at if at.tzinfo else at.replace(tzinfo=zone)
        # Converted by way of UTC, so that a time that daylight saving skips becomes an hour later.
        return aware.astimezone(UTC).astimezone(zone).isoformat(" ", "seconds")[:19]
    except (ValueError, OverflowError):
        return None


@remembered
def offset_of(text: str) -> str:
    """The offset at the end of an HL7 time, or an empty text.

    >>> offset_of("20260329013000+0100"), offset_of("20260329")
    ('+0100', '')
    """
    found = _OFFSET.search(text.strip())
    return found[0] if found else ""


@remembered
def clock(at: Moment) -> tuple[str, int, int, int]:
    """Day, hour, minute and second of a moment."""
    return at[:10], int(at[11:13]), int(at[14:16]), int(at[17:19])


def moment_of(message: Timed) -> Moment:
    """The moment of a message of the stream."""
    return f"{message.day} {message.hour:02}:{message.minute:02}:{message.second:02}"


def now(zone: ZoneInfo) -> Moment:
    """The current moment."""
    return f"{datetime.now(zone):%Y-%m-%d %H:%M:%S}"


def latest(zone: ZoneInfo, hours: float) -> Moment:
    """The latest time that a message received now may have: `hours` from now; 0 means any."""
    return _from_now(zone, hours) if hours else "9999-12-31 23:59:59"


def earliest(zone: ZoneInfo, hours: float) -> Moment:
    """The earliest time at which a reading received now may begin a stay. hours: 0 means any."""
    return _from_now(zone, -PAST_HOURS) if hours else "0001-01-01 00:00:00"


def _from_now(zone: ZoneInfo, hours: float) -> Moment:
    at = datetime.now(UTC) + timedelta(hours=hours)
    return at.astimezone(zone).isoformat(" ", "seconds")[:19]


@remembered
def epoch(text: str, zone: ZoneInfo) -> float | None:
    """Converts an HL7 time to seconds since 1970; None if it has no hour.

    >>> epoch("20260329013000+0100", ZoneInfo("Europe/Berlin"))
    1774744200.0
    """
    moment = hl7_moment(text, zone, "")
    if moment is None:
        return None
    return datetime.fromisoformat(moment).replace(tzinfo=zone).timestamp()
