"""Drift: how far the readings and predictions of one stream day differ from the training data.

The unit is the stay-day, one stay's readings on one day, because the readings of one stay resemble
each other. Training writes a `Reference` into the manifest. It has bands: the lowest and the
highest value of each figure in RESAMPLES random samples of the training data's stay-days. A figure
outside its band is an alert.

    volume   readings of a parameter per stay-day
    known    share of the stay-days with a reading of the parameter
    psi      population stability index of its values; each stay-day has the weight 1
    risk     mean of the last probability of each stay-day
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

RESAMPLES = 10_000
#: Sizes of the samples, in stay-days. A day with fewer stay-days than the first has no band.
STAYS = (30, 60, 120, 250, 500)
#: A stay-day is included only if its readings span at least this number of hours. This leaves out
#: most days of admission, on which few hours remain.
SPAN_HOURS = 12
#: Lower limit for the share of a bin in the stability index: the logarithm of 0 is infinite.
LEAST = 1e-4

Share = Annotated[float, Meta(ge=0, le=1)]


class Band(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The lowest and the highest value of a figure in samples of `stays` stay-days."""

    stays: int
    low: float
    high: float


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A figure of the training data, and its bands by ascending number of stay-days."""

    value: float
    bands: tuple[Band, ...]

    def band(self, stays: int) -> Band | None:
        """The band of the largest sample size up to `stays`; None if there is none."""
        fitting = [band for band in self.bands if band.stays <= stays]
        return fitting[-1] if fitting else None


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The distribution of a parameter in training. edges: the limits between bins. shares: for each
    bin, the mean share of a stay-day's readings that are in it."""

    edges: tuple[float, ...]
    shares: tuple[Share, ...]
    volume: Expected
    known: Expected
    psi: Expected

    def bin(self, value: float) -> int:
        """The bin of a value; an edge belongs to the bin below it."""
        return bisect_left(self.edges, value)


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The distributions of a model's readings and predictions in training.

    risk: the mean of the last probability of each stay-day, predicted by a model that was not
    fitted to these stays. outcome: the name of the outcome that the model predicts. hours: the last
    prediction within this time after a stay's first reading is compared with the outcome of the
    stay.
    """

    channels: dict[str, Channel]
    risk: Expected
    outcome: str
    hours: Annotated[float, Meta(gt=0)]


class DriftRow(msgspec.Struct, frozen=True, gc=False):
    """A figure of one stream day, and the limits of its band.

    parameter: empty for a figure that is not about one parameter. stays: the number of stay-days,
    or of stays with an outcome. value: null if there is nothing to compute it from. low, high: null
    if the figure has no band, or there are too few stays for one. seq: the last message before the
    first reading of a later day.
    """

    stream: str
    day: str
    model: str
    version: str
    parameter: str
    figure: str
    stays: int
    value: float | None
    low: float | None
    high: float | None
    seq: int


def psi(expected: Sequence[float], found: Sequence[float]) -> float:
    """Population stability index of two distributions over the same bins.

    Below .1 is usually called stable, above .25 a major shift.

    >>> round(psi([0.5, 0.5], [0.75, 0.25]), 6)
    0.274653
    """
    pairs = [(max(a, LEAST), max(b, LEAST)) for a, b in zip(expected, found, strict=True)]
    return sum((b - a) * math.log(b / a) for a, b in pairs)
