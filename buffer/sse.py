"""Parses server-sent events.

Source: WHATWG HTML, section 9.2, "Server-sent events".
"""

import logging
import re

import msgspec

log = logging.getLogger("buffer")

# Maximum bytes of an event; a usual one has about 200. A batch of events must fit into Redis.
MAX_EVENT = 1 << 16
# Number of bytes that are kept of a longer event.
KEPT = 4096
# This byte ends a truncated event. JSON never contains it, so the event cannot be decoded.
CUT = b"\x1a"
BOM = b"\xef\xbb\xbf"


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event, with the fields that the stream uses."""

    type: str
    id: str
    data: bytes


# Almost every event has one id line and one data line. One regular expression over the whole chunk
# takes a quarter of the time that splitting it event by event takes.
_USUAL = re.compile(rb"id: ([^\n]*)\ndata: ([^\n]*)\n\n")
_USUAL_OVERHEAD = len(b"id: \ndata: \n\n")


class EventParser:
    """Parses the chunks of one connection into events. The chunks may be split anywhere.

    An event of more than `max_event` bytes is truncated to invalid JSON. It keeps its place in the
    stream, and the tool rejects it.

    >>> parser = EventParser()
    >>> parser.feed(b'id: 1\\ndata: {"a"')
    []
    >>> parser.feed(b':1}\\n\\n: keep-alive\\n\\n')
    [Event(type='message', id='1', data=b'{"a":1}')]
    """

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._rest = b""
        self._max_event = max_event
        self._started = False
        self._after_cr = False
        self._cut = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Returns the events that `chunk` completes."""
        text = self._rest + self._line_feeds(chunk)
        if not self._started:
            if len(text) < len(BOM) and BOM.startswith(text):
                self._rest = text
                return []
            text = text.removeprefix(BOM)
            self._started = True
        end = text.rfind(b"\n\n") + 2 if b"\n\n" in text else 0
        complete, self._rest = text[:end], text[end:]
        if self._cut and complete:
            complete = complete[:KEPT] + CUT + complete[complete.index(b"\n\n", KEPT) :]
            self._cut = False
        if len(self._rest) > self._max_event:
            # The last byte may be the first of the two line feeds that end the event.
            self._rest = self._rest[:KEPT] + CUT + self._rest[-1:]
            self._warn()
            self._cut = True
        events = self._events(complete)
        if end > self._max_event:
            most = self._max_event
            events = [event if len(event.data) <= most else self._short(event) for event in events]
        return events

    def _line_feeds(self, chunk: bytes) -> bytes:
        """Converts each CR LF and CR to LF, even if a CR LF is split between two chunks."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _short(self, event: Event) -> Event:
        self._warn()
        return msgspec.structs.replace(event, data=event.data[:KEPT] + CUT)

    def _warn(self) -> None:
        if not self._cut:
            log.warning(
                "an event is longer than %d bytes; only its beginning is queued, and the tool "
                "rejects it",
                self._max_event,
            )

    @staticmethod
    def _events(complete: bytes) -> list[Event]:
        usual = _USUAL.findall(complete)
        known = sum([len(id_) + len(data) for id_, data in usual]) + _USUAL_OVERHEAD * len(usual)
        if known == len(complete):  # the chunk has only usual events
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
