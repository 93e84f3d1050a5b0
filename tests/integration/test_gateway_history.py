"""Sends HL7 with corrections, cancelled admissions and discharges, merges, late results, and both
changes of daylight saving time.

The resulting tables and features equal those that pandas computes from the corrected history.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gateway import pending, refs
from tests.support.batches import batch, handler_of
from tests.support.gateway import all_moved, events, gateway, send_all
from tests.support.hl7_history import History
from tests.support.servers import rows
from tool.database import connect
from tool.model_client import Declaration, Model
from wire.features import Feature

NAMES = ("heart_rate__mean", "heart_rate__count", "heart_rate__max", "spo2__min", "spo2__count")
DECLARATION = Declaration(Model("m", "1", [Feature.parse(name).declaration() for name in NAMES]))
READINGS = "SELECT pat_id, parameter, CAST(measured_at AS CHAR(19)), value FROM readings"


@pytest.mark.parametrize(
    ("seed", "at_once"), [*((seed, pending.AT_ONCE) for seed in range(6)), (6, 1), (19, 1)]
)
def test_tables_and_features_equal_those_of_pandas_for_the_corrected_history(
    seed: int,
    at_once: int,
    tmp_path: Path,
    with_tables: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With at_once = 1, merges are not complete when later messages arrive. With an odd seed, a
    correction loads all readings of its order."""
    monkeypatch.setattr(pending, "AT_ONCE", at_once)
    monkeypatch.setattr(refs, "ASKED", 0 if seed % 2 else refs.ASKED)
    history = History(seed)
    history.play(120)
    last = len(history.present())  # the last readings; their features are compared

    async def send() -> None:
        async with gateway(tmp_path / "log") as running:
            codes = await send_all(running.mllp, history.messages[:-last])
            await all_moved(running.log)
            codes += await send_all(running.mllp, history.messages[-last:])
            assert codes == ["AA"] * len(history.messages)

    asyncio.run(send())
    stream = [json.dumps(event).encode() for event in events(tmp_path / "log")]
    url = with_tables("sqlite")
    database = connect(url)
    result = handler_of(database, DECLARATION).handle(batch(0, *stream))
    database.close()
    assert not result.codes

    expected = history.frame()
    expected["pat_id"] = expected["patient"].map(numbers(tmp_path / "log"))
    times = expected["measured_at"].dt.strftime("%Y-%m-%d %H:%M:%S")
    ours = zip(expected["pat_id"], expected["parameter"], times, expected["value"], strict=True)
    assert sorted(rows(url, READINGS)) == sorted(ours)
    check_vitals(url, expected)
    check_features(url, expected[expected["patient"].isin(history.present())])


def numbers(log: Path) -> dict[str, int]:
    with closing(sqlite3.connect(log)) as connection:
        return dict(connection.execute("SELECT id, pat_id FROM patients"))


def check_vitals(url: str, expected: pd.DataFrame) -> None:
    stored = rows(url, "SELECT pat_id, parameter, n, mean FROM vitals ORDER BY 1, 2")
    groups = expected.groupby(["pat_id", "parameter"])["value"]
    pandas = groups.agg(["size", "mean"]).reset_index().itertuples(index=False, name=None)
    assert stored == [(*key, n, pytest.approx(mean)) for *key, n, mean in pandas]


def check_features(url: str, expected: pd.DataFrame) -> None:
    """Compares the features of each patient's newest prediction. They cover all readings of the
    patient.
    """
    query = "SELECT pat_id, features FROM predictions ORDER BY seq"
    newest: dict[int, list[Any]] = {n: json.loads(text) for n, text in rows(url, query)}
    assert len(expected)
    for number, group in expected.groupby("pat_id"):
        heart = group.loc[group["parameter"] == "heart_rate", "value"]
        spo2 = group.loc[group["parameter"] == "spo2", "value"]
        pandas = (heart.mean(), len(heart), heart.max(), spo2.min(), len(spo2))
        features = [None if pd.isna(value) else pytest.approx(value) for value in pandas]
        assert newest[int(str(number))] == features
