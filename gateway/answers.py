"""Builds acknowledgements: AA, AE or AR in original mode; CA or CE if MSH-15 requests it.

Source: HL7 2.8.2, chapter 2.9.
"""

import secrets
import time
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from itertools import count
from zoneinfo import ZoneInfo

from gateway.hl7 import Delimiters, Message, Unreadable, at, parse
from gateway.mllp import FS, VT
from gateway.remembered import remembered

_ECHOED = (3, 4, 5, 6, 9, 11, 12, 18)  # fields of MSH

SUCCESS, FAILURE, REJECTED = "A", "E", "R"  # the second letter of MSA-1


def answer(message: Message, outcome: str, zone: ZoneInfo, reason: str = "") -> str:
    """The acknowledgement of a message; empty if the sender does not want one."""
    accept, application = (at(message.msh, number).strip().upper() for number in (15, 16))
    if accept and _wanted(accept, outcome):
        code = "C" + outcome
    elif _wanted(application, outcome):
        code = "A" + outcome
    else:
        return ""
    return _text(message, code, zone, reason)


def rejection(content: bytes, zone: ZoneInfo, reason: str) -> tuple[str, str]:
    """Returns the AR for a frame that is unreadable, too long or incomplete, and the AR's
    character set."""
    try:
        head = parse(content)
    except Unreadable:
        head = parse(b"MSH|^~\\&|")
    return _text(head, "A" + REJECTED, zone, reason), head.charset


def encode(texts: Sequence[str], charset: str, batch: bool) -> bytes:
    """Encodes the content of one frame: one acknowledgement, or all acknowledgements of a batch."""
    if batch:
        texts = ["BHS|^~\\&\r", *texts, f"BTS|{len(texts)}\r"]
    # A field copied from the message may contain VT or FS, which would end the frame.
    return "".join(texts).encode(charset, "replace").translate(None, VT + FS)


def _wanted(condition: str, outcome: str) -> bool:
    """Whether the sender wants an acknowledgement of this outcome. condition: MSH-15 or MSH-16, a
    code of table 0155: NE (never), SU (on success), ER (on error) or AL (always). Any other text
    counts as AL."""
    if condition == "SU":
        return outcome == SUCCESS
    if condition == "ER":
        return outcome != SUCCESS
    return condition != "NE"


_process = secrets.token_hex(4)
_numbers = count(1)


def _control_id() -> str:
    """Returns a control id that no other answer has, even after a restart."""
    return f"{_process}{next(_numbers):x}"


@lru_cache(maxsize=4)
def _clock(second: int, zone: ZoneInfo) -> str:
    return f"{datetime.fromtimestamp(second, zone):%Y%m%d%H%M%S%z}"


@remembered
def _header(fields: str, mark: Delimiters) -> tuple[str, str, str]:
    """Returns three parts of the answer's MSH: before the time, from the time to the control id,
    and after the control id.
    """
    separator = mark.field
    application, facility, to_application, to_facility, kind, processing, version, charset = (
        fields.split(separator)
    )
    marks = mark.component + mark.repetition + mark.escape + mark.subcomponent
    begin = ["MSH", marks, to_application, to_facility, application, facility, ""]
    event = kind.split(mark.component)
    own = mark.component.join(["ACK", *event[1:2]])
    end = [
        "",
        processing or "P",
        version or "2.5",
        *(["", "", "", "", "", charset] if charset else []),
    ]
    return separator.join(begin), f"{separator}{separator}{own}{separator}", separator.join(end)


def _text(message: Message, code: str, zone: ZoneInfo, reason: str) -> str:
    msh, mark = message.msh, message.delimiters
    separator = mark.field
    begin, kind, end = _header(separator.join([at(msh, n) for n in _ECHOED]), mark)
    sent = _clock(int(time.time()), zone)
    lines = [
        f"{begin}{sent}{kind}{_control_id()}{end}",
        separator.join(("MSA", code, at(msh, 10))),
    ]
    if code[1] != SUCCESS:
        number = "207" if code[1] == FAILURE else "200"
        condition = mark.component.join([number, "Application internal error", "HL70357"])
        if code[1] == REJECTED:
            condition = mark.component.join([number, "Unsupported message type", "HL70357"])
        lines.append(separator.join(["ERR", "", "", condition, "E", "", "", "", reason]))
    return "".join(line + "\r" for line in lines)
