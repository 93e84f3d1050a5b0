"""Facts about patients, in a form that does not depend on the format of the message."""

from typing import Literal

import msgspec

from gateway.times import Moment


class Person(msgspec.Struct, frozen=True):
    """A patient, as identified by the sender.

    keys: identifiers as (authority, id), the primary one first. born: an ISO date. label: the name
    to show on the pages.
    """

    keys: tuple[tuple[str, str], ...]
    born: str | None = None
    label: str | None = None


class Place(msgspec.Struct, frozen=True):
    """A bed. unit: determines whether the bed is in the ICU. text: the name of the bed."""

    unit: str
    text: str


class Value(msgspec.Struct, frozen=True, gc=False):
    """One value of one parameter. A value of None withdraws an earlier value.

    name: identifies the observation within its source. corrects: whether the value replaces an
    earlier value of the same name, even if the time differs.
    """

    name: str
    parameter: str
    value: float | None
    corrects: bool


class Observed(msgspec.Struct, frozen=True):
    """Values of one patient at one time.

    source: identifies the order or the resource; without one, `#` and the patient.
    """

    person: Person
    place: Place | None
    source: str
    at: Moment
    values: list[Value]


def unnamed(person: Person) -> str:
    """The source of observations that belong to no order or resource."""
    return f"#{person.keys[0]}"


def is_unnamed(source: str) -> bool:
    return source.startswith("#")


class Replaced(msgspec.Struct, frozen=True):
    """Withdraws all observations of a source, except those whose names are in `kept`."""

    source: str
    kept: tuple[str, ...] = ()


Move = Literal[
    "admit",
    "transfer",
    "discharge",
    "update",
    "cancel_admit",
    "cancel_transfer",
    "cancel_discharge",
]


class Moved(msgspec.Struct, frozen=True):
    """A patient was admitted, transferred or discharged, such a move was cancelled, or the
    patient's data were updated."""

    person: Person
    move: Move
    at: Moment
    place: Place | None = None
    visit: str = ""


class Merged(msgspec.Struct, frozen=True):
    """Two records belong to the same patient; only `person` remains."""

    person: Person
    prior: Person
    at: Moment


class Unusable(msgspec.Struct, frozen=True):
    """A part of a message is rejected. The reason contains no patient data."""

    reason: str
    person: Person | None = None


class Unread(Exception):
    """A value is rejected. The text is the reason; it contains no patient data."""


Fact = Observed | Replaced | Moved | Merged | Unusable
