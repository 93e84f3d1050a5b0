"""Reads server-sent events.

Source: WHATWG HTML, section 9.2, "Server-sent events".
"""

import re

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event: the fields the stream uses, `data` as it came."""

    type: str
    id: str
    data: bytes


# Almost every event is an id line and a data line, and nothing else. Found in one go, all
# events of a chunk cost a quarter of what taking them apart one by one does.
_USUAL = re.compile(rb"id: ([^\n]*)\ndata: ([^\n]*)\n\n")
_USUAL_OVERHEAD = len(b"id: \ndata: \n\n")


class EventParser:
    """Turns the bytes of a stream, cut anywhere, into its events.

    >>> parser = EventParser()
    >>> parser.feed(b'id: 1\\ndata: {"a"')
    []
    >>> parser.feed(b':1}\\n\\n: keep-alive\\n\\n')
    [Event(type='message', id='1', data=b'{"a":1}')]
    """

    def __init__(self, max_event: int = 1 << 20) -> None:
        self._rest = b""
        self._max_event = max_event

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes. ValueError when one grows beyond `max_event` bytes."""
        text = self._rest + chunk
        if b"\r" in text:
            # A CR at the very end may be half of a CRLF: it waits for the next chunk.
            held = b"\r" if text.endswith(b"\r") else b""
            text = text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        end = text.rfind(b"\n\n") + 2 if b"\n\n" in text else 0
        complete, self._rest = text[:end], text[end:]
        if len(self._rest) > self._max_event:
            raise ValueError(f"an event of more than {self._max_event} bytes")
        usual = _USUAL.findall(complete)
        known = sum([len(id_) + len(data) for id_, data in usual]) + _USUAL_OVERHEAD * len(usual)
        if known == len(complete):  # these are all of it
            return [Event("message", id_.decode("utf-8", "replace"), data) for id_, data in usual]
        blocks = complete.split(b"\n\n")
        return [event for block in blocks if (event := _parse(block)) is not None]


def _parse(block: bytes) -> Event | None:
    kind, id_, lines = "message", "", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            kind = value.decode("utf-8", "replace")
        elif field == b"id":
            id_ = value.decode("utf-8", "replace")
    return Event(kind, id_, b"\n".join(lines)) if lines else None
