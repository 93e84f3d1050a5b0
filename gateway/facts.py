"""Facts about patients, independent of the format of the message."""

from typing import Literal

import msgspec

from gateway.times import Moment


class Person(msgspec.Struct, frozen=True):
    """A patient as identified by the sender.

    keys: (authority, id), the primary one first. born: an ISO date. label: the name for the pages.
    """

    keys: tuple[tuple[str, str], ...]
    born: str | None = None
    label: str | None = None


class Place(msgspec.Struct, frozen=True):
    """A bed. `unit` determines whether it is in the ICU."""

    unit: str
    text: str


class Value(msgspec.Struct, frozen=True, gc=False):
    """One value of one parameter; None withdraws an earlier value.

    name: identifies the observation within its source. corrects: the value replaces an earlier one
    of the same name, even with another time.
    """

    name: str
    parameter: str
    value: float | None
    corrects: bool


class Observed(msgspec.Struct, frozen=True):
    """Values of one patient at one time.

    source: the sender's order or resource, or `#` and the patient if the sender has none.
    """

    person: Person
    place: Place | None
    source: str
    at: Moment
    values: list[Value]


def unnamed(person: Person) -> str:
    """The source of observations without an order or a resource."""
    return f"#{person.keys[0]}"


def is_unnamed(source: str) -> bool:
    return source.startswith("#")


class Replaced(msgspec.Struct, frozen=True):
    """Withdraws all observations of a source except those with the names `kept`."""

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
    """A patient was admitted, transferred or discharged, or one of these was cancelled."""

    person: Person
    move: Move
    at: Moment
    place: Place | None = None
    visit: str = ""


class Merged(msgspec.Struct, frozen=True):
    """Two records belong to one patient; only `person` continues."""

    person: Person
    prior: Person
    at: Moment


class Unusable(msgspec.Struct, frozen=True):
    """A rejected part of a message. The reason contains no patient data."""

    reason: str
    person: Person | None = None


class Unread(Exception):
    """Part of a message is rejected; the text is the reason and contains no patient data."""


Fact = Observed | Replaced | Moved | Merged | Unusable
