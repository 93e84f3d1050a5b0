"""Baselines for a model, evaluated on the same rows."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelapi.artifact import ArtifactError, Ref
from modelapi.repository import Repository
from training.arrays import Floats
from training.evaluation import RANKING, Judge, Line, Scores
from training.models import linear
from training.rows import Rows, usable
from wire.features import Feature

#: A function that returns the training rows and the test rows with the given features.
WithFeatures = Callable[[list[Feature]], tuple[Rows, Rows]]


def judge_baselines(
    repository: Path,
    names: tuple[str, ...],
    parameters: list[str],
    rows: WithFeatures,
    ours: Scores,
    judge: Judge,
) -> Iterator[Line]:
    """Evaluates the base rate, the named models of the repository, and a logistic regression on age
    and the last values. ours: the evaluated model's scores of the same test rows. The models' Brier
    scores are computed after recalibration on the training rows, because a score is not a
    probability. Raises ArtifactError if a named model cannot be served.
    """
    train, test = rows([])
    rate = Scores(test.y, np.full(len(test.y), train.y.mean()), test.patients)
    base = judge.line(
        "Base rate", rate, (*RANKING, "brier"), "the event rate of the training rows, for every row"
    )
    base.figures["auroc_gain"] = judge.gain(ours, rate)
    yield base
    for name in names:
        served = Served(repository, name)
        train, test = rows(served.features)
        typical = np.nanmedian(np.where(np.isnan(train.x).all(axis=0), 0.0, train.x), axis=0)
        fitted, _ = served.predict(train.x, typical)
        raw, absent = served.predict(test.x, typical)
        notes = [f"{absent:,} rows lacked a required value"] if absent else []
        columns = zip(served.features, test.x.T, strict=True)
        unknown = [feature.name for feature, column in columns if np.isnan(column).all()]
        if unknown:
            notes.append(f"without any value: {', '.join(unknown)}")
        note = "; ".join(notes)
        yield _line(f"{served.title} ({name})", train, test, fitted, raw, note, ours, judge)
    features = [Feature.parse("age"), *(Feature.parse(f"{name}__last") for name in parameters)]
    train, test = rows(features)
    kept, _ = usable(train, features)
    here = [feature in kept for feature in features]
    model = linear().fit(train.x[:, here], train.y)
    fitted, raw = (model.predict_proba(part.x[:, here])[:, 1] for part in (train, test))
    note = "logistic regression on age and each last value"
    yield _line("Last values only", train, test, fitted, raw, note, ours, judge)


class Served:
    """A model of the repository, such as `formula/1` or `news2/2017`."""

    def __init__(self, repository: Path, name: str) -> None:
        """Loads NAME/VERSION. Raises ArtifactError if it cannot be served."""
        model, _, version = name.partition("/")
        if not version:
            raise ArtifactError(f"report.baselines: {name!r} is not NAME/VERSION")
        self._model = Repository(repository).load(Ref(model, version))
        self.title = self._model.manifest.title
        self.features = [
            Feature.from_declaration(feature.declaration())
            for feature in self._model.manifest.features
        ]

    def predict(self, x: Floats, typical: Floats) -> tuple[Floats, int]:
        """The output `probability` for each row, and the number of rows without a required value.

        In service such rows get no prediction. Here `typical`, one value per feature, replaces
        the missing values, so that all models are evaluated on the same rows.
        """
        absent = np.isnan(x) & self._model.required
        outputs = self._model.predict(np.where(absent, typical, x))
        return outputs["probability"].astype(np.float64), int(absent.any(axis=1).sum())


def _line(
    name: str,
    train: Rows,
    test: Rows,
    fitted: Floats,
    raw: Floats,
    note: str,
    ours: Scores,
    judge: Judge,
) -> Line:
    theirs = Scores(test.y, raw, test.patients)
    ranked = judge.line(name, theirs, RANKING, note)
    mapping = make_pipeline(StandardScaler(), LogisticRegression(C=np.inf))
    mapping.fit(fitted[:, np.newaxis], train.y)
    fair = Scores(test.y, mapping.predict_proba(raw[:, np.newaxis])[:, 1], test.patients)
    ranked.figures.update(judge.line(name, fair, ("brier",)).figures)
    ranked.figures["auroc_gain"] = judge.gain(ours, theirs)
    return ranked
