"""Parses HL7 messages into facts, according to their type."""

from collections.abc import Callable
from zoneinfo import ZoneInfo

from gateway import adt
from gateway.codes import Codes
from gateway.facts import Fact
from gateway.hl7 import Message, at
from gateway.oru import Observations
from gateway.times import Moment, hl7_moment, now, offset_of

RESULTS = ("R01", "R30", "R31", "R32", "")


class Reader:
    """Parses HL7 messages. authority: the authority of identifiers that name none. unknown: called
    with each unknown code.
    """

    def __init__(
        self, codes: Codes, zone: ZoneInfo, authority: str, unknown: Callable[[str, str], None]
    ) -> None:
        self.zone = zone
        self._authority = authority
        self._observations = Observations(codes, authority, unknown)

    def facts(self, message: Message) -> list[Fact] | None:
        """The facts in the message; None if messages of its type are not used."""
        kind, _, event = message.kind.partition("^")
        mark = message.delimiters.component
        sent = at(message.msh, 7)
        offset = offset_of(sent.partition(mark)[0])

        def clock(text: str) -> Moment | None:
            # The second component of a TS is the precision.
            return hl7_moment(text.partition(mark)[0], self.zone, offset)

        if kind == "ORU" and event in RESULTS:
            return self._observations.facts(message, clock, clock(sent))
        if kind == "ADT" and event in adt.MOVES:
            move = adt.MOVES[event]
            return list(adt.moves(message, move, self._authority, clock, now(self.zone)))
        if kind == "ADT" and event in adt.MERGES:
            return list(adt.merges(message, self._authority, clock, now(self.zone)))
        return None
