"""The result of storing one batch."""

from collections import Counter

import msgspec


class Result(msgspec.Struct):
    """The counts of one batch. position: the partition's last stored message. received: for each
    time of receipt by the buffer, the number of messages. codes: for each reason code of
    `wire.messages.CODES`, the number of rejected messages.
    """

    position: int
    stored: int = 0
    predicted: int = 0
    waiting: int = 0
    received: Counter[float] = msgspec.field(default_factory=Counter)
    codes: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def rejected(self) -> int:
        return self.codes.total()

    @property
    def dead_letters(self) -> int:
        return self.codes["dead_letter"]

    def __iadd__(self, other: "Result") -> "Result":
        self.position = max(self.position, other.position)
        self.stored += other.stored
        self.predicted += other.predicted
        self.waiting += other.waiting
        self.received += other.received
        self.codes += other.codes
        return self
