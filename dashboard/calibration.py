"""Compares the predictions of a model with the outcomes of its stays."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from statistics import fmean

from dashboard import formats, queries
from dashboard.database import Database
from dashboard.model_info import STEPS, Outcome
from dashboard.rows import ModelKey, day, later, moment
from dashboard.topic import Fields

# Maximum number of stays that are compared, the newest ones, because each stay needs two queries.
NEWEST = 500
# The stays are divided into at most GROUPS groups with similar predictions, of at least GROUP_STAYS
# stays each.
GROUPS, GROUP_STAYS = 5, 10

# A stay's prediction and outcome.
Pair = tuple[float, float]


def read_pairs(database: Database, stream: str, model: ModelKey, outcome: Outcome) -> list[Pair]:
    """Reads a pair for each of the newest stays with this outcome: the last prediction in the
    stay's first `outcome.hours` hours, and the outcome. Leaves out stays without a prediction in
    these hours.
    """
    seen: set[tuple[int, str]] = set()
    pairs = []
    # The rows are newest first: of several outcomes of a stay, the last one counts.
    for pat_id, admitted, value in database.rows(
        queries.OUTCOMES, stream, outcome.name, 2 * NEWEST
    ):
        stay = (pat_id, day(admitted).isoformat())
        if stay in seen or len(seen) == NEWEST:
            continue
        seen.add(stay)
        first = database.rows(queries.FIRST_OF, *stay, stream)[0][0]
        if first is None:
            continue
        until = later(moment(first), timedelta(hours=outcome.hours))
        for (probability,) in database.rows(
            queries.RISK_BEFORE, *model, *stay, stream, until.isoformat(" ")
        ):
            pairs.append((float(probability), float(value)))
    return pairs


def calibration_fields(key: ModelKey, outcome: Outcome, pairs: Sequence[Pair]) -> Fields:
    """The figures of a model, in total and by group of predictions. pairs: at least one."""
    expected = sum(p for p, _ in pairs)
    observed = sum(y for _, y in pairs)
    groups = _groups(pairs)
    shares = [(fmean(p for p, _ in group), fmean(y for _, y in group)) for group in groups]
    highest = max(max(pair) for pair in shares)
    top = next((step for step in STEPS if highest <= step), 1.0)
    return {
        "name": key.name,
        "version": key.version,
        "outcome": outcome.name.replace("_", " "),
        "hours": f"{outcome.hours:g}",
        "n": formats.count(len(pairs)),
        "observed": formats.count(round(observed)),
        "expected": formats.number(expected, 1),
        "ratio": formats.number(observed / expected, 2) if expected else "",
        "brier": formats.number(fmean((p - y) ** 2 for p, y in pairs), 4),
        "top": formats.percent(top),
        "groups": [
            {
                "n": formats.count(len(group)),
                "low": formats.percent(group[0][0]),
                "high": formats.percent(group[-1][0]),
                "expected": formats.percent(predicted),
                "events": formats.count(round(sum(y for _, y in group))),
                "observed": formats.percent(share),
                "x": f"{100 * predicted / top:.1f}",
                "y": f"{100 - 100 * share / top:.1f}",
            }
            for group, (predicted, share) in zip(groups, shares, strict=True)
        ],
    }


def _groups(pairs: Sequence[Pair]) -> list[Sequence[Pair]]:
    """Sorts the pairs by prediction and divides them into groups of nearly the same size.

    >>> [len(group) for group in _groups([(i / 100, 0.0) for i in range(47)])]
    [11, 12, 12, 12]
    """
    ordered = sorted(pairs)
    n = max(1, min(GROUPS, len(ordered) // GROUP_STAYS))
    edges = [len(ordered) * index // n for index in range(n + 1)]
    return [ordered[low:high] for low, high in pairwise(edges)]
