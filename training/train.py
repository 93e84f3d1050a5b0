"""Runs one training: makes rows, models and figures. Other modules write the artifact, the report
and the card."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from training import models, outcomes, rows, stream
from training.baselines import judge_baselines
from training.chosen import thresholds
from training.config import Config, Model, Trees
from training.evaluation import Line, Scores
from training.groups import judge_channels, learning_curve, score_lines
from training.judgement import Judgement, Question, judge
from training.models import Fitted
from training.progress import progress
from training.removal import channels
from training.rows import Rows
from training.stream import DataError
from wire.features import Feature

log = logging.getLogger(__name__)


#: The folder with the baseline models, which is independent of the output folder.
BASELINES = Path("models")


@dataclass
class Result:
    """The result of a training run, for the report, the card and the manifest. train: the rows that
    the evaluated model was fitted to. judgement: the evaluated model's figures on the test rows.
    model: the model of the artifact. final: the rows that the artifact's model was fitted to.
    tried: the combinations of trees, with their cross-validated log loss.
    """

    config: Config
    question: Question
    dropped: list[Feature]
    left_out: dict[str, int]
    digest: str
    train: Rows
    judgement: Judgement
    final: Rows
    model: Fitted
    tried: list[tuple[Trees, float]] = field(default_factory=list)
    baselines: list[Line] = field(default_factory=list)
    without: list[Line] = field(default_factory=list)
    alone: list[Line] = field(default_factory=list)
    learning: list[Line] = field(default_factory=list)

    @property
    def features(self) -> list[Feature]:
        """The features of the model, in the order of its columns."""
        return self.question.features

    @property
    def headline(self) -> list[Line]:
        """The main figures."""
        return self.judgement.headline


def run(config: Config) -> Result:
    """Trains on one part and evaluates on the other; with `fit_on = "all"`, then trains the
    artifact's model on both.

    Raises DataError or ArtifactError, with a one-line message, for invalid data or baselines.
    """
    data = _read(config)
    question, train, test, features = data.question, data.train, data.test, data.question.features
    chosen, tried = models.tune(config.model, train, features)
    model = models.with_trees(config.model, chosen)
    fitted = models.fit(model, train, features)
    judged = test.where(test.about["hour"].isin(config.data.hours))
    if len(np.unique(judged.at(config.report.hour).y)) < 2:
        raise DataError(f"report.hour {config.report.hour}: the test rows have only one outcome")
    log.info("evaluating on the test rows")
    trained, tested = _names(config)
    points = thresholds(config, question, model, fitted, train)
    judgement = judge(
        question, fitted.predict, judged, f"Trained on {trained}, tested on {tested}", points
    )
    final = rows.together(train, test) if config.model.fit_on == "all" else train
    judgement.headline += _other_ways(config, question, model, train, test)
    log.info("computing comparisons, and training the model of the artifact")
    result = Result(
        config=config,
        question=question,
        dropped=data.dropped,
        left_out=data.left_out,
        digest=data.digest,
        train=train,
        judgement=judgement,
        final=final,
        model=models.fit(model, final, features) if config.model.fit_on == "all" else fitted,
        tried=tried,
    )
    _compare(result, model, train, judged, data.hours)
    return result


@dataclass(frozen=True)
class _Read:
    """The rows made from the config's data. hours: the sample hour of each row, by the reading's
    index label."""

    question: Question
    train: Rows
    test: Rows
    hours: "pd.Series[int]"
    dropped: list[Feature]
    left_out: dict[str, int]
    digest: str


def _read(config: Config) -> _Read:
    readings = stream.read(config.data)
    found = outcomes.read(config.data.folder, config.label, readings.identifiers)
    found = outcomes.match(found, readings)
    declared = config.declared
    data = config.data
    hours = rows.sample(readings, data.hours, data.more_hours, data.carry_forward)
    every = rows.assemble(readings, found.table, config.label, declared, hours)
    train, test = rows.split(
        rows.predictable(every, declared, config.features.required), config.split
    )
    features, dropped = rows.usable(train, declared)
    rows.check_size(train, features, models.FOLDS)
    train, test = (rows.select(part, declared, features) for part in (train, test))
    log.info(
        "%d rows to train on, %d to test on, %d features; %s",
        *(len(train.y), len(test.y), len(features), readings.source),
    )
    question = Question(
        stream=readings,
        outcomes=found.table,
        label=config.label,
        features=features,
        hours=config.data.hours,
        hour=config.report.hour,
        resamples=config.report.resamples,
        seed=config.model.seed,
        alarm=config.counted_alarm,
    )
    left_out = readings.left_out | found.left_out
    digest = f"{readings.digest}-{found.digest}"
    return _Read(question, train, test, hours, dropped, left_out, digest)


def _compare(
    result: Result, model: Model, train: Rows, judged: Rows, hours: "pd.Series[int]"
) -> None:
    """Computes baselines, ablation and learning curve on the test rows of the report's hour."""
    config, question, hour = result.config, result.question, result.config.report.hour
    past, now, here = train.at(hour), judged.at(hour), result.judgement.here

    def with_features(features: list[Feature]) -> tuple[Rows, Rows]:
        other = rows.assemble(
            question.stream, question.outcomes, config.label, features, hours[hours == hour]
        )
        place = pd.Series(np.arange(len(other.y)), index=other.about.index)
        old, new = (place[part.about.index].to_numpy() for part in (past, now))
        return Rows(other.x[old], past.y, past.about), Rows(other.x[new], now.y, now.about)

    result.baselines = [
        *judge_baselines(
            BASELINES,
            config.report.baselines,
            channels(question.features),
            with_features,
            here,
            question.judge,
        ),
        *score_lines(config.report.scores, now, here, question.judge),
    ]
    if config.report.ablation:
        result.without, result.alone = judge_channels(
            model, past, now, question.features, question.judge
        )
    result.learning = list(
        learning_curve(model, train, now, question.features, config.report.learning, question.judge)
    )


def _other_ways(
    config: Config, question: Question, model: Model, train: Rows, test: Rows
) -> Iterator[Line]:
    """Evaluates with the cohorts swapped, if the split is by cohort, and by cross-validation over
    all rows, if `folds` is set."""
    features, hour, hours = question.features, question.hour, list(question.hours)
    trained, tested = _names(config)
    if config.split.by == "cohort":
        back = train.where(train.about["hour"].isin(hours))
        other = models.fit(model, test, features)
        scores = Scores(back.y, other.predict(back.x), back.patients)
        at_hour = (back.about["hour"] == hour).to_numpy()
        name = f"Trained on {tested}, tested on {trained}"
        yield question.judge.line(f"{name}, at {hour} h", scores.where(at_hour))
        if len(hours) > 1:
            yield question.judge.line(f"{name}, all sample hours", scores)
    if config.report.folds:
        both = rows.together(train, test)
        probability = np.empty(len(both.y))
        parts = models.folds(both, model.seed + 1, config.report.folds)
        for past, now in progress(parts, "cross-validation"):
            part = Rows(both.x[past], both.y[past], both.about.iloc[past])
            probability[now] = models.fit(model, part, features).predict(both.x[now])
        crossed = Scores(both.y, probability, both.patients)
        name = f"Both parts in {config.report.folds}-fold cross-validation by patient"
        at_hour = (both.about["hour"] == hour).to_numpy()
        yield question.judge.line(f"{name}, at {hour} h", crossed.where(at_hour))
        if len(hours) > 1:
            sampled = both.about["hour"].isin(hours).to_numpy()
            yield question.judge.line(f"{name}, all sample hours", crossed.where(sampled))


def _names(config: Config) -> tuple[str, str]:
    if config.split.by == "cohort":
        return " and ".join(config.split.train), " and ".join(config.split.test)
    if config.split.by == "patient":
        return "some patients", f"{config.split.test_share:.0%} of the patients, by hash"
    return "earlier stays", f"the last {config.split.test_share:.0%} (other patients)"
