"""HL7 messages as facts: ORU (observations) and ADT (admissions, discharges, transfers).

Source: HL7 2.8.2, chapter 3 (ADT), chapter 7 (ORU), table 0085 (result status).
"""

from collections.abc import Callable, Iterable, Iterator
from zoneinfo import ZoneInfo

import msgspec

from gateway.codes import LOINC, MDC, SYSTEMS, Codes, Conversion, UnknownUnit
from gateway.facts import (
    Fact,
    Merged,
    Move,
    Moved,
    Observed,
    Person,
    Place,
    Unread,
    Unusable,
    Value,
)
from gateway.hl7 import Delimiters, Message, Segment, at, named, part
from gateway.people import identifier, person, place, printable
from gateway.remembered import remembered
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
STATUS = {
    **dict.fromkeys(("F", "P", "R", "S", ""), "value"),
    "C": "corrected",
    **dict.fromkeys(("D", "W", "X"), "withdrawn"),
    **dict.fromkeys(("I", "N", "O", "U", "V"), "no news"),
}


class _Meaning(msgspec.Struct, frozen=True, eq=False):
    """What an OBX is of, by all of its fields that seldom change.

    name: of the observation within its order. problem: why it cannot be used.
    """

    coding: tuple[str, str]
    name: str
    status: str
    conversion: Conversion | None
    problem: str = ""


class _Order(msgspec.Struct):
    """Where a message's segments before an OBX have led to: patient, bed, order and time."""

    who: Person | None = None
    where: Place | None = None
    filler: str = ""
    time: str = ""


class Reader:
    """Reads HL7 messages. authority: of identifiers that name none. unknown: counts a code."""

    def __init__(
        self, codes: Codes, zone: ZoneInfo, authority: str, unknown: Callable[[str, str], None]
    ) -> None:
        self.zone = zone
        self._codes = codes
        self._authority = authority
        self._unknown = unknown
        # Senders repeat themselves: each code, each number and unit is worked out once.
        self._meaning = remembered(self._look_up)

    def facts(self, message: Message) -> list[Fact] | None:
        """What the message says; None for a type of message that is not read."""
        kind, _, event = message.kind.partition("^")
        offset = offset_of(at(message.msh, 7))

        def moment(text: str) -> Moment | None:
            return hl7_moment(text, self.zone, offset)

        if kind == "ORU" and (event in RESULTS or not event):
            return self._observations(message, moment)
        if kind == "ADT" and event in MOVES:
            return list(self._moves(message, MOVES[event], moment))
        if kind == "ADT" and event in MERGES:
            return list(self._merges(message, moment))
        return None

    def _observations(self, message: Message, moment: Callable[[str], Moment | None]) -> list[Fact]:
        facts: list[Fact] = []
        order = _Order()
        group: Observed | None = None
        for segment in message.segments:
            name = segment[0]
            if name == "OBX":
                if len(segment) < 15:
                    segment = [*segment, *[""] * 15]
                try:
                    when, value = self._observation(message, segment, order, moment)
                except Unread as error:
                    facts.append(Unusable(str(error), order.who))
                    continue
                if value is None:
                    continue
                if group is None or group.at != when:
                    group = self._group(message, order, when)
                    facts.append(group)
                group.values.append(value)
                continue
            group = None
            if name == "OBR":
                order.filler = self._filler(message, at(segment, 3)) or order.filler
                order.time = at(segment, 7)
            elif name == "ORC":
                order.filler = self._filler(message, at(segment, 3))
            elif name == "PV1":
                order.where = place(message, at(segment, 3))
            elif name == "PID":
                order = _Order(person(message, segment, self._authority))
        return facts

    def _group(self, message: Message, order: _Order, when: Moment) -> Observed:
        assert order.who is not None
        named = f"{message.sender}|{order.filler}" if order.filler else f"#{order.who.keys[0]}"
        return Observed(order.who, order.where, named, when, [])

    def _filler(self, message: Message, field: str) -> str:
        parts = [message.text(text) for text in message.components(field)[:2]]
        return "^".join(parts)[:128] if parts[0] and parts[0] != NULL else ""

    def _observation(
        self,
        message: Message,
        obx: Segment,
        order: _Order,
        moment: Callable[[str], Moment | None],
    ) -> tuple[Moment, Value | None]:
        """The time and the value of an OBX; no value where there is none. Raises Unread."""
        if order.who is None:
            raise Unread("an OBX without a patient's identifier before it")
        field, marks, charset = obx[5], message.delimiters, message.charset
        fields = marks.field.join((obx[3], obx[4], obx[6], obx[11]))
        meaning = self._meaning(fields, marks, charset)
        withdrawn = meaning.status == "withdrawn" or field == NULL
        if meaning.status == "no news" or (not field and not withdrawn):
            return "", None
        code = meaning.coding[1]
        if meaning.problem and not (withdrawn and code):
            raise Unread(meaning.problem)
        value = None
        if not withdrawn:
            try:
                value = _value(field, obx[2], meaning.conversion, marks, charset)
            except NotANumber as error:
                raise Unread(f"{code}: {error}") from None
            if value is None:
                return "", None
            if meaning.conversion is None:
                self._unknown(*meaning.coding)
        when = moment(obx[14]) or moment(order.time)
        if when is None and withdrawn:
            when = hl7_moment(message.msh[7], self.zone, "") if len(message.msh) > 7 else None
        if when is None:
            raise Unread(f"{code}: no time with an hour in OBX-14 or OBR-7")
        parameter = meaning.conversion.parameter if meaning.conversion else code
        corrects = meaning.status == "corrected" or (withdrawn and bool(order.filler))
        return when, Value(meaning.name, parameter, value, corrects)

    def _look_up(self, fields: str, delimiters: Delimiters, charset: str) -> _Meaning:
        """fields: OBX-3, 4, 6 and 11."""
        message = Message([], delimiters, charset)
        code_field, sub, unit, status = fields.split(delimiters.field)
        status = STATUS.get(message.text(status).upper(), "")
        codings = codings_of(message, code_field)
        if not codings:
            return _Meaning(("", ""), "", status, None, "an OBX without a code")
        code = codings[0][1]
        name = f"{code}|{message.text(sub)[:64]}"
        try:
            conversion = self._codes.conversion(codings, unit_of(message, unit))
        except UnknownUnit as error:
            problem = f"{code}: unknown unit {printable(str(error))[:32]!r}"
            return _Meaning(codings[0], name, status, None, problem)
        problem = "" if status else f"{code}: unknown result status"
        return _Meaning(codings[0], name, status, conversion, problem)

    def _moves(
        self, message: Message, move: Move, moment: Callable[[str], Moment | None]
    ) -> Iterator[Fact]:
        pid = next(named(message, "PID"), [])
        who = person(message, pid, self._authority)
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
                who = person(message, segment, self._authority)
            elif segment[0] == "MRG":
                found = True
                prior = identifier(message, at(segment, 1), self._authority) or identifier(
                    message, at(segment, 4), self._authority
                )
                if who is None or prior is None:
                    yield Unusable("a merge that does not name both patients", who)
                else:
                    yield Merged(who, Person((prior,)), when)
        if not found:
            yield Unusable("a merge that does not name both patients", who)


@remembered
def _value(
    field: str, kind: str, conversion: Conversion | None, delimiters: Delimiters, charset: str
) -> float | None:
    """The number of an OBX, in the parameter's unit. Raises NotANumber."""
    value = number(Message([], delimiters, charset), kind, field)
    return value if value is None or conversion is None else conversion.of(value)


def _first(moment: Callable[[str], Moment | None], *fields: str) -> Moment | None:
    """The moment of the first field that has one."""
    return next((found for field in fields if field and (found := moment(field))), None)


def codings_of(message: Message, field: str) -> list[tuple[str, str]]:
    """(system, code) of a CWE: what is coded first and, beside it, alternatively.

    An MDC code may be a number, a name or both.
    """
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


def unit_of(message: Message, field: str) -> str:
    """The unit of OBX-6: of an MDC unit its name, else the code."""
    components = [message.text(text) for text in message.components(field)]
    for text in components[1:2]:
        if text.startswith("MDC_DIM_"):
            return text
    return next((text for text in components[:2] if text), "").strip()
