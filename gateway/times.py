"""Times of senders, as times of the ward's own clock.

A moment is a text, `2026-03-29 14:05:00`: the wall clock of `TIME_ZONE`, as in the stream. An
offset in the field goes before one in the message's header, and that before `TIME_ZONE`.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from gateway.remembered import remembered

Moment = str

_HL7 = re.compile(
    r"(\d{4})(\d\d)(\d\d)(\d\d)(?:(\d\d)(?:(\d\d)(?:\.\d{1,6})?)?)?([+-]\d{4})?", re.ASCII
)
_OFFSET = re.compile(r"[+-]\d{4}\Z", re.ASCII)
_FHIR = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII
)


@remembered
def hl7_moment(text: str, zone: ZoneInfo, offset: str) -> Moment | None:
    """The moment of a DTM or TS, None when it has no hour. `offset`: that of MSH-7.

    >>> berlin = ZoneInfo("Europe/Berlin")
    >>> hl7_moment("202603290130+0000", berlin, ""), hl7_moment("20260329", berlin, "")
    ('2026-03-29 03:30:00', None)
    >>> hl7_moment("20260329023000", berlin, "")  # skipped by daylight saving
    '2026-03-29 03:30:00'
    """
    return _moment(_HL7.fullmatch(text.strip()), zone, offset)


@remembered
def fhir_moment(text: str, zone: ZoneInfo) -> Moment | None:
    """The moment of a FHIR dateTime or instant, None when it is no more than a date.

    >>> fhir_moment("2026-10-25T01:30:00Z", ZoneInfo("Europe/Berlin"))
    '2026-10-25 02:30:00'
    """
    return _moment(_FHIR.fullmatch(text), zone, "")


def _moment(found: re.Match[str] | None, zone: ZoneInfo, offset: str) -> Moment | None:
    if found is None:
        return None
    *numbers, own = found.groups(default="")
    try:
        at = datetime(*(int(number or 0) for number in numbers))  # type: ignore[arg-type]  # noqa: DTZ001
        aware = at.replace(tzinfo=_offset(own or offset) or zone)
        # By way of UTC: an hour that daylight saving skips becomes the one after it.
        return aware.astimezone(UTC).astimezone(zone).isoformat(" ", "seconds")[:19]
    except (ValueError, OverflowError):
        return None


def _offset(text: str) -> timezone | None:
    if not text:
        return None
    if text == "Z":
        return UTC
    sign = -1 if text[0] == "-" else 1
    digits = text[1:].replace(":", "")
    return timezone(sign * timedelta(hours=int(digits[:2]), minutes=int(digits[2:])))


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


def now(zone: ZoneInfo) -> Moment:
    """The present moment."""
    return f"{datetime.now(zone):%Y-%m-%d %H:%M:%S}"


def seconds_since(text: str, zone: ZoneInfo, clock: float) -> float | None:
    """How far the HL7 time in `text` is ahead of `clock`, seconds since 1970; None without one."""
    moment = hl7_moment(text, zone, "")
    if moment is None:
        return None
    at = datetime.fromisoformat(moment).replace(tzinfo=zone)
    return at.timestamp() - clock
