"""Parses patients and beds in HL7 messages."""

from datetime import date

from gateway.facts import Person, Place
from gateway.hl7 import Delimiters, Message, Segment, at, part
from gateway.remembered import remembered

# Types of identifiers that belong to a person, unlike account and visit numbers; the preferred type
# is first.
PERSONAL = ("MR", "PI", "PT", "", "PN", "NI", "MC", "SS")
# Identifiers that senders write if they know none. Several patients have them.
_NOBODY = frozenset(("unknown", "unk", "not known", "none", "null", "nil", "n/a", "na", "tbd", "?"))


def person(message: Message, pid: Segment, authority: str) -> Person | None:
    """The patient in a PID segment; None if it has no identifier."""
    fields = message.delimiters.field.join(pid[:8])
    return _person(fields, authority, message.delimiters, message.charset)


@remembered
def _person(fields: str, authority: str, delimiters: Delimiters, charset: str) -> Person | None:
    message = Message([], delimiters, charset)
    pid = fields.split(delimiters.field)
    key = identifier(message, at(pid, 3), authority) or identifier(message, at(pid, 2), authority)
    if key is None:
        return None
    return Person((key,), _born(message.text(at(pid, 7))), _name(message, at(pid, 5)))


def identifier(message: Message, field: str, authority: str) -> tuple[str, str] | None:
    """The authority and the id in a CX field, from the repetition whose type is first in PERSONAL;
    None if there is none. authority: used if the repetition names none."""
    best: tuple[int, tuple[str, str]] | None = None
    for components in message.repetitions(field):
        value = message.text(part(components, 1))
        kind = message.text(part(components, 5)).upper()
        if not value or value == '""' or kind not in PERSONAL or is_placeholder(value):
            continue
        key = (_authority(message, part(components, 4)) or authority, value[:128])
        rank = PERSONAL.index(kind)
        if best is None or rank < best[0]:
            best = rank, key
    return best[1] if best else None


def is_placeholder(value: str) -> bool:
    """Whether an identifier stands for an unknown one.

    >>> [is_placeholder(text) for text in ("Unknown", "000-00", "999-99-9999", "777", "K0")]
    [True, True, True, False, False]
    """
    digits = value.replace("-", "").replace(" ", "")
    repeated = len(digits) >= 7 and len(set(digits)) == 1
    return value.casefold() in _NOBODY or not digits.strip("0") or repeated


def place(message: Message, field: str) -> Place | None:
    """The bed in a PL field such as PV1-3, which has point of care, room and bed."""
    return _place(field, message.delimiters, message.charset)


@remembered
def _place(field: str, delimiters: Delimiters, charset: str) -> Place | None:
    message = Message([], delimiters, charset)
    names = [message.text(part) for part in message.components(field)[:3]]
    names = ["" if name == '""' else name for name in names]
    text = printable(" ".join(name for name in names if name))
    return Place(names[0], text) if text else None


def printable(text: str) -> str:
    """Turns a text into a name that the stream accepts: printable, stripped, at most 64
    characters."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return text.strip()[:64].strip()


def _authority(message: Message, field: str) -> str:
    """The namespace of an HD or, if it has none, its universal id."""
    parts = [message.text(text) for text in field.split(message.delimiters.subcomponent)]
    return (parts[0] or part(parts, 2))[:128]


def _name(message: Message, field: str) -> str | None:
    family, given, *_ = [*(message.text(part) for part in message.components(field)), ""]
    return printable(f"{family}, {given}".strip(" ,")) or None


def _born(text: str) -> str | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8])).isoformat()
    except ValueError:
        return None
