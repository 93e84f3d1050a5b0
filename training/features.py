"""Features of many stays at once, from tables of readings.

Computes the same features as `tool.features`, but over whole columns instead of reading by reading,
and with arithmetic of its own. tests/unit/test_feature_agreement.py compares the results.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from training.arrays import Flags, Floats
from training.by_stay import ByStay
from training.channel import Channel
from training.progress import progress
from wire.features import Feature


def bulk_features(
    readings: pd.DataFrame,
    ages: pd.Series[float],
    features: Iterable[Feature],
    rows: Flags | None = None,
) -> pd.DataFrame:
    """The features as of each reading: float64, NaN if missing, with fill applied.

    readings: `seq, pat_id, date_admission, measured_at, parameter, value` of one stream, in any
        order; times in whole seconds. Raises ValueError for a value that is not finite.
    ages: years by (pat_id, date_admission). rows: flags the readings for which to compute features;
    None for all. The others still count as earlier readings. Returns one row per
    chosen reading, with its index label, and one column per feature.
    """
    features = list(features)
    ordered = ByStay.of(readings, rows)
    matrix: Floats = np.empty((len(ordered.asked), len(features)), np.float64, order="F")
    channels: dict[str, dict[int, list[tuple[int, str]]]] = {}
    for index, feature in enumerate(features):
        if feature.parameter is None or feature.aggregation is None:
            of_stay = ordered.hours if feature.name == "hour" else ordered.ages(ages)
            matrix[ordered.target, index] = of_stay
        else:
            spans = channels.setdefault(feature.parameter, {})
            spans.setdefault(feature.window_hours or 0, []).append((index, feature.aggregation))
    for parameter, spans in progress(channels.items(), "features", len(channels)):
        channel = Channel(ordered, parameter)
        for hours, columns in spans.items():
            wanted = {aggregation for _, aggregation in columns}
            found = channel.windowed(hours, wanted) if hours else channel.running(wanted)
            for index, aggregation in columns:
                matrix[ordered.target, index] = found[aggregation]
    for index, feature in enumerate(features):
        if feature.fill is not None:
            column = matrix[:, index]
            column[np.isnan(column)] = feature.fill
    labels = readings.index if rows is None else readings.index[rows]
    return pd.DataFrame(matrix, index=labels, columns=[feature.name for feature in features])
