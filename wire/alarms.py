"""The alarm rule of a model, applied to the predictions of one stay in the order of the stream.

An alarm is raised when the probability has been at or above `at` for `for_hours`. It is cleared by
the first probability below `clear`, or by a discharge. For `silence_hours` after an alarm was last
raised or raised again, no other alarm is raised in the stay. While the probability stays at or
above `at`, an active alarm is raised again every `again_hours`, except while an acknowledgement
silences it. A prediction at or after `learned_hours` in the stay can only clear an alarm. For a
score, points / maximum takes the place of the probability.

Durations are rounded to whole seconds, because the times of the stream are whole seconds.

With `clear == at`, `for_hours == 0` and `silence_hours == again_hours == 0.5`, this is the rule of
circEWS (Hyland et al. 2020, https://doi.org/10.1038/s41591-020-0789-4).
"""

from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

Probability = Annotated[float, Meta(ge=0, le=1)]
Hours = Annotated[float, Meta(ge=0, le=24 * 365)]


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The alarm settings of a model. Times are hours of the stream's clock.

    revision: 1 for the rule in the manifest; each later rule of the same version of the model has
    the next number. clear: None means `at`. again_hours: None means never. window_hours: an alarm
    is true if the event occurs between these two times after it. learned_hours: copied from the
    model's manifest; a prediction this long or longer after the stay's first one raises no alarm.
    None means no limit.
    """

    revision: Annotated[int, Meta(ge=1)] = 1
    at: Probability
    clear: Probability | None = None
    for_hours: Hours = 0.0
    silence_hours: Hours = 0.0
    again_hours: Annotated[float, Meta(gt=0, le=24 * 365)] | None = None
    window_hours: tuple[Hours, Hours] = (0.0, 48.0)
    learned_hours: Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        if self.clear is not None and self.clear > self.at:
            raise ValueError(f"alarm: clear ({self.clear}) must not be above at ({self.at})")
        if self.window_hours[0] >= self.window_hours[1]:
            raise ValueError(f"alarm: window_hours {self.window_hours} must be in ascending order")


class State(NamedTuple):
    """The state of the rule for one stay. Times are in hours.

    clock: the latest time that the stay has reached. since: the time when the probability rose to
    the threshold or above; None while it is below. raised: number of the message that raised the
    active alarm; None if there is none. rung_at: the time when an alarm was last raised, or raised
    again. quiet_until: the end of the silence that an acknowledgement started. first: the time of
    the earliest prediction so far.
    """

    clock: float = float("-inf")
    since: float | None = None
    raised: int | None = None
    rung_at: float | None = None
    quiet_until: float | None = None
    first: float | None = None


Kind = Literal["raise", "again", "clear"]


class Event(NamedTuple):
    """Message `seq` raises an alarm, raises it again or clears it.

    raised: number of the message that raised the alarm. at: time in hours. probability: None if a
    discharge clears the alarm.
    """

    kind: Kind
    seq: int
    raised: int
    at: float
    probability: float | None


def step(
    policy: Policy, state: State, seq: int, at: float, probability: float
) -> tuple[State, Event | None]:
    """Applies the next prediction of the stay; returns the new state and the event, if any.

    seq: the message's number. at: its time in hours. A late prediction counts at the latest time
    that its stay has reached.
    """
    clock = max(state.clock, at)
    above = probability >= policy.at
    since = (clock if state.since is None else state.since) if above else None
    first = at if state.first is None else min(state.first, at)
    state = state._replace(clock=clock, since=since, first=first)
    if state.raised is not None:
        return _step_active(policy, state, seq, probability)
    quiet = state.quiet_until is not None and clock < state.quiet_until
    if since is None or not _passed(since, clock, policy.for_hours) or quiet:
        return state, None
    if not _learned(policy, state):
        return state, None
    if state.rung_at is not None and not _passed(state.rung_at, clock, policy.silence_hours):
        return state, None
    state = state._replace(raised=seq, rung_at=clock, quiet_until=None)
    return state, Event("raise", seq, seq, clock, probability)


def _step_active(
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
    if not due or quiet or state.since is None or not _learned(policy, state):
        return state, None
    return state._replace(rung_at=clock), Event("again", seq, raised, clock, probability)


def _learned(policy: Policy, state: State) -> bool:
    if policy.learned_hours is None or state.first is None:
        return True
    return not _passed(state.first, state.clock, policy.learned_hours)


def _passed(start: float, end: float, hours: float) -> bool:
    return round((end - start) * 3600) >= round(hours * 3600)


def acknowledge(state: State, at: float, snooze_hours: float) -> State:
    """Silences the active alarm, if there is one, for `snooze_hours` or until it is cleared.

    at: time of the acknowledgement in hours. If it is before the latest time of the stay, the
    latest time is used.
    """
    if state.raised is None:
        return state
    return state._replace(quiet_until=max(state.clock, at) + snooze_hours)


def discharge(state: State, seq: int, at: float) -> tuple[State, Event | None]:
    """Clears the active alarm, if there is one, at a discharge; returns the new state and the
    event, if any. `silence_hours` still applies if the stay is reopened."""
    clock = max(state.clock, at)
    after = state._replace(clock=clock, since=None, raised=None, quiet_until=None)
    if state.raised is None:
        return after, None
    return after, Event("clear", seq, state.raised, clock, None)


def fold(policy: Policy, predictions: Iterable[tuple[int, float, float]]) -> list[Event]:
    """Returns the events of one stay. predictions: (seq, time in hours, probability), in order.

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
