"""Compares the alarm rule with cases worked by hand, and with the published rule of circEWS."""

import itertools
import random

import msgspec
import pytest

from wire.alarms import Event, Policy, State, acknowledge, discharge, fold, step


def kinds(policy: Policy, path: list[tuple[float, float]]) -> list[tuple[str, float]]:
    rows = [(seq, at, probability) for seq, (at, probability) in enumerate(path, 1)]
    return [(event.kind, event.at) for event in fold(policy, rows)]


class TestByHand:
    def test_an_alarm_is_raised_at_the_threshold_and_cleared_below_it(self) -> None:
        path = [(0, 0.49), (1, 0.5), (2, 0.9), (3, 0.5), (4, 0.499)]
        assert kinds(Policy(at=0.5), path) == [("raise", 1), ("clear", 4)]

    def test_hysteresis_keeps_the_alarm_between_the_thresholds(self) -> None:
        path = [(0, 0.6), (1, 0.4), (2, 0.3), (3, 0.29), (4, 0.4), (5, 0.6)]
        expected = [("raise", 0), ("clear", 3), ("raise", 5)]
        assert kinds(Policy(at=0.5, clear=0.3), path) == expected

    def test_persistence_starts_again_after_a_value_below_the_threshold(self) -> None:
        path = [(0, 0.6), (1, 0.6), (2, 0.4), (3, 0.6), (4, 0.6), (5, 0.6)]
        assert kinds(Policy(at=0.5, for_hours=2), path) == [("raise", 5)]

    def test_silence_counts_from_the_last_alarm(self) -> None:
        path = [(0, 0.6), (1, 0.1), (2, 0.6), (3.9, 0.6), (4, 0.6)]
        expected = [("raise", 0), ("clear", 1), ("raise", 4)]
        assert kinds(Policy(at=0.5, silence_hours=4), path) == expected

    def test_an_active_alarm_is_raised_again(self) -> None:
        path = [(float(hour), 0.6) for hour in range(10)]
        expected = [("raise", 0), ("again", 4), ("again", 8)]
        assert kinds(Policy(at=0.5, again_hours=4), path) == expected

    def test_a_late_prediction_does_not_turn_the_clock_back(self) -> None:
        path = [(5, 0.6), (1, 0.6), (6, 0.6)]
        assert kinds(Policy(at=0.5, for_hours=1), path) == [("raise", 6)]

    def test_no_alarm_is_raised_beyond_the_learned_hours(self) -> None:
        policy = Policy(at=0.5, again_hours=2, learned_hours=4)
        path = [(2, 0.1), (4, 0.6), (5.9, 0.6), (6, 0.6), (7, 0.1), (8, 0.6)]
        assert kinds(policy, path) == [("raise", 4), ("clear", 7)]
        # The hours count from the stay's earliest prediction, even if it arrives late.
        assert kinds(policy, [(2, 0.1), (0, 0.1), (4, 0.6)]) == []
        assert kinds(policy, [(3, 0.1), (6.9, 0.6)]) == [("raise", 6.9)]

    def test_a_snooze_silences_until_it_is_over_or_the_alarm_ends(self) -> None:
        policy = Policy(at=0.5, again_hours=1)
        state, event = step(policy, State(), 1, 0.0, 0.6)
        assert event is not None
        state = acknowledge(state, 0.5, 3)
        state, event = step(policy, state, 2, 3.0, 0.6)
        assert event is None
        after, event = step(policy, state, 3, 3.5, 0.6)
        assert event is not None
        assert event.kind == "again"
        state, event = step(policy, state, 3, 3.2, 0.1)
        assert event is not None
        assert event.kind == "clear"
        state, event = step(policy, state, 4, 3.3, 0.6)
        assert event is not None
        assert event.kind == "raise"
        assert after.raised == 1

    def test_durations_are_compared_in_whole_seconds(self) -> None:
        ring = 7 + 6 / 60
        for minutes in range(1, 60):
            policy = Policy(at=0.5, for_hours=minutes / 60)
            path = [(ring, 0.6), (7 + (6 + minutes) / 60, 0.6)]
            assert [kind for kind, _ in kinds(policy, path)] == ["raise"], minutes

    def test_silence_still_applies_after_a_discharge_clears_the_alarm(self) -> None:
        policy = Policy(at=0.5, silence_hours=4)
        state, _ = step(policy, State(), 1, 0.0, 0.6)
        state, event = discharge(state, 2, 1.0)
        assert event == Event("clear", 2, 1, 1.0, None)
        state, event = step(policy, state, 3, 3.9, 0.6)
        assert event is None
        state, event = step(policy, state, 4, 4.0, 0.6)
        assert event is not None
        assert event.kind == "raise"

    def test_a_discharge_without_an_alarm_gives_no_event(self) -> None:
        assert discharge(State(), 1, 2.0) == (State(clock=2.0), None)

    def test_an_acknowledgement_without_an_alarm_changes_nothing(self) -> None:
        assert acknowledge(State(), 1.0, 12) == State()


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"at": 1.1},
        {"at": "0.5"},
        {"at": 0.5, "clear": 0.6},
        {"at": 0.5, "for_hours": -1},
        {"at": 0.5, "again_hours": 0},
        {"at": 0.5, "window_hours": [8, 0]},
        {"at": 0.5, "loud": True},
        {"at": 0.5, "revision": 0},
    ],
)
def test_an_invalid_policy_is_rejected(policy: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(policy, Policy)


def circews(path: list[tuple[int, float]], threshold: float, silence: float) -> list[int]:
    """The times of the alarms that the published rule raises, in minutes.

    Hyland et al. 2020, Methods, "Alarm system": an alarm at each time point whose score reaches the
    threshold, unless another one was triggered in the silencing period before it.
    """
    alarms: list[int] = []
    for at, score in path:
        if score >= threshold and all(at - other >= silence for other in alarms):
            alarms.append(at)
    return alarms


def test_the_rule_equals_that_of_circews_on_1000_random_score_paths() -> None:
    draw = random.Random(7)
    alarms = 0
    for _ in range(1000):
        threshold, silence = draw.uniform(0.2, 0.9), draw.choice([0.5, 1.0, 3.0])
        level, path = draw.random(), []
        for at in itertools.accumulate(draw.choice([5, 10, 15, 60]) for _ in range(150)):
            level = min(1.0, max(0.0, level + draw.gauss(0, 0.15)))
            path.append((at, level))
        policy = Policy(at=threshold, silence_hours=silence, again_hours=silence)
        hours = [(at / 60, level) for at, level in path]
        rung = [round(at * 60) for kind, at in kinds(policy, hours) if kind != "clear"]
        expected = circews(path, threshold, silence * 60)
        assert rung == expected
        alarms += len(expected)
    assert alarms > 1000
