"""The streaming feature engine: names, running statistics, windows, reasons."""

from __future__ import annotations

import doctest
import json
import random
from dataclasses import astuple
from fractions import Fraction
from typing import Any

import pytest

import tool.features
from tool.features import ORIGINAL, Feature, FeatureSet, Stay, Vital, widest


def parsed(*names: str) -> FeatureSet:
    return FeatureSet(Feature.parse(name) for name in names)


def after(model: FeatureSet, *readings: tuple[float, str, float], age: float | None = 60.0) -> Stay:
    stay = Stay(model.windows, age=age)
    for at, parameter, value in readings:
        stay.add(at, parameter, value)
    return stay


def test_the_examples_in_the_module_are_true() -> None:
    assert doctest.testmod(tool.features).failed == 0


class TestNames:
    @pytest.mark.parametrize(
        ("name", "parameter", "aggregation", "window_hours"),
        [
            ("age", None, None, None),
            ("blood_pressure__last", "blood_pressure", "last", None),
            ("heart_rate__max__6h", "heart_rate", "max", 6),
            ("temperature__age", "temperature", "age", None),
            ("age__last", "age", "last", None),
            ("spo2__count__99999h", "spo2", "count", 99999),
            # Read from the right, whatever the parameter is called.
            ("a__b__trend__12h", "a__b", "trend", 12),
            ("a__max__6h__last", "a__max__6h", "last", None),
            ("a__max__last__6h", "a__max", "last", 6),
            ("a___min", "a_", "min", None),
            ("6h__delta", "6h", "delta", None),
        ],
    )
    def test_a_name_says_parameter_aggregation_and_window(
        self, name: str, parameter: str | None, aggregation: str | None, window_hours: int | None
    ) -> None:
        feature = Feature.parse(name)
        assert (feature.name, feature.parameter) == (name, parameter)
        assert (feature.aggregation, feature.window_hours) == (aggregation, window_hours)

    @pytest.mark.parametrize(
        "name",
        ["", "heart_rate", "__max", "heart_rate__", "heart_rate__6h", "heart_rate_max"]
        + [f"heart_rate__max__{window}" for window in ("0h", "06h", "-6h", "1.5h", "6", "h", "٣h")],
    )
    def test_anything_else_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"^feature '{name}': not age, PARAMETER__AGG"):
            Feature.parse(name)

    def test_the_four_names_of_the_original_are_aliases(self) -> None:
        assert [astuple(Feature.parse(name)) for name in ORIGINAL] == [
            ("age", None, None, None, None, True),
            ("last_blood_pressure", "blood_pressure", "last", None, None, True),
            ("rmean_respiration_rate", "respiration_rate", "mean", None, None, True),
            ("standard_deviation_temperature", "temperature", "std", None, 0.0, False),
        ]


class TestDeclarations:
    @pytest.mark.parametrize("feature", [*ORIGINAL.values(), Feature.parse("hr__max__6h")])
    def test_read_back_from_json_to_the_same_feature(self, feature: Feature) -> None:
        text = json.dumps(feature.declaration())
        assert Feature.from_declaration(json.loads(text)) == feature

    def test_fill_and_required_are_the_models_to_say(self) -> None:
        said = {"name": "standard_deviation_temperature", "fill": None, "required": True}
        feature = Feature.from_declaration(said)
        assert (feature.fill, feature.required) == (None, True)
        assert Feature.from_declaration({"name": "hr__min", "fill": 3}).fill == 3.0

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"name": None}, "feature None: name is not a text"),
            ({"parameter": "rr"}, "feature 'hr__min': parameter is 'rr', the name says 'hr'"),
            ({"aggregation": None}, "aggregation is None, the name says 'min'"),
            ({"window_hours": 6}, "window_hours is 6, the name says None"),
            ({"fill": float("nan")}, "fill is nan, not a finite number or null"),
            ({"fill": "0"}, "fill is '0', not a finite number or null"),
            ({"fill": True}, "fill is True, not a finite number or null"),
            ({"required": 1}, "required is 1, not true or false"),
        ],
    )
    def test_a_contradiction_is_one_clear_line(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Feature.from_declaration({"name": "hr__min"} | wrong)

    def test_no_feature_twice(self) -> None:
        with pytest.raises(ValueError, match="feature 'hr__min' is declared twice"):
            parsed("hr__min", "hr__max", "hr__min")


class TestRow:
    def test_the_original_four(self) -> None:
        model = FeatureSet(ORIGINAL.values())
        stay = after(model, (7, "blood_pressure", 120.0), (8, "respiration_rate", 12.0))
        stay.add(9, "respiration_rate", 18.0)
        stay.add(9, "temperature", 36.0)
        assert model.row(stay) == [60.0, 120.0, 15.0, 0.0]
        stay.add(10, "temperature", 38.0)
        stay.add(11, "blood_pressure", 90.0)
        assert model.row(stay) == [60.0, 90.0, 15.0, 2**0.5]

    def test_a_late_reading_is_in_its_place(self) -> None:
        model = parsed("hr__last", "hr__first", "hr__delta", "hr__trend", "hr__age", "hr__count")
        stay = after(model, (7, "hr", 100.0), (9, "hr", 104.0), (8, "hr", 102.0), (6, "hr", 98.0))
        assert stay.clock == 9
        assert model.row(stay) == [104.0, 98.0, 6.0, 2.0, 0.0, 4]

    def test_of_equal_times_the_later_message_is_the_last_and_the_earlier_the_first(self) -> None:
        model = parsed("hr__last", "hr__first", "hr__last__6h", "hr__first__6h", "hr__trend")
        stay = after(model, (7, "hr", 1.0), (7, "hr", 2.0), (7, "hr", 3.0))
        assert model.row(stay) == [3.0, 1.0, 3.0, 1.0, None]

    def test_a_window_leaves_out_its_beginning(self) -> None:
        model = parsed("hr__count__6h", "hr__age__6h", "hr__mean__6h", "hr__age")
        stay = after(model, (1, "hr", 80.0), (6.5, "rr", 12.0))
        assert model.row(stay) == [1, 5.5, 80.0, 5.5]
        stay.add(7, "rr", 12.0)
        assert model.row(stay) == [0, None, None, 6.0]

    def test_edges_hold_for_every_second_though_hours_are_floats(self) -> None:
        model = parsed("hr__count__6h", "hr__age__6h")
        for second in range(3600):
            stay = after(model, (second / 3600, "hr", 80.0))
            stay.add((second + 6 * 3600 - 1) / 3600, "rr", 12.0)
            assert model.row(stay)[0] == 1, second
            stay.add((second + 6 * 3600) / 3600, "rr", 12.0)
            assert model.row(stay) == [0, None], second

    def test_a_late_reading_may_come_too_late_for_the_window(self) -> None:
        model = parsed("hr__count__6h", "hr__count")
        stay = after(model, (20, "rr", 12.0), (14, "hr", 80.0), (14.5, "hr", 80.0))
        assert model.row(stay) == [1, 2]

    def test_fill_replaces_what_is_missing_and_what_has_gone_missing(self) -> None:
        model = FeatureSet([Feature("hr__max__6h", "hr", "max", 6, fill=-1.0)])
        stay = after(model)
        assert model.row(stay) == [-1.0]
        stay.add(1, "hr", 80.0)
        assert model.row(stay) == [80.0]
        stay.add(9, "rr", 12.0)
        assert model.row(stay) == [-1.0]

    def test_age_may_become_known_later(self) -> None:
        model = parsed("age")
        stay = after(model, age=None)
        assert model.row(stay) == [None]
        stay.age = 50.0
        assert model.row(stay) == [50.0]

    def test_rows_are_the_callers_own(self) -> None:
        model = parsed("hr__last")
        stay = after(model, (1, "hr", 80.0))
        model.row(stay)[0] = None
        assert model.row(stay) == [80.0]

    def test_equal_values_have_no_deviation_and_no_trend_at_all(self) -> None:
        model = parsed("t__std", "t__trend", "t__std__6h", "t__trend__6h")
        stay = after(model, *((at / 10, "t", 36.795) for at in range(70)))
        assert model.row(stay) == [0.0, 0.0, 0.0, 0.0]

    def test_models_share_one_stay(self) -> None:
        champion, shadow = parsed("hr__min__2h"), parsed("hr__min__6h", "rr__max__4h")
        windows = widest([champion, shadow])
        assert windows == {"hr": 6, "rr": 4}
        stay = Stay(windows)
        for at, value in [(1.0, 60.0), (5.0, 80.0)]:
            stay.add(at, "hr", value)
        assert (champion.row(stay), shadow.row(stay)) == ([80.0], [60.0, None])

    def test_recalled_readings_reach_rows_that_were_read_before(self) -> None:
        model = parsed("hr__max__6h")
        stay = Stay(model.windows, vitals=after(model, (5, "hr", 80.0)).vitals)
        assert model.row(stay) == [None]
        stay.recall("hr", [(-2.0, 300.0), (4.0, 90.0), (5.0, 80.0)])
        assert model.row(stay) == [90.0]


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
    def test_says_what_is_missing(self, name: str, reason: str) -> None:
        declaration = Feature.parse(name).declaration() | {"required": True}
        model = FeatureSet([Feature.parse("rr__last"), Feature.from_declaration(declaration)])
        assert model.missing(model.row(after(model, age=None))) == reason

    def test_names_the_first_that_is_missing_and_none_when_all_are_there(self) -> None:
        model = FeatureSet(ORIGINAL.values())
        stay = after(model)
        assert model.missing(model.row(stay)) == "no blood_pressure yet"
        stay.add(1, "blood_pressure", 120.0)
        assert model.missing(model.row(stay)) == "no respiration_rate yet"
        stay.add(1, "respiration_rate", 12.0)
        assert model.missing(model.row(stay)) is None


@pytest.mark.parametrize("noise", [10.0, 1.0, 1e-3])
@pytest.mark.parametrize("level", [0.0, 37.0, 1e6, -1e9])
def test_small_spreads_far_from_zero_keep_nine_digits(level: float, noise: float) -> None:
    """Against exact arithmetic, over thousands of values with a drift."""
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


def test_a_vital_read_back_from_its_columns_goes_on_to_the_bit() -> None:
    dice = random.Random(5)
    kept, restarted = Vital(), Vital()
    for _ in range(2000):
        at, value = dice.uniform(0, 400), 1e6 + dice.gauss(0, 1)
        kept.add(at, value)
        restarted = Vital(*astuple(restarted))
        restarted.add(at, value)
    assert restarted == kept


def test_what_is_kept_depends_on_the_window_and_not_on_the_stay() -> None:
    model = parsed("hr__mean__6h", "hr__mean__24h", "rr__mean", "rr__age__6h", "spo2__last")
    stay = after(model)
    for minute in range(60 * 24 * 30):
        stay.add(minute / 60, ("hr", "rr", "spo2")[minute % 3], 80.0)
        assert len(stay.vitals) <= 3
    assert list(stay.recent) == ["hr"]
    assert len(stay.recent["hr"].times) <= 24 * 20 + 1


def test_a_row_reads_only_what_the_last_readings_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    mean = tool.features.WINDOWED["mean"]

    def counted(times: list[float], values: list[float]) -> float | None:
        reads.append(len(values))
        return mean(times, values)

    monkeypatch.setitem(tool.features.WINDOWED, "mean", counted)
    model = parsed("hr__mean__6h", "rr__mean__6h")
    stay = after(model, (1, "hr", 80.0), (1, "rr", 12.0))
    model.row(stay)
    model.row(stay)
    stay.add(2, "rr", 13.0)
    model.row(stay)
    assert reads == [1, 1, 2]
    stay.add(7, "of no model", 1.0)  # the readings of hour 1 leave both windows
    assert model.row(stay) == [None, 13.0]
