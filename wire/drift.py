"""Drift: how far the readings and predictions of a stream day are from those of training.

The unit is the stay-day, one stay's readings on one day, because the readings of a stay resemble
each other. Training writes a `Reference` into the manifest, with bands: the lowest and the highest
value in RESAMPLES samples of its stay-days. A figure outside its band is an alert.

    volume   readings per stay-day
    known    share of the stay-days with a reading
    psi      population stability index of the values, each stay-day weighing 1
    risk     mean probability at the end of the stay-days
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

RESAMPLES = 10_000
#: There is a band for each of these numbers of stay-days; fewer than the first are too few.
STAYS = (30, 60, 120, 250, 500)
#: Hours that the readings of a stay-day must span to be included, so that most days of admission
#: are not.
SPAN_HOURS = 12
#: Minimum share of a bin in the stability index, because the logarithm of 0 is infinite.
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
        """The band of the largest samples with at most `stays` stay-days, if there are any."""
        fitting = [band for band in self.bands if band.stays <= stays]
        return fitting[-1] if fitting else None


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The distribution of a parameter in training. edges: the limits between bins. shares: the mean
    share of a stay-day's readings in each bin."""

    edges: tuple[float, ...]
    shares: tuple[Share, ...]
    volume: Expected
    known: Expected
    psi: Expected

    def bin(self, value: float) -> int:
        """The bin of a value; an edge belongs to the bin below it."""
        return bisect_left(self.edges, value)


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The readings and the predictions of a model in training.

    risk: its predictions on patients that it was not fitted to. outcome: the name of the event
    among outcomes. hours: since a stay's first reading; its last prediction before then is
    compared with its outcome.
    """

    channels: dict[str, Channel]
    risk: Expected
    outcome: str
    hours: Annotated[float, Meta(gt=0)]


class DriftRow(msgspec.Struct, frozen=True, gc=False):
    """A figure of one stream day against its band in training.

    parameter: empty for a figure of all readings. low, high: null while there are too few stays to
    tell. seq: readings of later days come after this message.
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
