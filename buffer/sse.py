"""Reads server-sent events.

Source: WHATWG HTML, section 9.2, "Server-sent events".
"""

import logging
import re

import msgspec

log = logging.getLogger("buffer")

# Three hundred times a message. A batch of such must fit into the memory of Redis.
MAX_EVENT = 1 << 16
# What is kept of an event that is longer.
KEPT = 4096
# Allowed nowhere in JSON.
CUT = b"\x1a"


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

    Of an event of more than `max_event` bytes only the beginning is kept, and made no JSON:
    it takes its place in the stream, and whoever decodes it refuses it.

    >>> parser = EventParser()
    >>> parser.feed(b'id: 1\\ndata: {"a"')
    []
    >>> parser.feed(b':1}\\n\\n: keep-alive\\n\\n')
    [Event(type='message', id='1', data=b'{"a":1}')]
    """

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._rest = b""
        self._max_event = max_event
        self._cut = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes."""
        text = self._rest + chunk
        if b"\r" in text:
            # A CR at the very end may be half of a CRLF: it waits for the next chunk.
            held = b"\r" if text.endswith(b"\r") else b""
            text = text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        end = text.rfind(b"\n\n") + 2 if b"\n\n" in text else 0
        complete, self._rest = text[:end], text[end:]
        if self._cut and complete:
            complete = complete[:KEPT] + CUT + complete[complete.index(b"\n\n", KEPT) :]
            self._cut = False
        if len(self._rest) > self._max_event:
            # The last byte may be half of the event's end, and must not meet another half.
            self._rest = self._rest[:KEPT] + CUT + self._rest[-1:]
            self._warn()
            self._cut = True
        events = self._events(complete)
        if end > self._max_event:
            most = self._max_event
            events = [event if len(event.data) <= most else self._short(event) for event in events]
        return events

    def _short(self, event: Event) -> Event:
        self._warn()
        return msgspec.structs.replace(event, data=event.data[:KEPT] + CUT)

    def _warn(self) -> None:
        if not self._cut:
            log.warning(
                "an event is longer than %d bytes: its beginning is passed on, to be rejected",
                self._max_event,
            )

    @staticmethod
    def _events(complete: bytes) -> list[Event]:
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
