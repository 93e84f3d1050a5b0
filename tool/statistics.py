"""The state of one parameter of a stay: running statistics, and the readings in its windows.

Times are hours since midnight of the day of admission; values are finite.
"""

from bisect import bisect_right
from dataclasses import dataclass
from math import inf, nan


@dataclass(slots=True)
class Statistics:
    """Running statistics of one parameter of a stay: the columns of table `vitals`.

    They are sufficient for every feature without a window, for any number of readings. After a
    reload from the table they continue exactly, to the last bit.

    >>> temperature = Statistics()
    >>> for at, value in [(7.0, 36.5), (8.0, 37.0), (9.0, 37.5)]:
    ...     temperature.add(at, value)
    >>> temperature.n, temperature.mean, temperature.last_value
    (3, 37.0, 37.5)
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0  # sum of squared deviations from the mean
    minimum: float = inf
    maximum: float = -inf
    first_value: float = nan
    first_at: float = inf
    last_value: float = nan
    last_at: float = -inf
    hours_mean: float = 0.0  # mean of the times
    hours_m2: float = 0.0  # sum of squared deviations of the times from their mean
    covariance: float = 0.0  # sum of the products of the deviations of time and value
    mean_low: float = 0.0  # the part of the mean that is lost in the precision of `mean`

    def add(self, at: float, value: float) -> None:
        """Adds a reading; readings may come in any order of time. The method is Welford's (1962)
        with a compensated mean (Kahan 1965). Without compensation the error of the mean grows:
        after thousands of values like 1e6 + noise, the standard deviation has lost nine digits.
        """
        self.n = n = self.n + 1
        mean = self.mean
        low = self.mean_low
        delta = value - mean - low
        step = delta / n
        rest = delta - step
        low += step
        self.mean = total = mean + low
        self.mean_low = low - (total - mean)
        self.m2 += delta * rest
        hours = at - self.hours_mean
        self.hours_mean = mean = self.hours_mean + hours / n
        self.hours_m2 += hours * (at - mean)
        self.covariance += hours * rest
        if value < self.minimum:
            self.minimum = value
        if value > self.maximum:
            self.maximum = value
        # Of two readings of the same time, the one in the later message is the last.
        if at >= self.last_at:
            self.last_at = at
            self.last_value = value
        if at < self.first_at:
            self.first_at = at
            self.first_value = value


class Recent:
    """The readings of one parameter that may still be in a window, in order of time.

    >>> recent = Recent(hours=6)
    >>> for at, value in [(1.0, 90.0), (5.0, 95.0), (4.0, 70.0), (8.0, 80.0)]:
    ...     recent.add(at, value, clock=max(at, 5.0))
    >>> recent.times, recent.values
    ([4.0, 5.0, 8.0], [70.0, 95.0, 80.0])
    """

    __slots__ = ("hours", "times", "values")

    def __init__(self, hours: float) -> None:
        self.hours = hours
        self.times: list[float] = []
        self.values: list[float] = []

    def add(self, at: float, value: float, clock: float) -> None:
        """Adds a reading and drops those older than the widest window."""
        times = self.times
        if not times or at >= times[-1]:
            times.append(at)
            self.values.append(value)
        else:
            place = bisect_right(times, at)
            times.insert(place, at)
            self.values.insert(place, value)
        edge = clock - self.hours
        if times[0] <= edge:
            expired = bisect_right(times, edge)
            del times[:expired], self.values[:expired]
