"""Reads server-sent events.

Source: WHATWG HTML, section 9.2, "Server-sent events".
"""

from typing import NamedTuple


class Event(NamedTuple):
    """One event: the fields the stream uses, `data` as it came."""

    type: str
    id: str
    data: bytes


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
        *blocks, self._rest = text.split(b"\n\n")
        if len(self._rest) > self._max_event:
            raise ValueError(f"an event of more than {self._max_event} bytes")
        return [event for block in blocks if (event := _parse(block)) is not None]


def _parse(block: bytes) -> Event | None:
    # Almost every event is an id line and a data line.
    head, found, data = block.partition(b"\ndata: ")
    if found and head.startswith(b"id: ") and b"\n" not in head and b"\n" not in data:
        return Event("message", head[4:].decode("utf-8", "replace"), data)
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
