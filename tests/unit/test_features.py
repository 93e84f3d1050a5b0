"""Tests the streaming features: statistics, windows, and the reasons for missing values."""

import random
from dataclasses import astuple
from fractions import Fraction

import pytest

import tool.acknowledge
import tool.features
import tool.statistics
import tool.times
from tool.aggregates import Value, windowed
from tool.features import FeatureSet, Stay
from tool.statistics import Statistics
from wire.features import Feature

FORMULA = (
    Feature.parse("age", required=True),
    Feature.parse("last_blood_pressure", required=True),
    Feature.parse("rmean_respiration_rate", required=True),
    Feature.parse("standard_deviation_temperature", fill=0.0),
)


def parsed(*names: str) -> FeatureSet:
    return FeatureSet(Feature.parse(name) for name in names)


def after(model: FeatureSet, *readings: tuple[float, str, float], age: float | None = 60.0) -> Stay:
    stay = Stay(model.windows, age=age)
    for at, parameter, value in readings:
        stay.add(at, parameter, value)
    return stay


def test_a_feature_cannot_be_declared_twice() -> None:
    with pytest.raises(ValueError, match="feature 'hr__min'"):
        parsed("hr__min", "hr__max", "hr__min")


class TestRow:
    def test_the_row_of_the_formula_has_its_four_values(self) -> None:
        model = FeatureSet(FORMULA)
        stay = after(model, (7, "blood_pressure", 120.0), (8, "respiration_rate", 12.0))
        stay.add(9, "respiration_rate", 18.0)
        stay.add(9, "temperature", 36.0)
        assert model.row(stay) == [60.0, 120.0, 15.0, 0.0]
        stay.add(10, "temperature", 38.0)
        stay.add(11, "blood_pressure", 90.0)
        assert model.row(stay) == [60.0, 90.0, 15.0, 2**0.5]

    def test_a_late_reading_counts_at_its_time(self) -> None:
        model = parsed("hr__last", "hr__first", "hr__delta", "hr__trend", "hr__age", "hr__count")
        stay = after(model, (7, "hr", 100.0), (9, "hr", 104.0), (8, "hr", 102.0), (6, "hr", 98.0))
        assert stay.clock == 9
        assert model.row(stay) == [104.0, 98.0, 6.0, 2.0, 0.0, 4]

    def test_at_equal_times_the_later_message_is_last_and_the_earlier_first(self) -> None:
        model = parsed("hr__last", "hr__first", "hr__last__6h", "hr__first__6h", "hr__trend")
        stay = after(model, (7, "hr", 1.0), (7, "hr", 2.0), (7, "hr", 3.0))
        assert model.row(stay) == [3.0, 1.0, 3.0, 1.0, None]

    def test_a_window_excludes_its_beginning(self) -> None:
        model = parsed("hr__count__6h", "hr__age__6h", "hr__mean__6h", "hr__age")
        stay = after(model, (1, "hr", 80.0), (6.5, "rr", 12.0))
        assert model.row(stay) == [1, 5.5, 80.0, 5.5]
        stay.add(7, "rr", 12.0)
        assert model.row(stay) == [0, None, None, 6.0]

    def test_window_edges_are_exact_for_every_second(self) -> None:
        model = parsed("hr__count__6h", "hr__age__6h")
        for second in range(3600):
            stay = after(model, (second / 3600, "hr", 80.0))
            stay.add((second + 6 * 3600 - 1) / 3600, "rr", 12.0)
            assert model.row(stay)[0] == 1, second
            stay.add((second + 6 * 3600) / 3600, "rr", 12.0)
            assert model.row(stay) == [0, None], second

    def test_a_late_reading_outside_the_window_is_not_in_it(self) -> None:
        model = parsed("hr__count__6h", "hr__count")
        stay = after(model, (20, "rr", 12.0), (14, "hr", 80.0), (14.5, "hr", 80.0))
        assert model.row(stay) == [1, 2]

    def test_fill_replaces_a_value_that_is_missing_or_has_expired(self) -> None:
        model = FeatureSet([Feature.parse("hr__max__6h", fill=-1.0)])
        stay = after(model)
        assert model.row(stay) == [-1.0]
        stay.add(1, "hr", 80.0)
        assert model.row(stay) == [80.0]
        stay.add(9, "rr", 12.0)
        assert model.row(stay) == [-1.0]

    def test_the_age_can_become_known_later(self) -> None:
        model = parsed("age")
        stay = after(model, age=None)
        assert model.row(stay) == [None]
        stay.age = 50.0
        assert model.row(stay) == [50.0]

    def test_the_hour_counts_from_the_earliest_reading_of_any_parameter(self) -> None:
        model = parsed("hour")
        stay = after(model, (7, "of no model", 1.0), (9.5, "hr", 80.0))
        assert model.row(stay) == [2.5]
        stay.add(6, "rr", 12.0)  # late
        assert model.row(stay) == [3.5]
        del stay.statistics["rr"]
        stay.reset_clock()
        assert model.row(stay) == [2.5]
        assert model.row(after(model)) == [None]

    def test_changing_a_returned_row_does_not_change_the_next_row(self) -> None:
        model = parsed("hr__last")
        stay = after(model, (1, "hr", 80.0))
        model.row(stay)[0] = None
        assert model.row(stay) == [80.0]

    def test_equal_values_have_a_deviation_and_a_trend_of_exactly_0(self) -> None:
        model = parsed("t__std", "t__trend", "t__std__6h", "t__trend__6h")
        stay = after(model, *((at / 10, "t", 36.795) for at in range(70)))
        assert model.row(stay) == [0.0, 0.0, 0.0, 0.0]

    def test_several_models_can_read_the_same_stay(self) -> None:
        champion, shadow = parsed("hr__min__2h"), parsed("hr__min__6h", "rr__max__4h")
        windows = FeatureSet([*champion.features, *shadow.features]).windows
        assert windows == {"hr": 6, "rr": 4}
        stay = Stay(windows)
        for at, value in [(1.0, 60.0), (5.0, 80.0)]:
            stay.add(at, "hr", value)
        assert (champion.row(stay), shadow.row(stay)) == ([80.0], [60.0, None])

    def test_recalled_readings_change_the_next_row(self) -> None:
        model = parsed("hr__max__6h")
        stay = Stay(model.windows, statistics=after(model, (5, "hr", 80.0)).statistics)
        assert model.row(stay) == [None]
        stay.recall("hr", [(-2.0, 300.0), (4.0, 90.0), (5.0, 80.0)])
        assert model.row(stay) == [90.0]


def test_a_reset_clock_goes_back_and_drops_the_cached_row() -> None:
    model = parsed("hr__count", "rr__age", "hr__max__6h")
    stay = after(model, (5, "hr", 80.0), (6, "rr", 12.0), (20, "hr", 90.0))
    assert model.row(stay) == [2, 14.0, 90.0]
    stay.statistics["hr"] = after(model, (5, "hr", 80.0)).statistics["hr"]
    stay.reset_clock()
    stay.recall("hr", [(5, 80.0)])
    stay.add(7, "hr", 70.0)  # the number of readings is the same as before
    assert model.row(stay) == [2, 1.0, 80.0]


class TestMissing:
    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("age", "no age"),
            ("blood_pressure__last", "no blood_pressure yet"),
            ("hr__min__6h", "no hr in the last 6 h"),
            ("hr__std", "fewer than two values of hr yet"),
            ("hr__trend__12h", "hr at fewer than two times in the last 12 h"),
        ],
    )
    def test_the_reason_names_the_missing_feature(self, name: str, reason: str) -> None:
        model = FeatureSet([Feature.parse("rr__last"), Feature.parse(name, required=True)])
        assert model.missing(model.row(after(model, age=None))) == reason

    def test_the_reason_is_that_of_the_first_missing_feature(self) -> None:
        model = FeatureSet(FORMULA)
        stay = after(model)
        assert model.missing(model.row(stay)) == "no blood_pressure yet"
        stay.add(1, "blood_pressure", 120.0)
        assert model.missing(model.row(stay)) == "no respiration_rate yet"
        stay.add(1, "respiration_rate", 12.0)
        assert model.missing(model.row(stay)) is None


@pytest.mark.parametrize("noise", [10.0, 1.0, 1e-3])
@pytest.mark.parametrize("level", [0.0, 37.0, 1e6, -1e9])
def test_a_small_spread_far_from_zero_has_nine_correct_digits(level: float, noise: float) -> None:
    """Compares with exact arithmetic over thousands of values with a drift."""
    dice = random.Random(4)
    readings = [
        (5000 + place / 4, level + dice.gauss(place / 3000, 1) * noise) for place in range(4000)
    ]
    model = parsed("t__mean", "t__std", "t__trend", "t__mean__24h", "t__std__24h", "t__trend__24h")
    found = model.row(after(model, *((at, "t", value) for at, value in readings)))
    expected = []
    for some in (readings, readings[-96:]):
        times, values = (
            [Fraction(number) for number in column] for column in zip(*some, strict=True)
        )
        mean, middle = sum(values) / len(some), sum(times) / len(some)
        squares = sum((value - mean) ** 2 for value in values)
        products = sum((at - middle) * (x - mean) for at, x in zip(times, values, strict=True))
        expected += [
            float(mean),
            float(squares / (len(some) - 1)) ** 0.5,
            float(products / sum((at - middle) ** 2 for at in times)),
        ]
    assert found == pytest.approx(expected, rel=1e-10, abs=0)


def test_statistics_restored_from_their_columns_continue_exactly() -> None:
    dice = random.Random(5)
    kept, restarted = Statistics(), Statistics()
    for _ in range(2000):
        at, value = dice.uniform(0, 400), 1e6 + dice.gauss(0, 1)
        kept.add(at, value)
        restarted = Statistics(*astuple(restarted))
        restarted.add(at, value)
    assert restarted == kept


def test_memory_depends_on_the_window_and_not_on_the_length_of_the_stay() -> None:
    model = parsed("hr__mean__6h", "hr__mean__24h", "rr__mean", "rr__age__6h", "spo2__last")
    stay = after(model)
    for minute in range(60 * 24 * 30):
        stay.add(minute / 60, ("hr", "rr", "spo2")[minute % 3], 80.0)
        assert len(stay.statistics) <= 3
    assert list(stay.recent) == ["hr"]
    assert len(stay.recent["hr"].times) <= 24 * 20 + 1


def test_a_row_computes_only_the_features_that_new_readings_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[int] = []

    def counted(times: list[float], values: list[float], spread: bool) -> tuple[Value, ...]:
        reads.append(len(values))
        return windowed(times, values, spread)

    monkeypatch.setattr(tool.features, "windowed", counted)
    model = parsed("hr__mean__6h", "rr__mean__6h")
    stay = after(model, (1, "hr", 80.0), (1, "rr", 12.0))
    model.row(stay)
    model.row(stay)
    stay.add(2, "rr", 13.0)
    model.row(stay)
    assert reads == [1, 1, 2]
    stay.add(7, "of no model", 1.0)  # the readings of hour 1 leave both windows
    assert model.row(stay) == [None, 13.0]
