"""Computes the drift reference of a model: the distribution of the data by stay-day, with bands."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from training.arrays import Floats
from training.database import KEY
from training.evaluation import Scores
from training.rows import Rows
from training.stream import Stream
from wire.drift import LEAST, RESAMPLES, SPAN_HOURS, STAYS, Band, Channel, Expected, Reference

Figure = Callable[[Floats], Floats]

BINS = 10
#: Number of samples of stay-days that are drawn at a time; limits the memory.
CHUNK = 500
DAY = ["pat_id", "date_admission", "day"]


def reference(
    stream: Stream, parameters: list[str], rows: Rows, scores: Scores, outcome: str, hours: float
) -> Reference:
    """The reference of a model that uses these parameters. rows, scores: the predictions; `risk` is
    computed from the last one of each stay-day. outcome: the predicted column of outcome.csv.
    hours: the last hour of a stay that the model was trained on.
    """
    days, readings = stay_days(stream.readings, parameters)
    channels = {
        name: channel(readings[readings["parameter"] == name], len(days), seed)
        for seed, name in enumerate(parameters)
        if (readings["parameter"] == name).any()
    }
    predicted = rows.about[[*KEY, "hour"]].assign(
        day=(rows.about["hour"] - 1) // 24, probability=scores.probability
    )
    last = predicted.sort_values("hour").groupby(DAY)["probability"].last()
    risk = _expected(last.to_numpy()[:, np.newaxis], _mean, len(parameters))
    return Reference(channels, risk, outcome, hours)


def stay_days(
    readings: pd.DataFrame, parameters: list[str]
) -> "tuple[pd.Series[int], pd.DataFrame]":
    """Numbers the stay-days whose readings span at least SPAN_HOURS. Returns their numbers by DAY,
    and their readings with the number in a column `number`."""
    readings = readings[readings["parameter"].isin(parameters)]
    readings = readings.assign(day=readings["measured_at"].dt.floor("D"))
    at = readings.groupby(DAY)["measured_at"]
    span = (at.max() - at.min()) / pd.Timedelta(hours=1)
    counted = span[span >= SPAN_HOURS]
    numbers = pd.Series(np.arange(len(counted)), counted.index, name="number")
    return numbers, readings.join(numbers, on=DAY, how="inner")


def channel(readings: pd.DataFrame, days: int, seed: int) -> Channel:
    """The reference of one parameter. days: the number of all stay-days."""
    value, number = readings["value"].to_numpy(np.float64), readings["number"].to_numpy(np.int64)
    each = 1 / np.bincount(number)[number]
    edges = _edges(value, each)
    place = np.searchsorted(edges, value, side="left")
    bins = len(edges) + 1
    shares = np.zeros((days, bins))
    np.add.at(shares, (number, place), each)
    volume = np.bincount(number, minlength=days).astype(np.float64)
    known = volume > 0
    mean = shares[known].mean(axis=0)

    def psi(sums: Floats) -> Floats:
        found = np.maximum(sums / sums.sum(axis=1, keepdims=True), LEAST)
        base = np.maximum(mean, LEAST)
        return np.asarray(((found - base) * np.log(found / base)).sum(axis=1))

    stability = _expected(shares[known], psi, seed)
    return Channel(
        tuple(edges.tolist()),
        tuple(mean.tolist()),
        _expected(volume[:, np.newaxis], _mean, seed),
        _expected(known[:, np.newaxis].astype(np.float64), _mean, seed),
        # The training distribution itself has an index of 0, so there is no lower band.
        Expected(0.0, tuple(Band(band.stays, 0.0, band.high) for band in stability.bands)),
    )


def _edges(value: Floats, weight: Floats) -> Floats:
    """The edges of at most BINS bins that have about the same weight; equal values are in the same
    bin.
    """
    order = np.argsort(value)
    share = np.cumsum(weight[order]) / weight.sum()
    places = np.searchsorted(share, np.arange(1, BINS) / BINS)
    edges: Floats = np.unique(value[order][places])
    return np.asarray(edges[edges < value.max()], np.float64)


def _mean(means: Floats) -> Floats:
    first: Floats = means[:, 0]
    return first


def _expected(days: Floats, figure: Figure, seed: int) -> Expected:
    """The figure over all stay-days, and its range over resampled stay-days. days: one row per
    stay-day. A sample of fewer stay-days consists of the first draws of a larger sample.
    """
    draw = np.random.default_rng(seed)
    sizes = np.array([n for n in STAYS if n <= len(days)])
    low, high = np.full(len(sizes), np.inf), np.full(len(sizes), -np.inf)
    for _ in range(RESAMPLES // CHUNK if len(sizes) else 0):
        chosen = days[draw.integers(0, len(days), (CHUNK, sizes[-1]))]
        sums = chosen.cumsum(axis=1)[:, sizes - 1]
        for place, n in enumerate(sizes):
            values = figure(sums[:, place] / n)
            low[place] = min(low[place], values.min())
            high[place] = max(high[place], values.max())
    value = float(figure(days.mean(axis=0, keepdims=True))[0])
    bands = zip(sizes.tolist(), low.tolist(), high.tolist(), strict=True)
    return Expected(value, tuple(Band(*band) for band in bands))
