"""Parses HL7 version 2 messages in the vertical-bar encoding (ER7).

Source: HL7 2.8.2, chapter 2 (control) and table 0211 (character sets).
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

from gateway.remembered import remembered

# The codes of table 0211, with Python's names of the character sets.
CHARSETS = {
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859-{part}" for part in (*range(1, 12), *range(13, 17))},
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "UTF8": "utf-8",
    "ISO IR6": "ascii",
    "ISO IR14": "shift_jis",
    "ISO IR87": "iso2022_jp",
    "ISO IR159": "iso2022_jp_1",
    "GB 18030-2000": "gb18030",
    "BIG-5": "big5",
    "KS X 1001": "euc_kr",
}
_SEGMENT_NAME = re.compile(r"[A-Z][A-Z0-9]{2}")
_USUAL = frozenset(("MSH", "EVN", "PID", "PV1", "ORC", "OBR", "OBX", "NTE"))

Segment = list[str]  # the fields by number; [0] is the name of the segment


class Unreadable(Exception):
    """The message has no readable MSH."""


class Delimiters(NamedTuple):
    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"


class Message(msgspec.Struct, frozen=True):
    """One message. Its fields still have escape sequences, which `text` resolves.

    kind: the type and the event, such as `ORU^R01`. sender: the sending application and facility,
    such as `MONITOR@WARD`.
    """

    segments: list[Segment]
    delimiters: Delimiters
    charset: str
    kind: str = ""
    sender: str = ""

    @property
    def msh(self) -> Segment:
        return self.segments[0]

    def components(self, field: str) -> list[str]:
        """The components of the first repetition of a field."""
        first = field.partition(self.delimiters.repetition)[0]
        return first.split(self.delimiters.component)

    def repetitions(self, field: str) -> list[list[str]]:
        """The components of each repetition of a field."""
        separator = self.delimiters.component
        return [part.split(separator) for part in field.split(self.delimiters.repetition)]

    def text(self, raw: str) -> str:
        """The text of a component: its first subcomponent, stripped, with escapes resolved."""
        _, _, _, escape, subcomponent = self.delimiters
        if subcomponent in raw:
            raw = raw.partition(subcomponent)[0]
        if escape in raw:
            raw = unescape(raw, self.delimiters, self.charset)
        return raw.strip()


def at(segment: Segment, number: int) -> str:
    """Field `number` of a segment; empty if the segment is shorter."""
    return segment[number] if number < len(segment) else ""


def part(components: list[str], number: int) -> str:
    """Component `number`, counted from 1; empty if there is none."""
    return components[number - 1] if number <= len(components) else ""


def split(content: bytes) -> list[bytes]:
    """Splits a frame into its messages: one, or several, with or without batch headers (FHS,
    BHS)."""
    several = b"\rMSH" in content or b"\nMSH" in content
    if not several and content[:3] not in (b"FHS", b"BHS"):
        return [content]
    begins = [found.start() for found in re.finditer(rb"(?:(?<=[\r\n])|\A)MSH", content)]
    if not begins:
        return [content]  # a batch without messages is answered like an unreadable message
    ends = [*begins[1:], len(content)]
    parts = [content[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return [re.split(rb"[\r\n](?=(?:BTS|FTS|BHS|FHS))", part, maxsplit=1)[0] for part in parts]


def parse(content: bytes, default_charset: str = "utf-8") -> Message:
    """Parses the message in `content`. default_charset: for a message whose MSH-18 is empty or
    unknown. Raises Unreadable."""
    delimiters = _delimiters(content[:9])
    charset = _charset(content, delimiters) or default_charset
    text = _decode(content, charset)
    lines = text.split("\r") if "\r" in text else text.split("\n")
    if "\n" in text:
        lines = [line.strip("\n") for line in lines]
    separator = delimiters.field
    segments = [
        segment
        for line in lines
        if (segment := line.split(separator))[0] in _USUAL or _is_name(segment[0])
    ]
    msh = segments[0]
    msh.insert(1, separator)  # MSH-1 is the field separator itself
    kind = _kind(at(msh, 9), delimiters, charset)
    sender = _sender(separator.join(msh[3:5]), delimiters, charset)
    return Message(segments, delimiters, charset, kind, sender)


@remembered
def _kind(field: str, delimiters: Delimiters, charset: str) -> str:
    message = Message([], delimiters, charset)
    return "^".join([message.text(part) for part in message.components(field)][:2])


@remembered
def _sender(fields: str, delimiters: Delimiters, charset: str) -> str:
    message = Message([], delimiters, charset)
    names = [message.text(message.components(part)[0]) for part in fields.split(delimiters.field)]
    return ("@".join(name for name in names if name) or "unknown")[:64]


@remembered
def _is_name(text: str) -> bool:
    return _SEGMENT_NAME.fullmatch(text) is not None


@lru_cache(maxsize=64)
def _delimiters(content: bytes) -> Delimiters:
    """The delimiters in MSH-1 and MSH-2. content: the first 9 bytes of the message."""
    field = chr(content[3]) if len(content) > 8 and content.startswith(b"MSH") else ""
    if not field or field.isalnum() or field.isspace() or not field.isascii():
        raise Unreadable("the message does not start with MSH and its delimiters")
    encoding = content[4:].split(field.encode(), 1)[0].split(b"\r", 1)[0].decode("latin-1")
    given = [field, *encoding[:4]]
    if len(set(given)) < len(given) or any(c.isalnum() or c.isspace() for c in given):
        raise Unreadable("MSH-2 does not contain valid delimiters")
    return Delimiters(*given)


def _charset(content: bytes, delimiters: Delimiters) -> str:
    fields = content[: content.find(b"\r")][:2048].split(delimiters.field.encode(), 18)
    if len(fields) < 18 or not fields[17]:
        return ""
    named = fields[17].decode("latin-1").split(delimiters.repetition)[0].strip().upper()
    return CHARSETS.get(named, "")


def _decode(content: bytes, charset: str) -> str:
    try:
        return content.decode(charset)
    except (UnicodeDecodeError, LookupError):
        pass
    # The text is not in the declared encoding, but numbers and identifiers are ASCII in all
    # character sets of the table.
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def unescape(text: str, delimiters: Delimiters, charset: str = "utf-8") -> str:
    r"""Resolves escape sequences; leaves unknown ones unchanged.

    >>> unescape(r"5\S\3 \T\ \X6D6D\ \.br\ \Zx\ ", Delimiters())
    '5^3 & mm \n \\Zx\\ '
    """
    known = {
        "F": delimiters.field,
        "S": delimiters.component,
        "T": delimiters.subcomponent,
        "R": delimiters.repetition,
        "E": delimiters.escape,
        ".br": "\n",
        "H": "",
        "N": "",
    }
    escape = re.escape(delimiters.escape)

    def resolve(found: re.Match[str]) -> str:
        code: str = found[1]
        if code in known:
            return known[code]
        if re.fullmatch(r"X(?:[0-9A-Fa-f]{2})+", code):
            return bytes.fromhex(code[1:]).decode(charset, "replace")
        return found[0]

    return re.sub(f"{escape}([^{escape}]*){escape}", resolve, text)


def named(message: Message, name: str) -> Iterator[Segment]:
    """The segments with this name, in order."""
    return (segment for segment in message.segments if segment[0] == name)
