"""Parses the number in an HL7 observation."""

import re

from gateway.facts import Unread
from gateway.hl7 import Delimiters, Message

NULL = '""'
USUAL = Delimiters()
_NUMBER = re.compile(r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,2})?", re.ASCII)
# Text that may appear in a reason: without letters, it cannot contain a person's name.
_SHOWN = re.compile(r"[<>=~^0-9.,: +-]{1,20}", re.ASCII)


def number(message: Message, kind: str, field: str) -> float | None:
    """The number in OBX-5, of the type in OBX-2; None for an empty or a deleted value.

    Raises Unread, also for a bound (`<15`), a range or a text, which are not measured values.
    """
    if kind == "NM" and message.delimiters == USUAL and _NUMBER.fullmatch(field):
        return _bounded(float(field))
    if not field or field == NULL:
        return None
    if message.delimiters.repetition in field or message.delimiters.subcomponent in field:
        raise Unread("several values in one observation")
    if kind == "SN":
        text = _structured(message, field)
    elif kind in ("NM", "ST", ""):
        text = message.text(field)
    else:
        raise Unread(f"a value of type {kind[:3]!r} is not a number")
    if text in ("", NULL):
        return None
    if not _NUMBER.fullmatch(text):
        raise Unread(f"{_shown(text)} is not a number")
    return _bounded(float(text))


def _bounded(value: float) -> float:
    if abs(value) > 1e100:
        raise Unread("the number is too large")
    return value


def _structured(message: Message, field: str) -> str:
    """The number in an SN field: `^120` or `=^120`."""
    comparator, first, *more = [
        message.text(part) for part in field.split(message.delimiters.component)
    ] + [""]
    if comparator not in ("", "=") or any(more):
        raise Unread(f"{_shown(field)} is a bound or a range")
    return first


def _shown(text: str) -> str:
    return repr(text) if _SHOWN.fullmatch(text) else "the value"
