"""Compares the slots of values with a binary search in plain Python."""

import math
from bisect import bisect
from itertools import pairwise

import numpy as np

from modelapi.slots import slots_between

EDGES = {
    "one edge": [0.0],
    "evenly spread": [float(n) for n in range(200)],
    "pairs that differ in the last bit": [36.6, math.nextafter(36.6, 50), 41.0],
    "all differ in the last bits": [5e-324 * n for n in range(-4, 5)],
    "crowded near 0": np.geomspace(1e-9, 1e9, 70).tolist(),
    "as far apart as possible": [-1.7e308, -1.0, 0.0, 1.0, 1.7e308],
    "far from 0": [1e300, math.nextafter(1e300, math.inf), 1.1e300],
}


def test_a_value_gets_the_slot_that_a_binary_search_finds() -> None:
    draw = np.random.default_rng(3)
    columns = []
    for edges in EDGES.values():
        below = [math.nextafter(edge, -math.inf) for edge in edges]
        above = [math.nextafter(edge, math.inf) for edge in edges]
        between = [a / 2 + b / 2 for a, b in pairwise(edges)]
        outside = [math.nan, -0.0, 1e308, -1e308]
        columns.append(draw.choice([*edges, *below, *above, *between, *outside], 2000))
    rows = np.stack(columns, axis=1)
    found = slots_between([np.array(edges) for edges in EDGES.values()]).of(rows)
    start = 0
    for edges, values, slots in zip(EDGES.values(), rows.T.tolist(), found.T.tolist(), strict=True):
        missing = len(edges) + 1
        expected = [missing if math.isnan(value) else bisect(edges, value) for value in values]
        assert slots == [start + slot for slot in expected]
        start += missing + 1
