"""Compares the stability index with scipy, and the bands with standard errors. Tests that
simulated faults and shifts raise alerts.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, logit, rel_entr

from tests.support.drift_months import Month, WardStay, month, months, starts, stays
from tool import drift_figures
from tool.drift_figures import OUTCOMES, Figure
from training.evaluation import Scores
from training.reference import channel, reference, stay_days
from training.rows import Rows
from training.stream import Stream
from wire.drift import LEAST, Channel, Expected, Reference, psi

STAYS, ARRIVALS = 500, 35
KEY = ["pat_id", "date_admission"]
Floats = NDArray[np.float64]
Ward = tuple[Reference, list[WardStay], pd.DataFrame]


def readings() -> pd.DataFrame:
    """Two days of each stay, with a heart rate every hour and, in most stays, a temperature every
    4 hours."""
    draw = np.random.default_rng(8)
    level = draw.normal(85, 12, STAYS)
    parts = []
    for name, every, mean, spread in (("heart_rate", 1, level, 8.0), ("temperature", 4, 37.0, 0.6)):
        hours = np.arange(0, 48, every)
        stay = np.repeat(np.arange(STAYS), len(hours))
        base = mean[stay] if name == "heart_rate" else np.full(len(stay), mean)
        parts.append(
            pd.DataFrame(
                {
                    "pat_id": stay,
                    "measured_at": pd.Timestamp("2020-01-01")
                    + pd.to_timedelta(np.tile(hours, STAYS), unit="h"),
                    "parameter": name,
                    "value": base + draw.normal(0, spread, len(stay)),
                }
            )
        )
    table = pd.concat(parts).sort_values(["pat_id", "measured_at"], ignore_index=True)
    table = table[~((table["parameter"] == "temperature") & (table["pat_id"] % 25 == 0))]
    table["date_admission"] = pd.Timestamp("2020-01-01")
    return table.reset_index(drop=True)


@pytest.fixture(scope="module")
def ward() -> Ward:
    table = readings()
    draw = np.random.default_rng(9)
    probability = np.sort(expit(draw.normal(-1.6, 1.2, STAYS)))
    # Systematic sampling makes the outcomes of these stays fit their probabilities exactly.
    outcome = np.diff(np.floor(probability.cumsum() + 0.5), prepend=0).astype(np.int64)
    about = pd.DataFrame(
        {"pat_id": np.arange(STAYS), "date_admission": pd.Timestamp("2020-01-01"), "hour": 24}
    )
    rows = Rows(np.empty((STAYS, 0)), outcome, about)
    stream = Stream(table, pd.Series(dtype=float), {}, "")
    found = reference(
        stream,
        ["heart_rate", "temperature"],
        rows,
        Scores(outcome, probability, np.arange(STAYS)),
        "died",
        48.0,
    )
    index = pd.MultiIndex.from_frame(about[KEY])
    return found, stays(table, pd.Series(probability, index), pd.Series(outcome, index)), table


shares = st.lists(st.floats(0.001, 1), min_size=2, max_size=12)


@given(shares, st.randoms())
def test_psi_is_the_symmetric_divergence_of_scipy(weights: list[float], random: object) -> None:
    other = weights[:]
    random.shuffle(other)  # type: ignore[attr-defined]
    p, q = (np.maximum(np.array(w) / sum(w), LEAST) for w in (weights, other))
    expected = rel_entr(p, q).sum() + rel_entr(q, p).sum()
    assert psi(list(p), list(q)) == pytest.approx(expected, abs=1e-12)


def test_a_channel_gives_each_stay_day_the_same_weight() -> None:
    readings = pd.DataFrame({"number": [0, 1, 1, 1], "value": [60.0, 100.0, 100.0, 100.0]})
    found = channel(readings, 2, 0)
    assert (found.bin(60.0), found.bin(100.0)) == (0, 1)
    assert found.shares == (0.5, 0.5)


def test_a_reference_describes_the_readings_of_all_stay_days(ward: Ward) -> None:
    found, _, table = ward
    channel = found.channels["heart_rate"]
    numbers, _ = stay_days(table, ["heart_rate", "temperature"])
    assert len(numbers) == 2 * STAYS
    assert channel.volume.value == 24
    assert found.channels["temperature"].known.value == pytest.approx(0.96)
    place = np.searchsorted(channel.edges, table["value"][table["parameter"] == "heart_rate"])
    expected = np.bincount(place, minlength=len(channel.shares)) / (48 * STAYS)
    assert np.allclose(channel.shares, expected)
    assert [channel.bin(edge) for edge in channel.edges] == list(range(len(channel.edges)))


def test_bands_extend_to_about_4_standard_errors_on_each_side(ward: Ward) -> None:
    """The range of 10,000 normally distributed figures extends to about 3.9 standard errors on each
    side.
    """
    found, ward_stays, _ = ward
    p = np.array([stay.probability for stay in ward_stays])
    band = found.risk.band(60)
    assert band is not None
    wide = 3.9 * p.std() / np.sqrt(60)
    assert p.mean() - band.low == pytest.approx(wide, rel=0.3)
    assert band.high - p.mean() == pytest.approx(wide, rel=0.3)


@pytest.mark.parametrize(
    ("stays", "band"), [(29, None), (30, 30), (59, 30), (400, 250), (900, 500)]
)
def test_the_band_is_that_of_the_largest_sample_size_that_the_stays_reach(
    ward: Ward, stays: int, band: int | None
) -> None:
    expected: Expected = ward[0].risk
    found = expected.band(stays)
    assert (found.stays if found else None) == band


def test_months_without_a_shift_raise_few_alerts(ward: Ward) -> None:
    found, ward_stays, _ = ward
    drawn = months(found, ward_stays, 6, ARRIVALS, np.random.default_rng(3))
    assert sum(len(starts(each)) for each in drawn) <= 6


def in_fahrenheit(table: pd.DataFrame) -> pd.DataFrame:
    """Temperatures in °F are missing, because the tool rejects them as implausible."""
    return table[table["parameter"] != "temperature"]


def some_in_fahrenheit(table: pd.DataFrame) -> pd.DataFrame:
    wrong = (table["parameter"] == "temperature") & (table["pat_id"] % 2 == 0)
    return table[~wrong]


def stuck(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(value=table["value"].where(table["parameter"] != "heart_rate", 80.0))


def doubled(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table[table["parameter"] == "heart_rate"]]).sort_index(kind="stable")


def with_change(ward: Ward, change: Callable[[pd.DataFrame], pd.DataFrame], since: int) -> Month:
    """A month in which `change` applies to stays that begin on day `since` or later."""
    found, ward_stays, table = ward
    index = pd.MultiIndex.from_frame(table[KEY].drop_duplicates())
    p = pd.Series([stay.probability for stay in ward_stays], index)
    y = pd.Series([stay.outcome for stay in ward_stays], index)
    changed = stays(change(table), p, y)
    draw = np.random.default_rng(4)
    drawn = [draw.choice(STAYS, ARRIVALS) + STAYS * (day >= since) for day in range(since + 4)]
    return month(found, drawn, ward_stays + changed)


@pytest.mark.parametrize(
    ("change", "alert"),
    [
        (in_fahrenheit, ("temperature", "known")),
        (some_in_fahrenheit, ("temperature", "known")),
        (stuck, ("heart_rate", "psi")),
        (doubled, ("heart_rate", "volume")),
    ],
)
def test_a_simulated_fault_raises_an_alert_within_3_days(
    ward: Ward, change: Callable[[pd.DataFrame], pd.DataFrame], alert: tuple[str, str]
) -> None:
    since = 5
    begun = starts(with_change(ward, change, since))
    assert not [day for day, *_ in begun if day < since]
    assert alert in [(parameter, figure) for day, parameter, figure in begun if day < since + 3]


def shifted(p: Floats, by: float, draw: np.random.Generator) -> Floats:
    """Draws outcomes whose log odds are those of p plus a constant."""
    return (draw.random(p.shape) < expit(logit(p) + by)).astype(np.float64)


def outcome_figures(p: Floats, y: Floats) -> list[Figure]:
    return drift_figures.outcomes(list(zip(p.tolist(), y.tolist(), strict=True)))


def test_a_shift_of_the_intercept_is_found_nearly_as_often_as_by_the_best_test(ward: Ward) -> None:
    """No statistical test of the same size finds more shifts than the likelihood-ratio test
    (Neyman and Pearson).
    """
    draw = np.random.default_rng(5)
    pool = np.array([stay.probability for stay in ward[1]])
    p = draw.choice(pool, (2, 1000, OUTCOMES))
    y = np.stack([shifted(p[0], 0.0, draw), shifted(p[1], 0.5, draw)])
    ratio = (y * 0.5 - np.log1p(p * np.expm1(0.5))).sum(axis=2)
    alerts = np.array(
        [
            [outcome_figures(*each)[0].side > 0 for each in zip(*half, strict=True)]
            for half in zip(p, y, strict=True)
        ]
    )
    size, power = alerts.mean(axis=1)
    best = (ratio[1] > np.quantile(ratio[0], 1 - size)).mean()
    assert size <= 0.025
    assert power >= best - 0.05
    assert power >= 0.6


def test_fewer_outcomes_than_required_have_no_band() -> None:
    p = np.full(OUTCOMES - 1, 0.2)
    assert not any(figure.alert for figure in outcome_figures(p, np.ones(len(p))))
    assert all(figure.low is None for figure in outcome_figures(p, np.ones(len(p))))


def test_calibrated_outcomes_are_rarely_outside_their_band(ward: Ward) -> None:
    draw = np.random.default_rng(6)
    pool = np.array([stay.probability for stay in ward[1]])
    p = draw.choice(pool, (400, OUTCOMES))
    y = shifted(p, 0.0, draw)
    alerts = np.array(
        [[f.alert for f in outcome_figures(*each)] for each in zip(p, y, strict=True)]
    )
    assert alerts[:, 0].mean() <= 0.04
    assert alerts[:, 1].sum() <= 1


def test_the_brier_score_finds_probabilities_that_are_too_extreme(ward: Ward) -> None:
    draw = np.random.default_rng(7)
    p = draw.choice(np.array([stay.probability for stay in ward[1]]), 4 * OUTCOMES)
    y = shifted(p, 0.0, draw)
    extreme = expit(3 * logit(p))
    parts = np.split(extreme, 4), np.split(y, 4)
    assert all(outcome_figures(*each)[1].side > 0 for each in zip(*parts, strict=True))


def test_too_many_events_alone_raise_no_alert_of_the_brier_score(ward: Ward) -> None:
    """If all probabilities are equal, the Brier score depends only on the number of events."""
    p, y = np.full(OUTCOMES, 0.2), np.zeros(OUTCOMES)
    y[:100] = 1
    ratio, brier = outcome_figures(p, y)
    assert ratio.side > 0
    assert not brier.alert
    assert brier.value == pytest.approx(brier.low)


def test_an_alert_ends_at_the_middle_of_its_band() -> None:
    values = [5.0, 11.0, 9.0, 6.0, 4.0, 9.0, -1.0, 4.0, 11.0, 5.5]
    figure, alerts = None, []
    for value in values:
        figure = drift_figures.after(Figure("", "risk", 50, value, 0.0, 10.0), figure)
        alerts.append(figure.side)
    assert alerts == [0, 1, 1, 1, 0, 0, -1, -1, 1, 1]


def test_a_figure_without_stays_has_no_value() -> None:
    expected = Expected(1.0, ())
    channel = Channel((1.0,), (0.5, 0.5), expected, expected, expected)
    found = drift_figures.inputs(Reference({"gcs": channel}, expected, "died", 48.0), [])
    assert [(figure.stays, figure.value, figure.alert) for figure in found] == [
        (0, None, False)
    ] * 3
