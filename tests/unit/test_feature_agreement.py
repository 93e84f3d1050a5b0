"""Compares the tool's streamed features with training's bulk features, and both with a third
computation that shares no code with them.

The third computation applies the definitions in the docstring of `tool/features.py` to a plain
list. It uses the module `statistics`, whose mean and standard deviation are exact before the last
rounding.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.random import Generator, default_rng

from modelapi.rounding import significant
from tool.features import FeatureSet, Stay
from tool.statistics import Statistics
from training.features import bulk_features
from wire.features import AGGREGATIONS, Feature

FORMULA = (
    Feature.parse("age", required=True),
    Feature.parse("last_blood_pressure", required=True),
    Feature.parse("rmean_respiration_rate", required=True),
    Feature.parse("standard_deviation_temperature", fill=0.0),
)

HOUR = timedelta(hours=1)
StayKey = tuple[int, date]
Row = list[float | None]

# One patient has two stays, of which one shares its day of admission with another patient's stay.
STAYS: dict[StayKey, float | None] = {
    (7, date(2019, 2, 1)): 63.0,
    (7, date(2019, 2, 3)): 63.5,
    (8, date(2019, 2, 1)): None,
    (9, date(2119, 2, 28)): 41.25,
}
PARAMETERS = ("heart_rate", "temperature", "blood__pressure__age", "never seen")
WINDOWS = (1, 2, 6, 24, 48)


@dataclass(frozen=True)
class Reading:
    seq: int
    stay: StayKey
    seconds: int  # since midnight of the day of admission
    parameter: str
    value: float

    @property
    def measured_at(self) -> datetime:
        _, admission = self.stay
        return datetime.combine(admission, datetime.min.time()) + timedelta(seconds=self.seconds)

    @property
    def at(self) -> float:
        return timedelta(seconds=self.seconds) / HOUR


def definition(feature: Feature, so_far: Sequence[Reading], age: float | None) -> float | None:
    """Computes a feature at the last reading of `so_far`, which has all readings of the stay up to
    then, in the order of arrival.
    """
    clock = max(reading.seconds for reading in so_far)
    if feature.name == "hour":
        return (clock - min(reading.seconds for reading in so_far)) / 3600
    if feature.parameter is None:
        return feature.fill if age is None else age
    chosen = sorted(
        (
            reading
            for reading in so_far
            if reading.parameter == feature.parameter
            and (
                feature.window_hours is None
                or clock - 3600 * feature.window_hours < reading.seconds <= clock
            )
        ),
        key=lambda reading: (reading.seconds, reading.seq),
    )
    values = [reading.value for reading in chosen]
    times = [reading.at for reading in chosen]
    if feature.aggregation == "count":
        return len(values)
    if (
        not values
        or (feature.aggregation == "std" and len(values) < 2)
        or (feature.aggregation == "trend" and len(set(times)) < 2)
    ):
        return feature.fill
    match feature.aggregation:
        case "last":
            return values[-1]
        case "first":
            return values[0]
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "mean":
            return statistics.mean(values)
        case "std":
            return statistics.stdev(values)
        case "trend":
            return statistics.linear_regression(times, values).slope
        case "delta":
            return values[-1] - values[0]
        case "age":
            return (clock - chosen[-1].seconds) / 3600
    raise AssertionError(feature)


def by_definition(features: Sequence[Feature], readings: Sequence[Reading]) -> list[Row]:
    stays: dict[StayKey, list[Reading]] = {}
    rows = []
    for reading in readings:
        so_far = stays.setdefault(reading.stay, [])
        so_far.append(reading)
        rows.append([definition(feature, so_far, STAYS[reading.stay]) for feature in features])
    return rows


def streamed(
    models: Sequence[FeatureSet],
    readings: Sequence[Reading],
    restarts: Iterable[int] = (),
    ages: dict[StayKey, float | None] = STAYS,
) -> list[list[Row]]:
    """The rows of each model. Before each reading whose index is in `restarts`, the stay is
    reloaded from the stored data: the columns of table `vitals` and the readings of the windows.
    """
    windows = FeatureSet({f.name: f for each in models for f in each.features}.values()).windows
    gone = set(restarts)
    stays: dict[StayKey, Stay] = {}
    stored: dict[StayKey, list[Reading]] = {}
    rows: list[list[Row]] = [[] for _ in models]
    for place, reading in enumerate(readings):
        stay = stays.setdefault(reading.stay, Stay(windows, age=ages[reading.stay]))
        if place in gone:
            columns = {name: astuple(each) for name, each in stay.statistics.items()}
            stay = stays[reading.stay] = Stay(
                windows,
                age=stay.age,
                statistics={name: Statistics(*column) for name, column in columns.items()},
            )
            for parameter, hours in windows.items():
                kept = [
                    old
                    for old in stored.get(reading.stay, [])
                    if old.parameter == parameter and old.at > stay.clock - hours
                ]
                kept.sort(key=lambda old: (old.seconds, old.seq))
                stay.recall(parameter, [(old.at, old.value) for old in kept])
        stay.add(reading.at, reading.parameter, reading.value)
        stored.setdefault(reading.stay, []).append(reading)
        for model, found in zip(models, rows, strict=True):
            found.append(model.row(stay))
    return rows


def table(readings: Sequence[Reading]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "seq": [reading.seq for reading in readings],
            "pat_id": [reading.stay[0] for reading in readings],
            "date_admission": pd.to_datetime([reading.stay[1] for reading in readings]),
            "measured_at": pd.to_datetime([reading.measured_at for reading in readings]),
            "parameter": [reading.parameter for reading in readings],
            "value": [reading.value for reading in readings],
        },
        index=[f"reading {reading.seq}" for reading in readings],
    )


def ages_table(ages: dict[StayKey, float | None] = STAYS) -> pd.Series[float]:
    known = {key: age for key, age in ages.items() if age is not None}
    index = pd.MultiIndex.from_tuples([(pat_id, pd.Timestamp(day)) for pat_id, day in known])
    return pd.Series(list(known.values()), index=index, dtype=float)


def matrix(rows: Sequence[Row]) -> np.ndarray:
    return np.array(rows, dtype=float).reshape(len(rows), -1)


def assert_same(
    left: np.ndarray, right: np.ndarray, features: Sequence[Feature], values: Sequence[float]
) -> None:
    """Compares with a relative tolerance of 1e-9. For means and slopes, which may be near 0 by
    cancellation, the tolerance is relative to the values."""
    reach = max(abs(value) for value in values)
    spread = max(values) - min(values)
    assert left.shape == right.shape
    for column, feature in enumerate(features):
        near_zero = {"mean": 1e-13 * reach, "trend": 1e-11 * spread}
        np.testing.assert_allclose(
            left[:, column],
            right[:, column],
            rtol=1e-9,
            atol=near_zero.get(feature.aggregation or "", 0.0),
            equal_nan=True,
            err_msg=feature.name,
        )


plain_values = st.one_of(
    st.sampled_from([0.0, 37.0, 37.1, 120.0, -5.5]),  # the same value repeatedly
    st.integers(-500, 2000).map(lambda tenths: tenths / 10),
)
all_values = st.one_of(
    plain_values, st.integers(-500, 500).map(lambda thousandths: 1e6 + thousandths / 1000)
)
# Full and quarter hours are on the edges of windows; the additional seconds are next to the edges.
instants = st.one_of(
    st.integers(0, 60).map(lambda hour: hour * 3600),
    st.integers(0, 40).map(lambda quarter: quarter * 900),
    st.integers(0, 9).map(lambda step: 36_000 + step),
)
features = st.builds(
    lambda parameter, aggregation, window, fill: Feature.parse(
        f"{parameter}__{aggregation}" + (f"__{window}h" if window else ""), fill=fill
    ),
    st.sampled_from(PARAMETERS),
    st.sampled_from(AGGREGATIONS),
    st.sampled_from((None, *WINDOWS)),
    st.sampled_from((None, None, None, 0.0, -1.5)),
)
declarations = st.lists(
    st.one_of(features, st.sampled_from([*FORMULA, Feature.parse("hour")])),
    min_size=1,
    max_size=12,
    unique_by=lambda feature: feature.name,
)


@st.composite
def streams(
    draw: st.DrawFn, most: int = 40, values: st.SearchStrategy[float] = all_values
) -> list[Reading]:
    """Interleaved readings of several stays, in order of time or with late readings. There are few
    different times, so that many are equal or on a window's edge.
    """
    length = draw(st.integers(1, most))
    times = draw(st.lists(instants, min_size=1, max_size=12))
    stays = list(STAYS)[: draw(st.integers(1, len(STAYS)))]
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from(stays),
                st.sampled_from(times),
                st.sampled_from((*PARAMETERS[:3], "of no model")),
                values,
            ),
            min_size=length,
            max_size=length,
        )
    )
    if draw(st.booleans()):
        drawn.sort(key=lambda reading: reading[1])
    step = draw(st.integers(1, 3))
    return [Reading(10 + step * place, *reading) for place, reading in enumerate(drawn)]


bounded = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@bounded
@given(streams(), declarations, declarations, st.sets(st.integers(0, 39)), st.randoms())
def test_streamed_bulk_and_definition_agree_for_every_reading(
    readings: list[Reading],
    champion: list[Feature],
    shadow: list[Feature],
    restarts: set[int],
    random: st.randoms,  # type: ignore[valid-type]
) -> None:
    numbers = [reading.value for reading in readings]
    models = [FeatureSet(champion), FeatureSet(shadow)]
    shuffled = readings.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for model, rows in zip(models, streamed(models, readings, restarts), strict=True):
        expected = matrix(by_definition(model.features, readings))
        assert_same(matrix(rows), expected, model.features, numbers)
        bulk = bulk_features(table(shuffled), ages_table(), model.features)
        assert list(bulk.columns) == list(model.names)
        assert list(bulk.index) == [f"reading {reading.seq}" for reading in shuffled]
        in_order = bulk.loc[[f"reading {reading.seq}" for reading in readings]]
        assert_same(in_order.to_numpy(), expected, model.features, numbers)


@bounded
@given(streams(values=plain_values), declarations)
def test_rounded_features_are_bitwise_equal(
    readings: list[Reading], declared: list[Feature]
) -> None:
    model = FeatureSet(declared)
    rows = significant(matrix(streamed([model], readings)[0]))
    bulk = significant(bulk_features(table(readings), ages_table(), declared).to_numpy())
    np.testing.assert_array_equal(rows, bulk)


@bounded
@given(streams(20), streams(20), streams(20), declarations)
def test_features_do_not_depend_on_later_readings(
    past: list[Reading], first: list[Reading], second: list[Reading], declared: list[Feature]
) -> None:
    model = FeatureSet(declared)
    found_streamed, found_bulk = [], []
    for future in (first, second):
        later = [replace(reading, seq=reading.seq + past[-1].seq) for reading in future]
        found_streamed.append(streamed([model], past + later)[0][: len(past)])
        bulk = bulk_features(table(past + later), ages_table(), declared)
        found_bulk.append(bulk.iloc[: len(past)])
    assert found_streamed[0] == found_streamed[1]
    pd.testing.assert_frame_equal(found_bulk[0], found_bulk[1], check_exact=True)


@bounded
@given(streams(), declarations, st.sets(st.integers(0, 39)))
def test_rows_of_chosen_readings_equal_those_of_all_readings(
    readings: list[Reading], declared: list[Feature], places: set[int]
) -> None:
    chosen = np.array([place in places for place in range(len(readings))])
    everything = bulk_features(table(readings), ages_table(), declared)
    some = bulk_features(table(readings), ages_table(), declared, rows=chosen)
    pd.testing.assert_frame_equal(some, everything[chosen], check_exact=True)


@bounded
@given(streams(), declarations, st.sets(st.integers(0, 39)))
def test_features_after_a_restart_are_bitwise_equal(
    readings: list[Reading], declared: list[Feature], restarts: set[int]
) -> None:
    model = FeatureSet(declared)
    assert streamed([model], readings, restarts) == streamed([model], readings)


def random_stays(
    random: Generator, count: int
) -> tuple[list[Reading], dict[StayKey, float | None]]:
    """Interleaved stays: with or without late readings, at full hours or at any second, with many
    or few readings.
    """
    ages: dict[StayKey, float | None] = {}
    drafts: list[tuple[float, StayKey, int, str, float]] = []
    for number in range(count):
        key = (number // 2, date(2019, 1, 1) + timedelta(days=40 * (number % 2)))
        ages[key] = None if random.random() < 0.1 else float(random.integers(18, 95))
        n = int(random.integers(1, 90))
        grid = int(random.choice([3600, 3600, 900, 60, 1]))
        times = random.integers(0, random.choice([3600, 20_000, 200_000]) // grid + 1, n) * grid
        if random.random() < 0.5:
            times = np.sort(times)
        level = random.choice([0.0, 37.0, 1e6])
        noise = np.round(random.normal(0, random.choice([0.01, 1, 20]), n), 3)
        if random.random() < 0.2:
            noise[:] = noise[0]
        names = random.choice([*PARAMETERS[:3], "of no model"], n)
        arrivals = np.sort(random.random(n))
        for arrival, seconds, name, value in zip(
            arrivals, times, names, level + noise, strict=True
        ):
            drafts.append((float(arrival), key, int(seconds), str(name), float(value)))
    drafts.sort(key=lambda draft: draft[0])
    return [Reading(seq, *draft[1:]) for seq, draft in enumerate(drafts, 1)], ages


@pytest.mark.parametrize("seed", range(30))
def test_streamed_and_bulk_features_agree_on_3000_random_stays(seed: int) -> None:
    random = default_rng(seed)
    readings, ages = random_stays(random, 100)
    names = {
        f"{random.choice(PARAMETERS)}__{random.choice(AGGREGATIONS)}"
        + ("" if random.random() < 0.4 else f"__{random.choice(WINDOWS)}h")
        for _ in range(25)
    }
    model = FeatureSet(Feature.parse(name) for name in ["age", "hour", *sorted(names)])
    restarts = np.flatnonzero(random.random(len(readings)) < 0.05).tolist()
    rows = matrix(streamed([model], readings, restarts, ages)[0])
    shuffled = table([readings[place] for place in random.permutation(len(readings))])
    bulk = bulk_features(shuffled, ages_table(ages), model.features)
    in_order = bulk.loc[[f"reading {reading.seq}" for reading in readings]].to_numpy()
    assert_same(in_order, rows, model.features, [reading.value for reading in readings])
    assert not math.isclose(float(np.isnan(rows).mean()), 1.0)


@pytest.mark.parametrize("level", [0.0, 37.0, 1e6, -1e9])
def test_a_small_spread_far_from_zero_has_nine_correct_digits(level: float) -> None:
    """The values have an outlier and a drift; `statistics` adds them as exact fractions."""
    random = default_rng(6)
    numbers = level + random.normal(np.arange(3000) / 3000, 1)
    numbers[0] = 0
    stay = (7, date(2019, 2, 1))
    readings = [Reading(n, stay, 10**7 + 900 * n, "t", float(x)) for n, x in enumerate(numbers, 1)]
    names = [f"t__{name}{span}" for name in ("mean", "std", "trend") for span in ("", "__24h")]
    declared = [Feature.parse(name) for name in names]
    bulk = bulk_features(table(readings), ages_table(), declared)
    for known in (2, 3, 90, 97, 3000):
        expected = [definition(feature, readings[:known], None) for feature in declared]
        np.testing.assert_allclose(bulk.iloc[known - 1], np.array(expected, float), rtol=1e-9)


def test_the_size_of_blocks_does_not_change_the_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readings, ages = random_stays(default_rng(99), 20)
    declared = [Feature.parse(f"heart_rate__{name}__24h") for name in ("mean", "count", "age")]
    whole = bulk_features(table(readings), ages_table(ages), declared)
    monkeypatch.setattr("training.windows.ELEMENTS", 3)
    pd.testing.assert_frame_equal(
        bulk_features(table(readings), ages_table(ages), declared), whole, check_exact=True
    )


def test_no_readings_give_no_rows() -> None:
    found = bulk_features(table([]), ages_table(), list(FORMULA))
    assert found.shape == (0, 4)


def test_the_error_for_a_non_finite_value_names_the_reading() -> None:
    bad = table([Reading(4, (7, date(2019, 2, 1)), 0, "temperature", math.nan)])
    with pytest.raises(ValueError, match="reading 4: value is not a finite number"):
        bulk_features(bad, ages_table(), list(FORMULA))
