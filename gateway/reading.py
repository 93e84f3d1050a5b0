"""HL7 messages as facts: ORU (observations) and ADT (admissions, discharges, transfers).

Source: HL7 2.8.2, chapter 3 (ADT), chapter 7 (ORU), table 0085 (result status).
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple
from zoneinfo import ZoneInfo

from gateway.codes import LOINC, MDC, SYSTEMS, Codes, UnknownUnit
from gateway.facts import Fact, Merged, Move, Moved, Observed, Person, Place, Unusable
from gateway.hl7 import Delimiters, Message, Segment, at, named, part
from gateway.people import identifier, person, place, printable
from gateway.times import Moment, hl7_moment, now, offset_of
from gateway.values import NULL, NotANumber, number

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
RESULTS = ("R01", "R30", "R31", "R32")
# Table 0085. A status that is missing is taken as final, as monitors send it.
_VALUE = ("F", "P", "R", "S", "C", "")
_WITHDRAWN = ("D", "W", "X")
_NO_NEWS = ("I", "N", "O", "U", "V")


class Reader(NamedTuple):
    """Reads HL7 messages. authority: of identifiers that name none. unknown: counts a code."""

    codes: Codes
    zone: ZoneInfo
    authority: str
    unknown: Callable[[str, str], None]

    def facts(self, message: Message) -> list[Fact] | None:
        """What the message says; None for a type of message that is not read."""
        kind, _, event = message.kind.partition("^")
        offset = offset_of(at(message.msh, 7))
        moment = partial(hl7_moment, zone=self.zone, offset=offset)
        if kind == "ORU" and (event in RESULTS or not event):
            return list(self._observations(message, moment))
        if kind == "ADT" and event in MOVES:
            return list(self._moves(message, MOVES[event], moment))
        if kind == "ADT" and event in MERGES:
            return list(self._merges(message, moment))
        return None

    def _observations(
        self, message: Message, moment: Callable[[str], Moment | None]
    ) -> Iterator[Fact]:
        who: Person | None = None
        where: Place | None = None
        filler, obr_time = "", ""
        for segment in message.segments:
            name = segment[0]
            if name == "OBX":
                if who is None:
                    yield Unusable("an OBX without a patient's identifier before it")
                    continue
                yield from self._observation(
                    message, segment, who, where, filler, _first(moment, at(segment, 14), obr_time)
                )
            elif name == "OBR":
                filler = self._filler(message, at(segment, 3)) or filler
                obr_time = at(segment, 7)
            elif name == "ORC":
                filler = self._filler(message, at(segment, 3))
            elif name == "PV1":
                where = place(message, at(segment, 3))
            elif name == "PID":
                who, where = person(message, segment, self.authority), None
                filler, obr_time = "", ""

    def _filler(self, message: Message, field: str) -> str:
        parts = [message.text(text) for text in message.components(field)[:2]]
        return "^".join(parts)[:128] if parts[0] and parts[0] != NULL else ""

    def _observation(
        self,
        message: Message,
        obx: Segment,
        who: Person,
        where: Place | None,
        filler: str,
        when: Moment | None,
    ) -> Iterator[Fact]:
        status, field = message.text(at(obx, 11)).upper(), at(obx, 5)
        withdrawn = status in _WITHDRAWN or field == NULL
        if status in _NO_NEWS or (not field and not withdrawn):
            return
        codings = codings_of(at(obx, 3), message.delimiters, message.charset)
        if not codings:
            yield Unusable("an OBX without a code", who)
            return
        code = codings[0][1]
        if status not in _VALUE and not withdrawn:
            yield Unusable(f"{code}: unknown result status", who)
            return
        try:
            value = None if withdrawn else number(message, at(obx, 2), field)
            found = self.codes.conversion(
                codings, unit_of(at(obx, 6), message.delimiters, message.charset)
            )
        except NotANumber as error:
            yield Unusable(f"{code}: {error}", who)
            return
        except UnknownUnit as error:
            if not withdrawn:
                yield Unusable(f"{code}: unknown unit {printable(str(error))[:32]!r}", who)
                return
            found = None
        if value is None and not withdrawn:
            return
        if when is None:
            when = _first(hl7_zone(self.zone), at(message.msh, 7)) if withdrawn else None
            if when is None:
                yield Unusable(f"{code}: no time with an hour in OBX-14 or OBR-7", who)
                return
        if found is None and value is not None:
            self.unknown(*codings[0])
        sub = message.text(at(obx, 4))[:64]
        source = f"{message.sender}|{filler}" if filler else f"#{who.keys[0]}"
        yield Observed(
            who,
            where,
            f"{source}|{code}|{sub}",
            when,
            found.parameter if found else code,
            None if value is None else (found.of(value) if found else value),
            status == "C" or (withdrawn and bool(filler)),
        )

    def _moves(
        self, message: Message, move: Move, moment: Callable[[str], Moment | None]
    ) -> Iterator[Fact]:
        pid = next(named(message, "PID"), [])
        who = person(message, pid, self.authority)
        if who is None:
            yield Unusable("an ADT message without a patient's identifier")
            return
        pv1, evn = next(named(message, "PV1"), []), next(named(message, "EVN"), [])
        own = {"admit": 44, "discharge": 45}.get(move)
        times = [at(evn, 6), at(pv1, own) if own else "", at(evn, 2), at(message.msh, 7)]
        when = _first(moment, *times) or now(self.zone)
        visit = message.text(message.components(at(pv1, 19))[0])[:64]
        yield Moved(who, move, when, place(message, at(pv1, 3)), "" if visit == NULL else visit)

    def _merges(self, message: Message, moment: Callable[[str], Moment | None]) -> Iterator[Fact]:
        evn = next(named(message, "EVN"), [])
        when = _first(moment, at(evn, 6), at(evn, 2), at(message.msh, 7)) or now(self.zone)
        who: Person | None = None
        found = False
        for segment in message.segments:
            if segment[0] == "PID":
                who = person(message, segment, self.authority)
            elif segment[0] == "MRG":
                found = True
                prior = identifier(message, at(segment, 1), self.authority) or identifier(
                    message, at(segment, 4), self.authority
                )
                if who is None or prior is None:
                    yield Unusable("a merge that does not name both patients", who)
                else:
                    yield Merged(who, Person((prior,)), when)
        if not found:
            yield Unusable("a merge that does not name both patients", who)


def hl7_zone(zone: ZoneInfo) -> Callable[[str], Moment | None]:
    return partial(hl7_moment, zone=zone)


def _first(moment: Callable[[str], Moment | None], *fields: str) -> Moment | None:
    """The moment of the first field that has one."""
    return next((found for field in fields if field and (found := moment(field))), None)


@lru_cache(maxsize=4096)
def codings_of(field: str, delimiters: Delimiters, charset: str) -> list[tuple[str, str]]:
    """(system, code) of a CWE: what is coded first and, beside it, alternatively.

    An MDC code may be a number, a name or both.
    """
    message = Message([], delimiters, charset)
    components = [message.text(text) for text in message.components(field)]
    found: list[tuple[str, str]] = []
    for first in (1, 4):
        code, text, system = (part(components, first + n) for n in range(3))
        system = SYSTEMS.get(system, system)
        names: Iterable[str] = (code, text) if system == MDC else (code,)
        found += [(system, printable(name)) for name in names if printable(name)]
    if found and not found[0][0] and found[0][1].startswith("MDC_"):
        found[0] = MDC, found[0][1]
    # The standard's code goes before the sender's own.
    known = [coding for coding in found if coding[0] in (LOINC, MDC)]
    return known + [coding for coding in found if coding not in known]


@lru_cache(maxsize=4096)
def unit_of(field: str, delimiters: Delimiters, charset: str) -> str:
    """The unit of OBX-6: of an MDC unit its name, else the code."""
    message = Message([], delimiters, charset)
    components = [message.text(text) for text in message.components(field)]
    for text in components[1:2]:
        if text.startswith("MDC_DIM_"):
            return text
    return next((text for text in components[:2] if text), "").strip()
