"""Parses FHIR R4 resources into facts."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import msgspec

from gateway import metrics
from gateway.codes import LOINC, MDC, SYSTEMS, Codes, UnknownUnit
from gateway.facts import (
    Fact,
    Merged,
    Moved,
    Observed,
    Person,
    Place,
    Replaced,
    Unread,
    Unusable,
    Value,
)
from gateway.fhir_types import (
    Concept,
    Encounter,
    Identifier,
    Observation,
    Patient,
    Reference,
    Resource,
    Valued,
)
from gateway.people import PERSONAL, is_placeholder, printable
from gateway.times import Moment, fhir_moment, now

Keys = tuple[tuple[str, str], ...]
# The identifier system of the ids that the sender's server gives to resources.
LOCAL = "fhir"
_VALUE = ("preliminary", "final", "amended", "corrected", "unknown")
_WITHDRAWN = ("entered-in-error", "cancelled")
_PRESENT = ("arrived", "triaged", "in-progress", "onleave")


class Invalid(Exception):
    """The resource lacks a required element. The text names the element."""


class FhirReader(NamedTuple):
    """Parses resources. entries: the keys of the patients in the same Bundle, by fullUrl."""

    codes: Codes
    zone: ZoneInfo
    entries: Mapping[str, Keys] = {}

    def facts(self, resource: Resource) -> Iterator[Fact]:
        """The facts in the resource. Raises Invalid."""
        if isinstance(resource, Observation):
            return self._observation(resource)
        if isinstance(resource, Encounter):
            return self._encounter(resource)
        return self._patient(resource)

    def _observation(self, resource: Observation) -> Iterator[Fact]:
        who = self._person(resource.subject, "Observation.subject")
        source = _name_of("Observation", resource.id, resource.identifier)
        if resource.status in _WITHDRAWN:
            yield Replaced(source)
            return
        if resource.status not in _VALUE:
            return
        when = self._time(resource)
        if when is None:
            yield Unusable("an Observation without a time of day in effective[x] or issued", who)
            return
        values: list[Value] = []
        names: Counter[str] = Counter()
        for each in (resource, *resource.component):
            try:
                value = self._value(each)
            except Unread as error:
                yield Unusable(str(error), who)
                continue
            if value is None:
                continue
            names[value.name] += 1
            if (number := names[value.name]) > 1:
                # Otherwise a second component of the same code would replace the first one.
                value = msgspec.structs.replace(value, name=f"{value.name}#{number}")
            values.append(value)
        yield Replaced(source, tuple(value.name for value in values))
        if values:
            yield Observed(who, None, source, when, values)

    def _time(self, resource: Observation) -> Moment | None:
        """The time of an Observation; None if it has no time of day. `issued` counts only without
        effective[x], because it may be days later."""
        period, timing = resource.effective_period, resource.effective_timing
        effective = (
            *(resource.effective_date_time, resource.effective_instant),
            *((period.end, period.start) if period else ()),
        )
        if any(effective) or timing is not None:
            return self._first(*effective)
        return self._first(resource.issued)

    def _value(self, of: Valued) -> Value | None:
        """The value of an Observation or a component; None if it has none. Raises Unread."""
        codings = _codings(of.code)
        code = codings[0][1] if codings else ""
        quantity = of.value_quantity
        if quantity is not None and quantity.value is not None:
            value, unit = quantity.value, quantity.code or quantity.unit
        elif of.value_integer is not None:
            value, unit = float(of.value_integer), ""
        elif any(other is not None for other in of.others):
            raise Unread(f"{code or 'a value'}: is not a number")
        else:
            return None
        if not code:
            raise Unread("an Observation without a code")
        if of.data_absent_reason is not None:
            raise Unread(f"{code}: has both a value and a dataAbsentReason")
        if quantity is not None and quantity.comparator:
            raise Unread(f"{code}: '{quantity.comparator[:2]}{value:g}' is a bound")
        if not math.isfinite(value) or abs(value) > 1e100:
            raise Unread(f"{code}: the number is too large")
        try:
            conversion = self.codes.conversion(codings, unit)
        except UnknownUnit:
            raise Unread(f"{code}: unknown unit {printable(unit)[:32]!r}") from None
        if conversion is None:
            metrics.unknown_code(*codings[0])
            return Value(code, code, value, corrects=True)
        return Value(code, conversion.parameter, conversion.of(value), corrects=True)

    def _encounter(self, resource: Encounter) -> Iterator[Fact]:
        who = self._person(resource.subject, "Encounter.subject")
        visit = (resource.id or next((i.value for i in resource.identifier), ""))[:64]
        period = resource.period
        starts = [period.start if period else "", *self._present_since(resource)]
        start = self._since(*starts)
        end = self._end(period.end if period else "")
        if resource.status in _WITHDRAWN:
            yield Moved(who, "cancel_admit", end, None, visit)
            return
        if resource.status not in (*_PRESENT, "finished"):
            return
        # Sorted by time, so that an Encounter with the whole history gives the same stays as
        # several Encounters with its parts.
        located = sorted(
            (since, place)
            for location in resource.location
            if location.status not in ("planned", "reserved")
            and (place := _place(location.location))
            and (since := self._since(location.period.start if location.period else "") or start)
        )
        for number, (since, place) in enumerate(located):
            yield Moved(who, "transfer" if number else "admit", since, place, visit)
        if not located and start is not None:
            yield Moved(who, "admit", start, None, visit)
        elif not located and resource.status != "finished":
            yield Unusable("an Encounter without a day in period.start", who)
        if resource.status == "finished":
            yield Moved(who, "discharge", end, None, visit)

    def _since(self, *texts: str) -> Moment | None:
        """The first of the texts that has a day, as the beginning of a period."""
        found = (f"{text} 00:00:00" if _is_date(text) else self._first(text) for text in texts)
        return next((moment for moment in found if moment), None)

    def _end(self, text: str) -> Moment:
        """The end of a period. A date includes the whole day, up to now; without a day, the period
        ends now."""
        at = now(self.zone)
        if not _is_date(text):
            return self._first(text) or at
        return at if text == at[:10] else f"{text} 23:59:59"

    def _present_since(self, resource: Encounter) -> list[str]:
        return [h.period.start for h in resource.status_history if h.status in _PRESENT]

    def _patient(self, resource: Patient) -> Iterator[Fact]:
        born = resource.birth_date if _is_date(resource.birth_date) else None
        who = Person(patient_keys(resource), born, _label(resource))
        if not who.keys:
            raise Invalid("Patient.identifier: an id or an identifier is required")
        at = now(self.zone)
        replaced = False
        for link in resource.link:
            if link.type == "replaced-by":
                replaced = True
                yield Merged(self._person(link.other, "Patient.link.other"), who, at)
            elif link.type == "replaces":
                yield Merged(who, self._person(link.other, "Patient.link.other"), at)
        if not replaced:
            yield Moved(who, "update", at)

    def _person(self, reference: Reference | None, path: str) -> Person:
        """Finds the patient of a reference: in the same Bundle, by id or by identifier. Raises
        Invalid with `path` if the reference names no patient."""
        if reference is not None:
            text = reference.reference
            if text in self.entries:
                return Person(self.entries[text])
            if text.startswith("Patient?"):
                system, _, value = (
                    parse_qs(urlsplit(text).query).get("identifier", [""])[0].rpartition("|")
                )
                if not is_placeholder(value):
                    return Person(((system[:128], value[:128]),))
            if "Patient/" in text:
                identifier = text.rpartition("Patient/")[2].partition("/")[0]
                if identifier:
                    return Person(((LOCAL, f"Patient/{identifier[:100]}"),))
            named = reference.identifier
            if named is not None and not is_placeholder(named.value.strip()):
                return Person(((named.system[:128], named.value[:128]),))
        raise Invalid(f"{path}: a reference to a Patient is required")

    def _first(self, *texts: str) -> Moment | None:
        moments = (fhir_moment(text, self.zone) for text in texts if text)
        return next((moment for moment in moments if moment), None)


def patient_keys(patient: Patient) -> Keys:
    """The keys of a patient. The identifiers come first, because HL7 senders use them too; old and
    temporary ones are ignored, and those that may be shared by several patients.
    """
    keys = [
        (identifier.system[:128], identifier.value[:128])
        for identifier in patient.identifier
        if identifier.use not in ("old", "temp") and _is_personal(identifier)
    ]
    if patient.id:
        keys.append((LOCAL, f"Patient/{patient.id[:100]}"))
    return tuple(dict.fromkeys(keys))


def _is_personal(identifier: Identifier) -> bool:
    """Whether an identifier belongs to one person, according to its type. The members of a family
    may share an insurance number, and patients with a common identifier are one patient here."""
    if is_placeholder(identifier.value.strip()):
        return False
    codings = identifier.type.coding if identifier.type else ()
    types = [coding.code.upper() for coding in codings if coding.system.endswith("v2-0203")]
    return not types or any(code in PERSONAL for code in types)


def _name_of(kind: str, id: str, identifiers: tuple[Identifier, ...]) -> str:
    """The name of a resource: its id or, if it has none, its first identifier. Raises Invalid if it
    has neither."""
    if id:
        return f"{kind}/{id[:100]}"
    for identifier in identifiers:
        if identifier.value:
            return f"{kind}?{identifier.system[:128]}|{identifier.value[:128]}"
    raise Invalid(f"{kind}.id: an id or an identifier is required")


def _codings(concept: Concept) -> list[tuple[str, str]]:
    found = [
        (SYSTEMS.get(coding.system, coding.system), printable(coding.code))
        for coding in concept.coding
        if printable(coding.code)
    ]
    # A standard code takes precedence over the sender's own.
    return sorted(found, key=lambda coding: coding[0] not in (LOINC, MDC))


def _place(reference: Reference) -> Place | None:
    text = printable(reference.display or reference.reference.rpartition("/")[2])
    return Place(text.partition(" ")[0], text) if text else None


def _is_date(text: str) -> bool:
    return len(text) == 10 and fhir_moment(f"{text}T00:00:00Z", ZoneInfo("UTC")) is not None


def _label(patient: Patient) -> str | None:
    for name in patient.name:
        text = name.text or f"{name.family}, {' '.join(name.given)}".strip(" ,")
        if printable(text):
            return printable(text)
    return None
