"""MLLP: extracts the frames of HL7 messages from chunks of bytes that may be split anywhere.

Source: HL7 Minimal Lower Layer Protocol, release 1: <VT> message <FS><CR>.
"""

import re

import msgspec

VT, FS, CR = b"\x0b", b"\x1c", b"\r"
# If a sender omits the CR, a frame ends where the next one starts.
_END = re.compile(rb"\x1c[\r\x0b]")
# A sender that interrupted a message starts again with one of these.
_BEGIN = re.compile(rb"\x0b(?=MSH|FHS|BHS)")
# White space between frames. It does not include VT, which Python's `strip` would remove too.
_BLANK = b" \t\r\n"
# Bytes that are kept of a frame that is too long; they include its MSH.
HEAD = 4096


class Frame(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """The bytes between VT and FS, or the beginning of a frame that is too long.

    incomplete: true if the end of the frame has not arrived.
    """

    content: bytes
    too_long: bool = False
    incomplete: bool = False


def wrap(content: bytes) -> bytes:
    """Puts the content into a frame.

    >>> wrap(b"MSH|")
    b'\\x0bMSH|\\x1c\\r'
    """
    return VT + content + FS + CR


class FrameReader:
    """Splits the bytes of one connection into frames.

    An FS or CR on its own belongs to the message. Bytes outside a frame are skipped, unless they
    end like a frame, because then the sender waits for an answer.

    >>> reader = FrameReader(1 << 20)
    >>> reader.feed(b"\\x0bMSH|^~")
    []
    >>> reader.feed(b"\\\\&\\x1c\\r\\r\\n")
    [Frame(content=b'MSH|^~\\\\&')]
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._head = b""  # the beginning of a frame that is longer than the limit
        self._scanned = 0

    @property
    def partial(self) -> bool:
        """Whether a frame has started but not ended."""
        return bool(self._head or self._rest.strip(_BLANK))

    def feed(self, chunk: bytes) -> list[Frame]:
        """Returns the frames that `chunk` completes."""
        self._rest += chunk
        frames = []
        begin = 0
        while end := _END.search(self._rest, max(begin, self._scanned - 1)):
            content = bytes(self._rest[begin : end.start()])
            # A VT that ends this frame starts the next one.
            begin = end.end() if end[0] == FS + CR else end.end() - 1
            self._scanned = begin
            if (frame := self._frame(content)) is not None:
                frames.append(frame)
        del self._rest[:begin]
        self._scanned = len(self._rest)
        if self._scanned > self._limit:
            self._head = self._head or bytes(self._rest[:HEAD])
            # The last byte may be the FS that ends the frame.
            del self._rest[:-1]
            self._scanned = 1
        return frames

    def _frame(self, content: bytes) -> Frame | None:
        if self._head:
            head, self._head = self._head, b""
            return Frame(_message(head), too_long=True)
        if len(content) > self._limit:
            return Frame(_message(content[:HEAD]), too_long=True)
        if not content.strip(_BLANK):
            return None
        return Frame(_message(content))


def _message(content: bytes) -> bytes:
    """Drops the part of the content before the last start of a message."""
    if content.rfind(VT) <= 0:  # the usual case
        return content[1:] if content[:1] == VT else content.strip(_BLANK)
    begins = [match.end() for match in _BEGIN.finditer(content)]
    return content[begins[-1] :] if begins else content.partition(VT)[2]
