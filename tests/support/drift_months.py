"""Simulates months of a ward from resampled stays, for the tests of drift."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.random import Generator

from tool import drift_figures
from tool.drift_figures import OUTCOMES, Figure, StayDay
from wire.drift import Reference

DAYS = 30

Readings = pd.DataFrame
Change = Callable[[Readings], Readings]


@dataclass
class WardStay:
    """A stay: its readings by day, its probability and its outcome."""

    days: list[StayDay]
    probability: float
    outcome: float


@dataclass
class Month:
    """The alerts of a simulated month.

    alerts: by day, the figures that raise an alert. compared: by day, the number of outcomes so
    far.
    """

    alerts: dict[int, list[Figure]] = field(default_factory=dict)
    compared: dict[int, int] = field(default_factory=dict)


def stays(
    readings: Readings, probability: "pd.Series[float]", outcome: "pd.Series[float]"
) -> list[WardStay]:
    """The stays in a table of readings, without those that have no probability. probability,
    outcome: by (pat_id, date_admission)."""
    found: dict[tuple[int, object], dict[object, StayDay]] = {}
    columns = ["pat_id", "date_admission", "measured_at", "parameter", "value"]
    texts = readings["measured_at"].dt.strftime("%Y-%m-%d %H:%M:%S")
    for seq, (pat_id, admitted, at, parameter, value) in enumerate(
        readings.assign(measured_at=texts)[columns].itertuples(index=False)
    ):
        days = found.setdefault((pat_id, admitted), {})
        if at[:10] not in days:
            days[at[:10]] = StayDay(seq)
        days[at[:10]].add(seq, at, parameter, value)
    return [
        WardStay([day for day in days.values() if day.counts], probability[key], outcome[key])
        for key, days in found.items()
        if key in probability.index
    ]


def months(
    reference: Reference, ward: list[WardStay], number: int, arrivals: int, draw: Generator
) -> Iterator[Month]:
    """Draws months of DAYS days. On each day, `arrivals` resampled stays begin."""
    for _ in range(number):
        yield month(reference, [draw.choice(len(ward), arrivals) for _ in range(DAYS)], ward)


def month(reference: Reference, drawn: list[np.ndarray], ward: list[WardStay]) -> Month:
    """The alerts of one month, from the first day on which the ward is full. drawn: for each day,
    the places in `ward` of the stays that begin."""
    found = Month()
    pairs: list[tuple[float, float]] = []
    before: dict[tuple[str, str], Figure] = {}
    longest = max(len(stay.days) for stay in ward)
    for today in range(longest - 1, len(drawn)):
        present = [(ward[place], age) for age in range(longest) for place in drawn[today - age]]
        inside = [(stay, stay.days[age]) for stay, age in present if age < len(stay.days)]
        pairs += [(stay.probability, stay.outcome) for stay, age in present if age == longest - 1]
        figures = [
            *drift_figures.inputs(reference, [day for _, day in inside]),
            drift_figures.risk(reference, [stay.probability for stay, _ in inside]),
            *drift_figures.outcomes(pairs[-OUTCOMES:]),
        ]
        named = {(figure.parameter, figure.name): figure for figure in figures}
        figures = [drift_figures.after(figure, before.get(key)) for key, figure in named.items()]
        before = dict(zip(named, figures, strict=True))
        found.alerts[today] = [figure for figure in figures if figure.alert]
        found.compared[today] = len(pairs)
    return found


def starts(found: Month) -> list[tuple[int, str, str]]:
    """The first day of each alert, with its parameter and figure. An alert that continues from the
    day before is not counted again."""
    before: set[tuple[str, str]] = set()
    begun = []
    for day, figures in found.alerts.items():
        now = {(figure.parameter, figure.name) for figure in figures}
        begun += [(day, *name) for name in sorted(now - before)]
        before = now
    return begun
