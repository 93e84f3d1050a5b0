"""Compares NEWS2 and qSOFA with a second, simple implementation of their published charts."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelapi.artifact import Ref
from modelapi.repository import Model, Repository
from modelapi.rules import Part
from tests.support.modelapi_server import MODELS


@pytest.fixture(scope="module")
def news2() -> Model:
    return Repository(MODELS).load(Ref("news2", "2017"))


@pytest.fixture(scope="module")
def qsofa() -> Model:
    return Repository(MODELS).load(Ref("qsofa", "2016"))


def chart_news2(rr: int, spo2: int, oxygen: bool, sbp: int, hr: int, gcs: int, temp: int) -> int:
    """The points by the printed chart of 2017, with SpO2 scale 1. temp: in tenths of a degree."""
    points = 0
    if rr <= 8 or rr >= 25:
        points += 3
    elif 21 <= rr <= 24:
        points += 2
    elif 9 <= rr <= 11:
        points += 1
    if spo2 <= 91:
        points += 3
    elif spo2 <= 93:
        points += 2
    elif spo2 <= 95:
        points += 1
    points += 2 if oxygen else 0
    if sbp <= 90 or sbp >= 220:
        points += 3
    elif sbp <= 100:
        points += 2
    elif sbp <= 110:
        points += 1
    if hr <= 40 or hr >= 131:
        points += 3
    elif 111 <= hr <= 130:
        points += 2
    elif 41 <= hr <= 50 or 91 <= hr <= 110:
        points += 1
    points += 3 if gcs < 15 else 0
    if temp <= 350:
        points += 3
    elif temp >= 391:
        points += 2
    elif temp <= 360 or temp >= 381:
        points += 1
    return points


def ask(model: Model, *values: float) -> dict[str, Any]:
    outputs = model.predict(np.array([values], dtype=np.float64))
    return {name: column[0].item() for name, column in outputs.items()}


@given(
    st.integers(4, 60),
    st.integers(60, 100),
    st.booleans(),
    st.integers(40, 260),
    st.integers(20, 200),
    st.integers(3, 15),
    st.integers(300, 420),
)
def test_news2_equals_the_printed_chart(
    news2: Model, rr: int, spo2: int, oxygen: bool, sbp: int, hr: int, gcs: int, temp: int
) -> None:
    outputs = ask(news2, rr, spo2, 0.4 if oxygen else 0.21, sbp, hr, gcs, temp / 10)
    score = chart_news2(rr, spo2, oxygen, sbp, hr, gcs, temp)
    assert outputs == {"probability": score / 20, "score": score, "missing": ""}


def test_news2_equals_the_printed_chart_at_each_whole_value(news2: Model) -> None:
    normal = (16, 97, 0.21, 120, 72, 15, 37.0)
    for part, steps in enumerate(
        (range(4, 40), range(80, 101), (), range(60, 240), range(30, 150), range(3, 16))
    ):
        for value in steps:
            values = [*normal]
            values[part] = value
            rr, spo2, _, sbp, hr, gcs, temp = values
            expected = chart_news2(
                int(rr), int(spo2), False, int(sbp), int(hr), int(gcs), round(temp * 10)
            )
            assert ask(news2, *values)["score"] == expected


@given(st.integers(5, 40), st.integers(60, 200), st.integers(3, 15))
def test_qsofa_counts_its_three_criteria(qsofa: Model, rr: int, sbp: int, gcs: int) -> None:
    outputs = ask(qsofa, rr, sbp, gcs)
    assert outputs["score"] == (rr >= 22) + (sbp <= 100) + (gcs < 15)
    assert outputs["probability"] == outputs["score"] / 3


def test_missing_parts_are_listed_and_count_0(news2: Model) -> None:
    outputs = ask(news2, 25, math.nan, math.nan, 120, 72, math.nan, 37.0)
    assert outputs == {
        "probability": 3 / 20,
        "score": 3,
        "missing": "spo2__last,fio2__last,gcs__last",
    }


@pytest.mark.parametrize(
    ("temperature", "points"),
    [(36.04, 1), (36.05, 0), (38.04, 0), (38.05, 1), (35.04, 3), (39.04, 1), (39.05, 2)],
)
def test_values_are_rounded_half_up_to_the_decimals_of_the_chart(
    news2: Model, temperature: float, points: int
) -> None:
    assert ask(news2, 16, 97, 0.21, 120, 72, 15, temperature)["score"] == points


def test_points_of_the_parts_explain_the_score(news2: Model) -> None:
    rows = np.array([[25, 91, 0.4, 90, 131, 14, math.nan]])
    explanation = news2.explain(rows)
    assert explanation.contributions.tolist() == [[3, 3, 2, 3, 3, 3, 0]]
    assert explanation.base.tolist() == [0]


def test_unsorted_bounds_are_rejected() -> None:
    with pytest.raises(ValueError, match="must ascend"):
        Part("x", (2.0, 1.0), (0, 1, 2))
