"""Aggregations over windows of readings, many windows at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from training.arrays import Flags, Floats, Integers

HOUR = 3600  # in seconds; times are compared in whole seconds, so edges are exact
ELEMENTS = 1 << 21  # readings of concatenated windows per block; limits the memory


def windows(
    bounds: Integers, arrival: Integers | None
) -> Iterator[tuple[Integers, Integers, Integers]]:
    """Yields the windows that are not empty, in blocks: the indices of the windows, the indices of
    their readings, and the number of readings in each.

    bounds: for each window, the indices of its start and its end in order of time, and the number
    of readings that had arrived when the window was requested. arrival: each reading's position in
    the order of arrival, if that order differs.
    """
    begin, end, come = bounds
    chosen = np.flatnonzero(end > begin)
    sizes = np.cumsum((end - begin)[chosen])
    cuts = np.searchsorted(sizes, np.arange(ELEMENTS, sizes.max(initial=0), ELEMENTS))
    for part in np.split(chosen, np.unique(cuts)):
        if not len(part):
            continue
        n = (end - begin)[part]
        members = np.arange(n.sum()) + np.repeat(begin[part] - (np.cumsum(n) - n), n)
        if arrival is not None:
            known = arrival[members] < np.repeat(come[part], n)
            n = np.add.reduceat(known, np.cumsum(n) - n, dtype=np.int64)
            part, members, n = part[n > 0], members[known], n[n > 0]
        if len(part):
            yield part, members, n


def aggregate(
    at: Integers, value: Floats, n: Integers, aggregations: set[str]
) -> dict[str, Floats | Integers]:
    """The aggregations of concatenated windows, each of n readings in order of time."""
    start = np.cumsum(n) - n
    last = start + n - 1
    found: dict[str, Any] = {}
    if "last" in aggregations:
        found["last"] = value[last]
    if "first" in aggregations:
        found["first"] = value[start]
    if "delta" in aggregations:
        found["delta"] = value[last] - value[start]
    if "count" in aggregations:
        found["count"] = n
    if "age" in aggregations:
        found["age"] = at[last]
    if "min" in aggregations:
        found["min"] = np.minimum.reduceat(value, start)
    if "max" in aggregations:
        found["max"] = np.maximum.reduceat(value, start)
    if aggregations & {"mean", "std", "trend"}:
        mean, rest = _centred(value, start, n)
        found["mean"] = mean
        if "std" in aggregations:
            squares = np.add.reduceat(rest * rest, start)
            found["std"] = np.sqrt(divide(squares, n - 1, n > 1))
        if "trend" in aggregations:
            _, hours = _centred(at / HOUR, start, n)
            found["trend"] = divide(
                np.add.reduceat(hours * rest, start),
                np.add.reduceat(hours * hours, start),
                at[last] > at[start],
            )
    return {name: values for name, values in found.items() if name in aggregations}


def _centred(numbers: Floats, start: Integers, n: Integers) -> tuple[Floats, Floats]:
    """The mean of each window, and the deviations from it."""
    first = numbers[start]
    rest = numbers - np.repeat(first, n)
    mean = np.add.reduceat(rest, start) / n
    rest -= np.repeat(mean, n)
    return first + mean, rest


def divide(numerator: Floats, denominator: Any, where: Flags) -> Floats:
    quotient = np.full(len(where), np.nan)
    np.divide(numerator, denominator, out=quotient, where=where)
    return quotient
