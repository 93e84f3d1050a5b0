"""Parses ORU messages into facts about observations.

Source: HL7 2.8.2, chapter 7, and table 0085 (result status).
"""

from collections.abc import Callable, Iterable

import msgspec

from gateway.codes import LOINC, MDC, SYSTEMS, Codes, Conversion, OtherSpecimen, UnknownUnit
from gateway.facts import Fact, Observed, Person, Place, Unread, Unusable, Value, unnamed
from gateway.hl7 import Message, Segment, at, part
from gateway.people import person, place, printable
from gateway.remembered import LONGEST, SIZE
from gateway.times import Clock, Moment
from gateway.values import NULL, number

# A missing status means final, because monitors omit it.
_VALUE = ("F", "P", "R", "S", "C", "")
_WITHDRAWN = ("D", "W", "X")
_NO_NEWS = ("I", "N", "O", "U", "V")
OBX_14 = 14  # the time of the observation
_EMPTY = [""] * (OBX_14 + 1)


class _Meaning(msgspec.Struct, frozen=True):
    """The meaning of an OBX, apart from its value and time.

    name: the name of the observation within its order. problem: the reason why the value is
    rejected. unit_problem: the reason why it is rejected if it is a number. unknown: the code if it
    is unknown.
    """

    name: str = ""
    code: str = ""
    parameter: str = ""
    ignored: bool = False
    withdrawn: bool = False
    corrects: bool = False
    problem: str = ""
    unit_problem: str = ""
    conversion: Conversion | None = None
    unknown: tuple[str, str] | None = None


class _Order(msgspec.Struct):
    """The context that earlier segments give to an OBX: patient, bed, order and time. common: the
    filler number in ORC, which applies to each OBR without one.
    """

    who: Person | None = None
    where: Place | None = None
    common: str = ""
    filler: str = ""
    time: str = ""
    specimen: str = ""


class Observations:
    """Parses ORU messages. authority: the authority of identifiers that name none. unknown: called
    with each unknown code.
    """

    def __init__(self, codes: Codes, authority: str, unknown: Callable[[str, str], None]) -> None:
        self._codes = codes
        self._authority = authority
        self._unknown = unknown
        # A cache, because senders repeat the same codes.
        self._meanings: dict[tuple[str, ...], _Meaning] = {}

    def facts(self, message: Message, clock: Clock, sent: Moment | None) -> list[Fact]:
        """The observations in a message. sent: the time of the message, for withdrawals without
        a time of their own."""
        facts: list[Fact] = []
        order = _Order()
        group: Observed | None = None
        time, own = "", None
        marks, charset = message.delimiters, message.charset
        for segment in message.segments:
            if segment[0] != "OBX":
                order = self._follow(message, segment, order)
                group = None
                continue
            if order.who is None:
                facts.append(Unusable("an OBX without a preceding patient identifier"))
                continue
            fields = segment if len(segment) > OBX_14 else segment + _EMPTY[len(segment) :]
            key = fields[3], fields[4], fields[6], fields[11], order.specimen, charset, *marks
            meaning = self._meanings.get(key) or self._look_up(message, key)
            try:
                value = _value(message, meaning, fields[2], fields[5])
            except Unread as error:
                facts.append(Unusable(str(error), order.who))
                continue
            if value is None:
                continue
            if fields[OBX_14] != time:  # otherwise the time is that of the last OBX
                time = fields[OBX_14]
                own = clock(time)
            when = own
            if value.value is None:
                when = own or clock(order.time) or sent
            elif time in ("", NULL):
                when = clock(order.time)
            if when is None:
                reason = f"{value.parameter}: no time with an hour in OBX-14 or OBR-7"
                facts.append(Unusable(reason, order.who))
                continue
            if meaning.unknown is not None and value.value is not None:
                self._unknown(*meaning.unknown)
            if group is None or group.at != when:
                group = Observed(order.who, order.where, _source(message, order), when, [])
                facts.append(group)
            group.values.append(value)
        return facts

    def _follow(self, message: Message, segment: Segment, order: _Order) -> _Order:
        """Updates the context from a segment other than OBX."""
        name = segment[0]
        if name == "PID":
            return _Order(person(message, segment, self._authority))
        if name == "PV1":
            order.where = place(message, at(segment, 3))
        elif name == "OBR":
            order.filler = _filler(message, at(segment, 3)) or order.common
            order.time = at(segment, 7)
            order.specimen = message.components(at(segment, 15))[0]
        elif name == "ORC":
            order.filler = order.common = _filler(message, at(segment, 3))
        return order

    def _look_up(self, message: Message, key: tuple[str, ...]) -> _Meaning:
        meaning = self._meaning(message, *key[:5])
        if sum(map(len, key)) <= LONGEST:
            if len(self._meanings) >= SIZE:
                self._meanings.clear()
            self._meanings[key] = meaning
        return meaning

    def _meaning(
        self, message: Message, identifier: str, sub: str, unit: str, status: str, specimen: str
    ) -> _Meaning:
        status = message.text(status).upper()
        if status in _NO_NEWS:
            return _Meaning(ignored=True)
        codings = _codings(message, identifier)
        if not codings:
            return _Meaning(problem="an OBX without a code")
        code = codings[0][1]
        conversion, problem, unit_problem = None, "", ""
        if status not in (*_VALUE, *_WITHDRAWN):
            problem = f"{code}: unknown result status"
        try:
            specimen = message.text(specimen)
            conversion = self._codes.conversion(codings, _unit(message, unit), specimen)
        except OtherSpecimen:
            problem = f"{code}: the name of a blood value, but the specimen (OBR-15) is not blood"
        except UnknownUnit as error:
            unit_problem = f"{code}: unknown unit {printable(str(error))[:32]!r}"
        return _Meaning(
            name=f"{code}|{message.text(sub)[:64]}",
            code=code,
            parameter=code if conversion is None else conversion.parameter,
            withdrawn=status in _WITHDRAWN,
            corrects=status == "C",
            problem=problem,
            unit_problem=unit_problem,
            conversion=conversion,
            unknown=None if conversion or unit_problem or problem else codings[0],
        )


def _value(message: Message, meaning: _Meaning, kind: str, field: str) -> Value | None:
    """The value in OBX-5, of the type in OBX-2; None if it is ignored or empty. Raises Unread."""
    if meaning.ignored:
        return None
    if (meaning.withdrawn or field == NULL) and meaning.code:
        return Value(meaning.name, meaning.parameter, None, meaning.corrects)
    if not field and not meaning.withdrawn:
        return None
    if meaning.problem:
        raise Unread(meaning.problem)
    try:
        value = number(message, kind, field)
    except Unread as error:
        raise Unread(f"{meaning.code}: {error}") from None
    if meaning.unit_problem:
        raise Unread(meaning.unit_problem)
    if value is None:
        return None
    if meaning.conversion is not None:
        value = meaning.conversion.of(value)
    return Value(meaning.name, meaning.parameter, value, meaning.corrects)


def _source(message: Message, order: _Order) -> str:
    assert order.who is not None
    return f"{message.sender}|{order.filler}" if order.filler else unnamed(order.who)


def _filler(message: Message, field: str) -> str:
    parts = [message.text(text) for text in message.components(field)[:2]]
    return "^".join(parts)[:128] if parts[0] and parts[0] != NULL else ""


def _codings(message: Message, field: str) -> list[tuple[str, str]]:
    """The primary and the alternative (system, code) of a CWE field.

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
    # A standard code takes precedence over the sender's own.
    known = [coding for coding in found if coding[0] in (LOINC, MDC)]
    return known + [coding for coding in found if coding not in known]


def _unit(message: Message, field: str) -> str:
    """The unit in OBX-6: the name if it is an MDC unit, otherwise the code."""
    components = [message.text(text) for text in message.components(field)]
    for text in components[1:2]:
        if text.startswith("MDC_DIM_"):
            return text
    return next((text for text in components[:2] if text), "").strip()
