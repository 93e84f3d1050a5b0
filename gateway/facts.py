"""What a message says about patients, whatever language it was sent in."""

from typing import Literal

import msgspec

from gateway.times import Moment


class Person(msgspec.Struct, frozen=True):
    """A patient as the sender names him or her. keys: (authority, id), the first one leading.

    born: an ISO date. label: what people call him.
    """

    keys: tuple[tuple[str, str], ...]
    born: str | None = None
    label: str | None = None


class Place(msgspec.Struct, frozen=True):
    """A bed. `unit` decides whether it is one of the ICU's."""

    unit: str
    text: str


class Value(msgspec.Struct, frozen=True, gc=False):
    """One value of one parameter; None: there is none, and an earlier one is withdrawn.

    name: of the observation within its source. corrects: it replaces an earlier value under the
    same name also when that was measured at another time.
    """

    name: str
    parameter: str
    value: float | None
    corrects: bool


class Observed(msgspec.Struct, frozen=True):
    """Values of one patient, measured at one time.

    source: the sender's order or resource; `#` and the patient where the sender names none.
    """

    person: Person
    place: Place | None
    source: str
    at: Moment
    values: list[Value]


def unnamed(person: Person) -> str:
    """The source of observations that the sender gives no name."""
    return f"#{person.keys[0]}"


def is_unnamed(source: str) -> bool:
    return source.startswith("#")


class Replaced(msgspec.Struct, frozen=True):
    """All observations of a source are withdrawn, except those with the names `kept`."""

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
    """A patient came, went or changed bed; or that is cancelled."""

    person: Person
    move: Move
    at: Moment
    place: Place | None = None
    visit: str = ""


class Merged(msgspec.Struct, frozen=True):
    """Two records are of one patient; only `person` goes on."""

    person: Person
    prior: Person
    at: Moment


class Unusable(msgspec.Struct, frozen=True):
    """A part of a message that cannot be used. The reason names no patient."""

    reason: str
    person: Person | None = None


class Unread(Exception):
    """A part of a message that cannot be used; the text is the reason and names no patient."""


Fact = Observed | Replaced | Moved | Merged | Unusable
