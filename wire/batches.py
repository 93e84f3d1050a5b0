"""Batches of raw messages on their way from the buffer to the tool, and the partition rule."""

from typing import Annotated
from zlib import crc32

import msgspec
from msgspec import Meta

# A damaged position may ask for this many partitions at most.
MOST_PARTITIONS = 10_000


class RawMessage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message as it came: `received` is when the buffer read it, in seconds since 1970."""

    seq: int
    received: float
    data: bytes


class Batch(msgspec.Struct, array_like=True):
    """One partition's next messages. `after` is the last message of the batch before."""

    stream: str
    part: int
    after: int
    messages: list[RawMessage]

    @property
    def last(self) -> int:
        return self.messages[-1].seq


class Position(msgspec.Struct):
    """How far the buffer has read: the last message of the stream, and of each partition.

    clock: measuring time of the newest message queued, in seconds since 1970 of the stream's
    own clock.
    """

    stream: str
    seq: Annotated[int, Meta(ge=0)]
    parts: dict[int, int]
    partitions: Annotated[int, Meta(ge=1, le=MOST_PARTITIONS)]
    ended: bool = False
    clock: float | None = None


class _Patient(msgspec.Struct):
    pat_id: int


_patient = msgspec.json.Decoder(_Patient)


def partition_of(data: bytes | str, partitions: int) -> int:
    """The partition of a message: `crc32(pat_id) % partitions`, so that a patient has one.

    A message without a readable patient goes to partition 0, where the tool rejects it.

    >>> partition_of(b'{"pat_id":17}', 2) == crc32(b"17") % 2
    True
    """
    try:
        pat_id = _patient.decode(data).pat_id
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return 0
    return crc32(str(pat_id).encode()) % partitions
