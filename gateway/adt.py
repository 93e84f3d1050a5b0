"""Parses ADT messages into facts: admissions, discharges, transfers and merges.

Source: HL7 2.8.2, chapter 3.
"""

from collections.abc import Iterator

from gateway.facts import Fact, Merged, Move, Moved, Person, Unusable
from gateway.hl7 import Message, at, named
from gateway.people import identifier, person, place
from gateway.times import Clock, Moment
from gateway.values import NULL

MOVES: dict[str, Move] = {
    "A01": "admit",
    "A04": "admit",
    "A02": "transfer",
    "A03": "discharge",
    "A08": "update",
    "A28": "update",
    "A31": "update",
    "A11": "cancel_admit",
    "A12": "cancel_transfer",
    "A13": "cancel_discharge",
}
MERGES = ("A34", "A40")


def moves(
    message: Message, move: Move, authority: str, clock: Clock, now: Moment
) -> Iterator[Fact]:
    """Yields the move of a patient, or an Unusable if the message names no patient.

    authority: the authority of identifiers that name none. now: the time of the move if the message
    contains no time.
    """
    who = person(message, next(named(message, "PID"), []), authority)
    if who is None:
        yield Unusable("an ADT message without a patient identifier")
        return
    pv1, evn = next(named(message, "PV1"), []), next(named(message, "EVN"), [])
    own = {"admit": 44, "discharge": 45}.get(move)
    times = [at(evn, 6), at(pv1, own) if own else "", at(evn, 2), at(message.msh, 7)]
    when = _first(clock, *times) or now
    visit = message.text(message.components(at(pv1, 19))[0])[:64]
    yield Moved(who, move, when, place(message, at(pv1, 3)), "" if visit == NULL else visit)


def merges(message: Message, authority: str, clock: Clock, now: Moment) -> Iterator[Fact]:
    """Yields a merge for each MRG, into the patient of the last PID before it.

    Yields an Unusable if one of the two has no identifier, or if there is no MRG.
    """
    evn = next(named(message, "EVN"), [])
    when = _first(clock, at(evn, 6), at(evn, 2), at(message.msh, 7)) or now
    who: Person | None = None
    found = False
    for segment in message.segments:
        if segment[0] == "PID":
            who = person(message, segment, authority)
        elif segment[0] == "MRG":
            found = True
            prior = identifier(message, at(segment, 1), authority) or identifier(
                message, at(segment, 4), authority
            )
            if who is None or prior is None:
                yield Unusable("a merge without identifiers of both patients", who)
            else:
                yield Merged(who, Person((prior,)), when)
    if not found:
        yield Unusable("a merge without identifiers of both patients", who)


def _first(clock: Clock, *fields: str) -> Moment | None:
    """The time in the first of the fields that has one."""
    return next((found for field in fields if field and (found := clock(field))), None)
