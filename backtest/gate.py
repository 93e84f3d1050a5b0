"""Checks figures against bounds, so that a backtest can fail a build."""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from typing import Any, NamedTuple

from training.evaluation import METRICS

OF_ALARMS = ("alarms", "alarms_per_patient_day", "sensitivity", "ppv", "nne", "median_lead_hours")


class Bound(NamedTuple):
    """A bound for a figure of the report's JSON, such as `auroc=.74`."""

    figure: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "Bound":
        """Parses `figure=value`. Raises ArgumentTypeError, whose text argparse prints, for an
        unknown figure or text of another form.

        >>> Bound.parse("auroc=.74")
        Bound(figure='auroc', value=0.74)
        """
        figure, _, value = text.partition("=")
        if figure not in (known := (*METRICS, *OF_ALARMS)):
            raise ArgumentTypeError(f"{figure!r} is not one of {', '.join(known)}")
        try:
            return cls(figure, float(value))
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not FIGURE=NUMBER") from None


def failed(
    figures: dict[str, Any], at_least: Sequence[Bound], at_most: Sequence[Bound]
) -> list[str]:
    """Returns one line for each bound that its figure violates. A figure that is not estimable
    violates each of its bounds."""
    lines = []
    for bounds, word, sign in ((at_least, "least", 1), (at_most, "most", -1)):
        for bound in bounds:
            value = _look_up(figures, bound.figure)
            if value is None or sign * value < sign * bound.value:
                shown = "not estimable" if value is None else f"{value:.4g}"
                lines.append(f"{bound.figure} is {shown}, expected at {word} {bound.value:g}")
    return lines


def _look_up(figures: dict[str, Any], name: str) -> float | None:
    value = figures["alarms"][name] if name in OF_ALARMS else figures[name][0]
    return None if value is None else float(value)
