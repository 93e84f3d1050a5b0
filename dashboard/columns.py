"""Selects and orders the vitals of a page."""

from wire.vitals import VITALS, Vital, vital

# Maximum number of vitals on the ward page. The patient page shows all that `in_order` returns.
COLUMNS = 7
# Hours after which a prediction is stale. Vitals that are charted hourly have the same limit.
PREDICTION_HOLDS = 2.0
OTHERS_SHOWN = 30


def in_order(parameters: set[str]) -> list[Vital]:
    """The known vitals in the order of `vitals.toml`, then up to OTHERS_SHOWN others by name."""
    known = [known for name, known in VITALS.items() if name in parameters]
    others = sorted(parameters - VITALS.keys())
    return known + [vital(name) for name in others[:OTHERS_SHOWN]]


def columns(parameters: set[str]) -> list[Vital]:
    """The ward's columns."""
    return in_order(parameters)[:COLUMNS]


def limits(shown: Vital) -> str:
    """The thresholds of a vital, in words.

    >>> limits(vital("heart_rate")), limits(vital("spo2")), limits(vital("base_excess"))
    ('≤ 40 or ≥ 131 (NEWS2)', '≤ 91 (NEWS2)', '')
    """
    parts = []
    if shown.low is not None:
        parts.append(f"≤ {shown.low:g}")
    if shown.high is not None:
        parts.append(f"≥ {shown.high:g}")
    if not parts:
        return ""
    source = f" ({shown.threshold})" if shown.threshold else ""
    return " or ".join(parts) + source
