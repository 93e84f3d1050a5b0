"""The alarm rule of a model: a fold over the predictions of one stay, in the order of the stream.

An alarm is raised when the probability has been at or above `at` for `for_hours`. It is cleared
by the first probability below `clear`. After an alarm has rung, the next one of the stay is not
raised for `silence_hours`; an alarm that stands rings again every `again_hours`.

Durations are compared to the second, which is the resolution of the stream.

With `clear == at`, `for_hours == 0` and `silence_hours == again_hours` this is the rule of circEWS
(Hyland et al. 2020, https://doi.org/10.1038/s41591-020-0789-4), there with half an hour.
"""

from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

Probability = Annotated[float, Meta(ge=0, le=1)]
Hours = Annotated[float, Meta(ge=0, le=24 * 365)]


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a model's predictions ring. Times are hours of the stream's clock.

    revision: 1 in a manifest; each later rule of the same version of a model has the next number.
    clear: `at` when it is left out. again_hours: null for never. window_hours: an alarm is true
    when the event follows in this time after it.
    """

    revision: Annotated[int, Meta(ge=1)] = 1
    at: Probability
    clear: Probability | None = None
    for_hours: Hours = 0.0
    silence_hours: Hours = 0.0
    again_hours: Annotated[float, Meta(gt=0, le=24 * 365)] | None = None
    window_hours: tuple[Hours, Hours] = (0.0, 48.0)

    def __post_init__(self) -> None:
        if self.clear is not None and self.clear > self.at:
            raise ValueError(f"alarm: clear is {self.clear}, above at, which is {self.at}")
        if self.window_hours[0] >= self.window_hours[1]:
            raise ValueError(f"alarm: window_hours {self.window_hours} are not in order")


class State(NamedTuple):
    """What the rule remembers of a stay. Times are hours, None for never.

    since: the probability has been at or above the threshold since then. raised: the alarm that
    stands, by the message that raised it.
    """

    clock: float = float("-inf")
    since: float | None = None
    raised: int | None = None
    rung_at: float | None = None
    quiet_until: float | None = None


Kind = Literal["raise", "again", "clear"]


class Event(NamedTuple):
    """An alarm is raised, rings again or is cleared, by message `seq`.

    probability: None where a discharge clears it.
    """

    kind: Kind
    seq: int
    raised: int
    at: float
    probability: float | None


def step(
    policy: Policy, state: State, seq: int, at: float, probability: float
) -> tuple[State, Event | None]:
    """Takes in the next prediction of the stay, and returns the state after it.

    seq: the message. at: its time in hours. A late one counts at the clock of the stay.
    """
    clock = max(state.clock, at)
    above = probability >= policy.at
    since = (clock if state.since is None else state.since) if above else None
    state = state._replace(clock=clock, since=since)
    if state.raised is not None:
        return _standing(policy, state, seq, probability)
    quiet = state.quiet_until is not None and clock < state.quiet_until
    if since is None or not _passed(since, clock, policy.for_hours) or quiet:
        return state, None
    if state.rung_at is not None and not _passed(state.rung_at, clock, policy.silence_hours):
        return state, None
    state = state._replace(raised=seq, rung_at=clock, quiet_until=None)
    return state, Event("raise", seq, seq, clock, probability)


def _standing(
    policy: Policy, state: State, seq: int, probability: float
) -> tuple[State, Event | None]:
    raised, clock, rung_at = state.raised, state.clock, state.rung_at
    assert raised is not None
    assert rung_at is not None
    if probability < (policy.at if policy.clear is None else policy.clear):
        state = state._replace(raised=None, quiet_until=None)
        return state, Event("clear", seq, raised, clock, probability)
    due = policy.again_hours is not None and _passed(rung_at, clock, policy.again_hours)
    quiet = state.quiet_until is not None and clock < state.quiet_until
    if not due or quiet or state.since is None:
        return state, None
    return state._replace(rung_at=clock), Event("again", seq, raised, clock, probability)


def _passed(start: float, end: float, hours: float) -> bool:
    return round((end - start) * 3600) >= round(hours * 3600)


def acknowledge(state: State, at: float, snooze_hours: float) -> State:
    """Silences the alarm that stands, for some hours at most; it ends with the alarm."""
    if state.raised is None:
        return state
    return state._replace(quiet_until=max(state.clock, at) + snooze_hours)


def discharge(state: State, seq: int, at: float) -> tuple[State, Event | None]:
    """Ends the alarm that stands, with the stay; after a reopening the silence still holds."""
    clock = max(state.clock, at)
    after = state._replace(clock=clock, since=None, raised=None, quiet_until=None)
    if state.raised is None:
        return after, None
    return after, Event("clear", seq, state.raised, clock, None)


def fold(policy: Policy, predictions: Iterable[tuple[int, float, float]]) -> list[Event]:
    """All events of one stay's predictions: (seq, time in hours, probability) in order.

    >>> path = [(1, 0.0, 0.6), (2, 1.0, 0.7), (3, 2.0, 0.1)]
    >>> [event.kind for event in fold(Policy(at=0.5), path)]
    ['raise', 'clear']
    """
    state, events = State(), []
    for seq, at, probability in predictions:
        state, event = step(policy, state, seq, at, probability)
        if event is not None:
            events.append(event)
    return events
