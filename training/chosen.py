"""Chooses the thresholds of a model, from predictions for training patients by models that were
not fitted to them."""

import numpy as np

from training import budget, models, rows, threshold_names, utility
from training.arrays import Floats
from training.config import Config, Model
from training.database import KEY
from training.evaluation import Scores
from training.judgement import Question
from training.models import Fitted
from training.progress import progress
from training.rows import Rows
from training.thresholds import balanced_threshold

#: Number of parts for cross-fitting.
FOLDS = 3


def thresholds(
    settings: Config, question: Question, model: Model, fitted: Fitted, train: Rows
) -> dict[str, float]:
    """The thresholds of `[report]` by name. Thresholds for a number of alarms are chosen from
    predictions at every reading of held-out training stays. The threshold `utility` is chosen from
    cross-fitted predictions for all training rows, and the others from those at the report's hour.
    """
    report = settings.report
    probability = _crossed(model, fitted, train, question)
    scores = Scores(train.y, probability, train.patients)
    here = scores.where((train.about["hour"] == report.hour).to_numpy())
    events = here.probability[here.y == 1]
    found = {"balanced": balanced_threshold(here)}
    for share in report.flagged:
        found[threshold_names.flags(share)] = float(np.quantile(here.probability, 1 - share))
    for share in report.sensitivity:
        found[threshold_names.finds(share)] = float(np.quantile(events, 1 - share))
    if report.alarms_per_day and question.alarm:
        paths = _held_out(question, model, train)
        for number in report.alarms_per_day:
            found[threshold_names.alarms(number)] = budget.threshold(paths, question.alarm, number)
    if report.utility:
        found["utility"] = utility.best_threshold(train, probability)
    return found


def _crossed(model: Model, fitted: Fitted, train: Rows, question: Question) -> Floats:
    if fitted.crossed is not None:
        return fitted.crossed
    probability = np.empty(len(train.y))
    for past, now in progress(models.folds(train, model.seed + 2, FOLDS), "thresholds"):
        part = Rows(train.x[past], train.y[past], train.about.iloc[past])
        probability[now] = models.fit(model, part, question.features).predict(train.x[now])
    return probability


def _held_out(question: Question, model: Model, train: Rows) -> list[budget.Path]:
    """The predictions at every reading of some training stays, by a model that was fitted to
    other training patients."""
    past, now = models.folds(train, model.seed + 2, FOLDS)[0]
    part = Rows(train.x[past], train.y[past], train.about.iloc[past])
    fitted = models.fit(model, part, question.features)
    stays = train.about.iloc[now][KEY].drop_duplicates()
    stays = stays.sample(min(budget.STAYS, len(stays)), random_state=model.seed)
    every = rows.every_reading(
        question.stream, question.outcomes, question.label, question.features, stays
    )
    return budget.paths(question.stream, every, fitted.predict(every.x))
