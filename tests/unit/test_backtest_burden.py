"""Compares the figures about alarms, such as PPV and lead time, with cases worked by hand."""

import math

import numpy as np
import pytest

from backtest.burden import Burden, burden, curve, thresholds, within_budget
from backtest.paths import Predictions, StayPath
from wire.alarms import Policy, fold

POLICY = Policy(at=0.5, window_hours=(0, 8))
NAN = float("nan")


def path(probability: list[float], observed: float = 24.0, **about: object) -> StayPath:
    """A stay with a prediction every hour, from hour 0."""
    hours = np.arange(len(probability), dtype=float)
    fields = {"event": False, **about}
    return StayPath(hours, np.array(probability), observed, **fields)  # type: ignore[arg-type]


class TestByHand:
    def test_alarms_are_counted_per_patient_day(self) -> None:
        # The two stays have two alarms in 24 + 48 hours.
        stays = [path([0.6, 0.1, 0.6]), path([0.1], observed=48.0)]
        found = burden(stays, POLICY)
        assert found.alarms == 2
        assert found.patient_days == 3
        assert found.per_patient_day == pytest.approx(2 / 3)

    def test_an_event_is_detected_only_in_the_window(self) -> None:
        early = path([0.6] + [0.1] * 11, event=True, event_at=12.0)  # 12 hours before
        right = path([0.1] * 6 + [0.6, 0.1], event=True, event_at=10.0)  # 4 hours before
        late = path([0.1] * 10 + [0.6], event=True, event_at=10.0)  # the alarm is at the event
        found = burden([early, right, late], POLICY)
        assert (found.events, found.detected, found.alarms, found.true_alarms) == (3, 1, 3, 1)
        assert found.sensitivity == pytest.approx(1 / 3)
        assert found.lead_hours == (4.0,)

    def test_ppv_and_nne_count_all_alarms(self) -> None:
        true = path([0.6], event=True, event_at=4.0)
        found = burden([true, path([0.6]), path([0.6, 0.1], observed=2.0)], POLICY)
        assert (found.alarms, found.true_alarms) == (3, 1)
        assert found.ppv == pytest.approx(1 / 3)
        assert found.nne == pytest.approx(3)

    def test_lead_time_is_that_of_the_first_true_alarm(self) -> None:
        stay = path([0.6, 0.1, 0.6, 0.1, 0.6], event=True, event_at=9.0)
        found = burden([stay], POLICY)
        # The alarm at hour 0 is 9 hours before the event, which is too early, so the first true
        # alarm is at hour 2.
        assert found.lead_hours == (7.0,)
        assert (found.detected, found.true_alarms) == (1, 2)

    def test_an_event_without_a_time_counts_in_any_window(self) -> None:
        found = burden([path([0.6, 0.1, 0.6], event=True), path([0.6])], POLICY)
        assert (found.events, found.detected, found.true_alarms) == (1, 1, 2)
        assert found.ppv == pytest.approx(2 / 3)
        assert found.lead_hours == ()

    def test_figures_without_a_denominator_are_nan(self) -> None:
        found = burden([], POLICY)
        for value in (found.per_patient_day, found.sensitivity, found.ppv, found.nne):
            assert math.isnan(value)
        assert math.isnan(burden([path([0.1])], POLICY).median_lead)


@pytest.mark.parametrize("seed", range(40))
def test_vectorized_alarms_equal_those_of_the_rule_for_each_stay(seed: int) -> None:
    draw = np.random.default_rng(seed)
    policy = Policy(
        at=0.5,
        clear=draw.choice([None, 0.3]),
        for_hours=float(draw.choice([0, 2])),
        silence_hours=float(draw.choice([0, 6])),
        again_hours=draw.choice([None, 4.0]),
        learned_hours=draw.choice([None, 20.0]),
    )
    stays = []
    for length in draw.integers(0, 150, 20):
        walk = 0.5 + np.cumsum(draw.normal(0, 0.08, length))
        hours = np.arange(length) / 2 + draw.choice(
            [0.0, -3.0, 1 / 3600], length, p=[0.8, 0.1, 0.1]
        )
        stays.append(StayPath(hours, np.clip(walk, 0, 1), 60.0, event=False))
    for stay, rung in zip(stays, Predictions.of(stays).alarms(policy), strict=True):
        count = len(stay.hours)
        rows = zip(range(count), stay.hours.tolist(), stay.probability.tolist(), strict=True)
        expected = [event.at for event in fold(policy, rows) if event.kind != "clear"]
        assert rung == pytest.approx(expected, abs=1e-9)


def test_a_curve_applies_the_policy_at_each_threshold() -> None:
    stays = [path([0.9], event=True, event_at=4.0), path([0.7]), path([0.3])]
    found = curve(stays, POLICY, [0.8, 0.6, 0.2])
    assert [(point.alarms, point.sensitivity) for point in found] == [(1, 1), (2, 1), (3, 1)]


def test_thresholds_descend_until_each_stay_has_an_alarm() -> None:
    draw = np.random.default_rng(3)
    stays = [path(draw.random(5).tolist()) for _ in range(200)]
    found = thresholds(stays, 20)
    assert found == sorted(found, reverse=True)
    assert found[0] <= 1
    assert all(Predictions.of(stays).alarms(Policy(at=found[-1])))


def test_the_most_sensitive_point_within_the_budget_is_chosen() -> None:
    def point(threshold: float, alarms: int, detected: int) -> Burden:
        return Burden(threshold, alarms, 10.0, 10, detected, detected, ())

    points = [point(0.9, 2, 2), point(0.8, 8, 6), point(0.7, 12, 9)]
    assert within_budget(points, 1.0) is points[1]
    assert within_budget(points, 0.1) is None
