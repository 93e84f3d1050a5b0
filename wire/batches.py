"""The batches that the buffer sends to the tool, and the partition rule."""

from typing import Annotated
from zlib import crc32

import msgspec
from msgspec import Meta

# Upper limit for `partitions`, so that a damaged position is rejected when it is decoded.
MOST_PARTITIONS = 10_000


class RawMessage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An undecoded message. received: when the buffer read it, in seconds since 1970."""

    seq: int
    received: float
    data: bytes


class Batch(msgspec.Struct, array_like=True):
    """Consecutive messages of one partition. after: the number of the partition's message before
    the first of them; 0 if there is none. partitions: the number of partitions; 0 in a batch
    of an earlier version."""

    stream: str
    part: int
    after: int
    messages: list[RawMessage]
    partitions: int = 0

    @property
    def last(self) -> int:
        return self.messages[-1].seq


class Position(msgspec.Struct):
    """How far the buffer has queued the stream.

    seq: all messages up to this one are queued. parts: the last queued message of each partition.
    ended: whether the stream has ended and the tool has stored all of it. clock: the time of the
    newest queued message on the stream's own clock, in seconds since 1970.
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
    """The partition of a message: `crc32(pat_id) % partitions`, the same for all messages of a
    patient.

    A message without a readable `pat_id` goes to partition 0, where the tool rejects it.

    >>> partition_of(b'{"pat_id":17}', 2) == crc32(b"17") % 2
    True
    """
    try:
        pat_id = _patient.decode(data).pat_id
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return 0
    return partition_of_patient(pat_id, partitions)


def partition_of_patient(pat_id: int, partitions: int) -> int:
    """The partition of all messages of a patient."""
    return crc32(str(pat_id).encode()) % partitions
