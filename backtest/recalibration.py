"""Recalibrates a model on the first part of a ward's history, and evaluates it on the rest."""

from backtest.figures import SEED
from backtest.history import History, scores_of
from training import rows
from training.config import Split
from training.evaluation import Judge
from training.recalibrate import Kind, Recalibration, fit
from training.rows import Rows

#: The first half of the stays by admission, and the rest without the patients of the first half.
PARTS = Split(by="time", test_share=0.5)


def recalibration(history: History, kind: Kind, resamples: int, digest: str) -> Recalibration:
    """Fits the calibration to the first part, and evaluates it on the rest. Raises DataError if one
    of the outcomes is missing in a part, or if the calibration is not estimable."""
    table = history.rows
    whole = Rows(table[["probability"]].to_numpy(), table["y"].to_numpy(), table)
    past, now = (scores_of(part.about) for part in rows.split(whole, PARTS))
    judge = Judge(resamples, SEED)
    return fit(history.version, past, now, kind, judge, digest)
