"""Tests the groups of rows in the report of a training."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from training.groups import absent
from wire.features import Feature

NAN = float("nan")


def test_a_row_lacks_a_parameter_if_it_has_no_value_or_a_count_of_0() -> None:
    names = ("lactate__last", "lactate__count", "heart_rate__count")
    rows: Any = SimpleNamespace(x=np.array([[2.5, 1.0, 0.0], [NAN, 0.0, 3.0], [NAN, 0.0, 0.0]]))
    features = [Feature.parse(name) for name in names]
    assert absent(rows, features, "lactate").tolist() == [False, True, True]
    assert absent(rows, features, "heart_rate").tolist() == [True, False, True]
