"""The parts of FHIR R4 resources that the gateway reads.

All other fields are ignored. Source: http://hl7.org/fhir/R4/.
"""

from typing import Any

import msgspec


class _Struct(msgspec.Struct, frozen=True, rename="camel"):
    """Base class whose fields have their FHIR names in JSON."""


class Coding(_Struct, frozen=True):
    system: str = ""
    code: str = ""


class Concept(_Struct, frozen=True):
    coding: tuple[Coding, ...] = ()
    text: str = ""


class Identifier(_Struct, frozen=True):
    system: str = ""
    value: str = ""
    use: str = ""
    type: Concept | None = None


class Reference(_Struct, frozen=True):
    reference: str = ""
    identifier: Identifier | None = None
    display: str = ""


class Period(_Struct, frozen=True):
    start: str = ""
    end: str = ""


class Quantity(_Struct, frozen=True):
    value: float | None = None
    comparator: str = ""
    unit: str = ""
    code: str = ""


class Valued(_Struct, frozen=True, kw_only=True):
    """An Observation or a component of one. Only quantities and integers are read as values."""

    code: Concept
    value_quantity: Quantity | None = None
    value_integer: int | None = None
    value_string: str | None = None
    value_boolean: Any = None
    value_codeable_concept: Any = None
    value_date_time: Any = None
    value_period: Any = None
    value_range: Any = None
    value_ratio: Any = None
    value_sampled_data: Any = None
    value_time: Any = None
    data_absent_reason: Any = None

    @property
    def others(self) -> tuple[Any, ...]:
        """The values of types that are not a number; None for each absent type."""
        return (
            *(self.value_string or None, self.value_boolean, self.value_codeable_concept),
            *(self.value_date_time, self.value_period, self.value_range, self.value_ratio),
            *(self.value_sampled_data, self.value_time),
        )


class Component(Valued, frozen=True):
    """A component of an Observation."""


class Observation(Valued, frozen=True, tag_field="resourceType", tag="Observation"):
    status: str
    id: str = ""
    identifier: tuple[Identifier, ...] = ()
    subject: Reference | None = None
    effective_date_time: str = ""
    effective_instant: str = ""
    effective_period: Period | None = None
    effective_timing: Any = None
    issued: str = ""
    component: tuple[Component, ...] = ()


class StatusHistory(_Struct, frozen=True):
    status: str
    period: Period


class Location(_Struct, frozen=True):
    location: Reference
    status: str = ""
    period: Period | None = None


class Encounter(_Struct, frozen=True, tag_field="resourceType", tag="Encounter"):
    status: str
    id: str = ""
    identifier: tuple[Identifier, ...] = ()
    subject: Reference | None = None
    period: Period | None = None
    location: tuple[Location, ...] = ()
    status_history: tuple[StatusHistory, ...] = ()


class HumanName(_Struct, frozen=True):
    family: str = ""
    given: tuple[str, ...] = ()
    text: str = ""


class Link(_Struct, frozen=True):
    other: Reference
    type: str


class Patient(_Struct, frozen=True, tag_field="resourceType", tag="Patient"):
    id: str = ""
    identifier: tuple[Identifier, ...] = ()
    name: tuple[HumanName, ...] = ()
    birth_date: str = ""
    link: tuple[Link, ...] = ()


Resource = Observation | Encounter | Patient
TYPES = ("Observation", "Encounter", "Patient")


class Request(_Struct, frozen=True):
    method: str
    url: str = ""


class Entry(_Struct, frozen=True):
    full_url: str = ""
    resource: msgspec.Raw = msgspec.Raw(b"null")
    request: Request | None = None


class Bundle(_Struct, frozen=True):
    resource_type: str
    type: str
    entry: tuple[Entry, ...] = ()


class _Kind(msgspec.Struct):
    kind: str = msgspec.field(name="resourceType", default="")


def kind_of(resource: bytes) -> str:
    """The type of a resource in JSON; empty if it has none."""
    try:
        return msgspec.json.decode(resource, type=_Kind).kind
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
