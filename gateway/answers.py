"""Acknowledgements (HL7 2.8.2, chapter 2.9): AA in original mode, CA where MSH-15 asks."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from gateway.hl7 import Message, Unreadable, at, parse

SUCCESS, FAILURE, REFUSED = "A", "E", "R"  # the second letter of MSA-1


def answer(message: Message, outcome: str, zone: ZoneInfo, reason: str = "") -> str:
    """The acknowledgement of a message; empty where its sender wants none."""
    accept, application = (at(message.msh, number).strip().upper() for number in (15, 16))
    if _wanted(accept, outcome):
        code = "C" + outcome
    elif _wanted(application or "AL", outcome):
        code = "A" + outcome
    else:
        return ""
    return _text(message, code, zone, reason)


def refusal(content: bytes, zone: ZoneInfo, reason: str) -> tuple[str, str]:
    """The AR for what is no message or too long, and its character set."""
    try:
        head = parse(content)
    except Unreadable:
        head = parse(b"MSH|^~\\&|")
    return _text(head, "A" + REFUSED, zone, reason), head.charset


def encode(texts: Sequence[str], charset: str, batch: bool) -> bytes:
    """The content of one frame: an answer, or those of a batch."""
    if not batch:
        return "".join(texts).encode(charset, "replace")
    lines = ["BHS|^~\\&\r", *texts, f"BTS|{len(texts)}\r"]
    return "".join(lines).encode(charset, "replace")


def _wanted(condition: str, outcome: str) -> bool:
    """Table 0155: always, on success, on an error or reject, never."""
    wanted = {"AL": True, "SU": outcome == SUCCESS, "ER": outcome != SUCCESS}
    return wanted.get(condition, False)


def _text(message: Message, code: str, zone: ZoneInfo, reason: str) -> str:
    msh, mark = message.msh, message.delimiters
    separator = mark.field
    marks = mark.component + mark.repetition + mark.escape + mark.subcomponent
    event = at(msh, 9).split(mark.component)
    kind = mark.component.join(["ACK", *event[1:2]])
    time = f"{datetime.now(zone):%Y%m%d%H%M%S%z}"
    header = ["MSH", marks, at(msh, 5), at(msh, 6), at(msh, 3), at(msh, 4), time, "", kind]
    header += [secrets.token_hex(8), at(msh, 11) or "P", at(msh, 12) or "2.5"]
    if at(msh, 18):
        header += ["", "", "", "", "", at(msh, 18)]
    lines = [separator.join(header), separator.join(["MSA", code, at(msh, 10)])]
    if code[1] != SUCCESS:
        number = "207" if code[1] == FAILURE else "200"
        condition = mark.component.join([number, "Application internal error", "HL70357"])
        if code[1] == REFUSED:
            condition = mark.component.join([number, "Unsupported message type", "HL70357"])
        lines.append(separator.join(["ERR", "", "", condition, "E", "", "", "", reason]))
    return "".join(line + "\r" for line in lines)
