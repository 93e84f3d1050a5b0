"""One training run: rows, models and figures. What comes of it is written elsewhere."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tool.features import Feature
from training import dataset, models
from training.baselines import judge_baselines
from training.config import Config
from training.database import KEY
from training.dataset import Rows, Stream
from training.evaluation import Judge, Line, Scores
from training.groups import channels, judge_channels, judge_subgroups
from training.thresholds import OperatingPoint, balanced_threshold, operating_point

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

#: Where the models to compare with are, whatever folder the trained one goes to.
BASELINES = Path("models")
#: Every reading of this many test stays is predicted, as in service.
CONTINUOUS_STAYS = 1000
BLOCK = 20_000  # rows predicted at a time: bounds the memory


@dataclass
class Result:
    """All that the report, the card and the manifest tell.

    train, test: the rows that the figures are of; scores: the test rows of the report's hour.
    model, final: the model to ship, fitted to all rows.
    """

    config: Config
    features: list[Feature]
    dropped: list[Feature]
    left_out: dict[str, int]
    digest: str
    source: str
    train: Rows
    test: Rows
    scores: Scores
    final: Rows
    model: Any
    headline: list[Line] = field(default_factory=list)
    hours: list[Line] = field(default_factory=list)
    baselines: list[Line] = field(default_factory=list)
    subgroups: list[Line] = field(default_factory=list)
    without: list[Line] = field(default_factory=list)
    alone: list[Line] = field(default_factory=list)
    points: dict[str, OperatingPoint] = field(default_factory=dict)


def run(config: Config) -> Result:
    """Train on one part, judge on the other, then train on both.

    Raises DataError or ArtifactError, one line each, when data or baselines cannot be used.
    """
    stream = dataset.read_stream(config.data)
    outcomes = dataset.read_outcomes(config.data, config.label)
    log.info(
        "%s readings, outcomes of %s stays; from %s",
        f"{len(stream.readings):,}",
        f"{len(outcomes):,}",
        stream.source,
    )
    declared = config.declared
    hours = dataset.sample(stream, config.data.sample_hours, config.data.more_hours)
    rows = _predictable(dataset.assemble(stream, outcomes, config.label, declared, hours), config)
    train, test = dataset.split(rows, config.split)
    kept, dropped = dataset.usable(train, declared)
    train, test = (dataset.select(part, declared, kept) for part in (train, test))
    log.info(
        "%d rows to train on, %d to test on, %d features", len(train.y), len(test.y), len(kept)
    )

    kind, seed, hour = config.model.kind, config.model.seed, config.report.hour
    judge = Judge(config.report.resamples, seed)
    model = models.fit(kind, train, seed)
    judged = test.where(test.about["hour"].isin(config.data.sample_hours))
    everywhere = Scores(judged.y, predict(model, judged.x), judged.patients)
    here = (judged.about["hour"] == hour).to_numpy()
    scores = everywhere.where(here)
    if not scores.both:
        raise dataset.DataError(f"report.hour {hour}: the test rows do not hold both outcomes")

    log.info("judging")
    trained, tested = _names(config)
    headline = [judge.line(f"Trained on {trained}, tested on {tested}, at {hour} h", scores)]
    if config.split.by == "cohort":
        back = train.at(hour)
        other = Scores(back.y, predict(models.fit(kind, test, seed), back.x), back.patients)
        headline.append(judge.line(f"Trained on {tested}, tested on {trained}, at {hour} h", other))
    final = _together(train, test)
    if config.report.folds:
        crossed = _cross_validated(final, config).where((final.about["hour"] == hour).to_numpy())
        name = f"Both in {config.report.folds}-fold cross-validation by patient, at {hour} h"
        headline.append(judge.line(name, crossed))
    if len(config.data.sample_hours) > 1:
        headline.append(
            judge.line(f"Trained on {trained}, tested on {tested}, all sample hours", everywhere)
        )
        continuous = _continuous(stream, outcomes, config, kept, test, model)
        stays = len(np.unique(continuous.patients))
        headline.append(
            judge.line(
                f"The same at every reading of {stays:,} patients, stays weighing the same",
                continuous,
            )
        )
    by_hour = []
    for at in config.data.sample_hours:
        part = everywhere.where((judged.about["hour"] == at).to_numpy())
        if part.both:
            by_hour.append(judge.line(str(at), part))

    log.info("comparing")
    hours = hours[hours == hour]
    past, now = train.at(hour), test.at(hour)

    def with_features(features: list[Feature]) -> tuple[Rows, Rows]:
        other = dataset.assemble(stream, outcomes, config.label, features, hours)
        place = pd.Series(np.arange(len(other.y)), index=other.about.index)
        old, new = (place[part.about.index].to_numpy() for part in (past, now))
        return (
            Rows(other.x[old], past.y, past.about),
            Rows(other.x[new], now.y, now.about),
        )

    baselines = list(
        judge_baselines(
            BASELINES, config.report.baselines, channels(kept), with_features, scores, judge
        )
    )
    subgroups = list(judge_subgroups(now, scores, kept, judge))
    without, alone = (
        judge_channels(past, now, kept, seed, judge) if config.report.ablation else ([], [])
    )
    thresholds = {"balanced": balanced_threshold(scores), "10 %": 0.1, "20 %": 0.2, "50 %": 0.5}

    log.info("training on all")
    return Result(
        config=config,
        features=kept,
        dropped=dropped,
        left_out=stream.left_out,
        digest=stream.digest,
        source=stream.source,
        train=train,
        test=judged,
        scores=scores,
        final=final,
        model=models.fit(kind, final, seed),
        headline=headline,
        hours=by_hour,
        baselines=baselines,
        subgroups=subgroups,
        without=without,
        alone=alone,
        points={
            name: operating_point(scores, at, config.report.resamples, seed)
            for name, at in thresholds.items()
        },
    )


def predict(model: Any, x: Floats) -> Floats:
    """Probability of the event, row by row, in blocks."""
    starts = range(0, len(x), BLOCK)
    parts = [model.predict_proba(x[start : start + BLOCK])[:, 1] for start in starts]
    return np.concatenate(parts) if parts else np.empty(0)


def _predictable(rows: Rows, config: Config) -> Rows:
    """The rows that would get a prediction in service: nothing required is missing."""
    required = [feature.name in config.features.required for feature in config.declared]
    return rows.where(~np.isnan(rows.x[:, required]).any(axis=1))


def _together(one: Rows, other: Rows) -> Rows:
    return Rows(
        np.vstack([one.x, other.x]),
        np.append(one.y, other.y),
        pd.concat([one.about, other.about]),
    )


def _cross_validated(rows: Rows, config: Config) -> Scores:
    """Every row, predicted by a model fitted without that row's patient."""
    kind, seed = config.model.kind, config.model.seed
    probability = np.empty(len(rows.y))
    for past, now in models.folds(rows, seed + 1, config.report.folds):
        part = Rows(rows.x[past], rows.y[past], rows.about.iloc[past])
        probability[now] = predict(models.fit(kind, part, seed), rows.x[now])
    return Scores(rows.y, probability, rows.patients)


def _names(config: Config) -> tuple[str, str]:
    if config.split.by == "cohort":
        return " and ".join(config.split.train), " and ".join(config.split.test)
    return "earlier stays", f"the last {config.split.test_share:.0%} (other patients)"


def _continuous(
    stream: Stream,
    outcomes: pd.DataFrame,
    config: Config,
    features: list[Feature],
    test: Rows,
    model: Any,
) -> Scores:
    """Every reading of some test stays as in service, each stay weighing 1."""
    stays = test.about[KEY].drop_duplicates()
    stays = stays.sample(min(CONTINUOUS_STAYS, len(stays)), random_state=config.model.seed)
    keys = pd.MultiIndex.from_frame(stream.readings[KEY])
    readings = stream.readings[keys.isin(pd.MultiIndex.from_frame(stays))]
    part = Stream(readings, stream.ages, {}, "")
    hours = pd.Series(0, index=readings.index)
    rows = dataset.assemble(part, outcomes, config.label, features, hours)
    stay = rows.about.groupby(KEY).ngroup().to_numpy()
    weight = 1 / np.bincount(stay)[stay]
    return Scores(rows.y, predict(model, rows.x), rows.patients, weight)
