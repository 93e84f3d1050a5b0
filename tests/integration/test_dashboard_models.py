"""Compares the agreement and the calibration on the page /models with those that pandas
computes.
"""

import asyncio
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from html import unescape
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest
from aiohttp.test_utils import TestClient, TestServer
from flask import request

from dashboard.app import create_app
from dashboard.keys import POLLER
from dashboard.settings import Settings
from modelapi.server import create_app as create_modelapi
from modelapi.settings import Settings as ModelapiSettings
from tests.support import seeded_ward
from tests.support.modelapi_server import MODELS, add_linear, copy_models, in_thread
from tests.support.seeded_ward import START, STREAM
from wire.settings import DatabaseUrl, HttpUrl, RedisUrl

T = TypeVar("T")
Client = TestClient[Any, Any]
CHAMPION, SHADOW = "linear", "formula"
STAYS, HOURS = 90, 60


@pytest.fixture
def model_url(tmp_path: Path) -> Iterator[str]:
    """A model API whose champion names its outcome, and whose shadow does not."""
    models = copy_models(tmp_path / "models", SHADOW)
    shipped = json.loads((MODELS / "icu-mortality" / "1" / "manifest.json").read_text())
    add_linear(models, CHAMPION, "1", -4.0, reference=shipped["reference"])
    with serve(models, tmp_path) as url:
        yield url


@contextmanager
def serve(models: Path, tmp_path: Path, champion: str = CHAMPION) -> Iterator[str]:
    state = {
        "champion": {"model": champion, "version": "1"},
        "shadows": [{"model": SHADOW if champion == CHAMPION else CHAMPION, "version": "1"}],
    }
    (models / "default.json").write_text(json.dumps(state))
    app = create_modelapi(ModelapiSettings(models, tmp_path / "s.sqlite"))
    with in_thread(app) as url:
        yield url


def fill(path: Path) -> None:
    """Stores stays with a reading every 6 h. Most have one outcome, some two or none. Some have no
    prediction in the first 48 h.
    """
    draw = np.random.default_rng(5)
    with seeded_ward.ward(path) as made:
        for pat_id in range(1, STAYS + 1):
            made.add_stay(pat_id, START)
            for hour in range(0, HOURS, 6):
                at = START + timedelta(hours=hour)
                p = float(draw.beta(1, 4))
                unknown = pat_id % 30 == 0 and hour < 48
                seq = made.add_reading(
                    *(pat_id, START, at, "heart_rate", 80.0, None if unknown else p),
                    model=CHAMPION,
                )
                # Many values are equal, as those of a score are.
                other = round(min(0.9, p + draw.normal(0, 0.1)), 1)
                made.execute(
                    f"INSERT INTO predictions VALUES ({', '.join('?' * 13)})",
                    *(STREAM, seq, SHADOW, "1", pat_id, f"{START:%Y-%m-%d}", f"{at}"),
                    *("[]", abs(other), None, f"{at}", None, None),
                )
        for pat_id in (*range(1, STAYS - 9), 4, 8):
            died = float(draw.random() < 0.3)
            made.seq += 1
            made.execute(
                "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?)",
                *(STREAM, made.seq, pat_id, f"{START:%Y-%m-%d}", "died_in_hospital", died),
                f"{START + timedelta(days=4)}",
            )
        made.commit()


def tables(path: Path, name: str) -> pd.DataFrame:
    with closing(sqlite3.connect(path)) as connection:
        return pd.read_sql(f"SELECT * FROM {name} ORDER BY seq", connection)


def with_dashboard(path: Path, model_url: str, ask: Callable[[Client], Awaitable[T]]) -> T:
    """Starts a dashboard; returns the result of `ask`."""
    settings = Settings(
        database_url=DatabaseUrl(f"sqlite:///{path}"),
        redis_url=RedisUrl(f"unix://{path}.sock"),
        hospital_url=HttpUrl("http://127.0.0.1:9"),
        model_url=HttpUrl(model_url),
    )

    async def run() -> T:
        async with TestClient(TestServer(create_app(settings))) as client:
            return await ask(client)

    return asyncio.run(run())


def get(path: Path, model_url: str, address: str) -> str:
    """Starts a dashboard, waits until it has the descriptions of the models, and returns a page."""

    async def ask(client: Client) -> str:
        assert client.app is not None
        async with asyncio.timeout(60):
            while len(client.app[POLLER].descriptions) < 2:
                await asyncio.sleep(0.05)
        async with client.get(address) as answer:
            assert answer.status == 200
            return await answer.text()

    return with_dashboard(path, model_url, ask)


def cells(html: str) -> list[list[str]]:
    """The texts of the cells, for each row of each table of a page."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [
        [
            unescape(re.sub(r"<.*?>", "", cell)).strip()
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        ]
        for row in rows
    ]


def percent(share: float) -> str:
    return f"{100 * share:.1f}" if share < 0.0995 else f"{100 * share:.0f}"


@pytest.mark.parametrize(
    ("training", "usual"),
    [({"rows": 200, "events_among_rows": 30}, "15"), ({"rows": 200}, "40"), (None, "40")],
)
def test_the_usual_level_is_the_base_rate_of_the_training_rows_if_it_is_known(
    tmp_path: Path, training: dict[str, int] | None, usual: str
) -> None:
    path, models = tmp_path / "icu.sqlite", copy_models(tmp_path / "models", SHADOW)
    metrics = {"on the test rows": {"prevalence": {"value": 0.4}}}
    add_linear(models, CHAMPION, "1", -4.0, training=training, metrics=metrics)
    with seeded_ward.ward(path) as made:
        seeded_ward.fill(made, 1, 1)
    with serve(models, tmp_path) as url:
        page = get(path, url, "/")
    assert re.findall(r"Usual level: (\d+)", page) == [usual]


def test_each_page_names_the_inputs_that_a_risk_lacks(tmp_path: Path) -> None:
    path, models = tmp_path / "icu.sqlite", copy_models(tmp_path / "models", SHADOW)
    add_linear(models, CHAMPION, "1", -4.0)
    with seeded_ward.ward(path) as made:
        seeded_ward.fill(made, 1, 1)
        made.add_reading(1, START, START, "temperature", 37.0, 0.5)
        for pat_id, parameter, risk in ((2, "respiration_rate", 0.5), (3, "spo2", None)):
            made.add_stay(pat_id, START)
            made.add_reading(pat_id, START, START, parameter, 20.0, risk)
        made.commit()
    patient, without = r"<a [^>]*>(\d)</a>", r'"(?:risk\.)?without"[^>]*>(.*?)<'
    found = {}
    with serve(models, tmp_path, champion=SHADOW) as url:
        for address in ("/", "/patients"):
            pairs = re.findall(f"{patient}.*?{without}", get(path, url, address), re.DOTALL)
            found[address] = dict(pairs)
        for pat_id in "123":
            [text] = re.findall(without, get(path, url, f"/patients/{pat_id}"))
            found.setdefault("/patients/", {})[pat_id] = text
    lacks = {"1": "", "2": "without Blood pressure, Temperature", "3": ""}
    assert found == {"/": lacks, "/patients": lacks, "/patients/": lacks}


def test_reasons_are_computed_apart_from_the_page_and_then_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model API answers only when the page has shown that the reasons are being computed."""
    # A page that is closed is dropped, so that it is computed again when it is opened again.
    monkeypatch.setattr("dashboard.shelf.KEEP_SECONDS", 0.0)
    path, models = tmp_path / "icu.sqlite", tmp_path / "models"
    add_linear(models, seeded_ward.MODEL, seeded_ward.VERSION, -4.0)
    copy_models(models)  # only the champion's name
    with seeded_ward.ward(path) as made:
        seeded_ward.fill(made, 1, 1)
        made.execute("UPDATE models SET features = ?", json.dumps([{"name": "age"}]))
        made.execute("UPDATE predictions SET features = '[63.2]'")
        made.connection.commit()
    shown, asked = Event(), []
    app = create_modelapi(ModelapiSettings(models, tmp_path / "s.sqlite"))

    @app.before_request
    def wait() -> None:
        if request.path.endswith("/explain"):
            asked.append(request.path)
            assert shown.wait(60)

    async def until(client: Client, text: str) -> None:
        async with asyncio.timeout(60):
            while text not in await (await client.get("/patients/1")).text():
                await asyncio.sleep(0.05)

    async def ask(client: Client) -> None:
        assert client.app is not None
        poller = client.app[POLLER]
        await until(client, "The reasons are being computed.")
        shown.set()
        await until(client, "Age is 63 years: raises the risk")
        async with asyncio.timeout(60):
            while len(poller.shelf.views) > 1:
                await asyncio.sleep(0.05)
        await until(client, "Age is 63 years: raises the risk")

    with in_thread(app) as url:
        with_dashboard(path, url, ask)
    assert len(asked) == 1


def test_agreement_equals_that_of_pandas(tmp_path: Path, model_url: str) -> None:
    path = tmp_path / "icu.sqlite"
    fill(path)
    wide = tables(path, "predictions").pivot_table("output", ["pat_id", "measured_at"], "model")
    last = wide.dropna(subset=[CHAMPION]).groupby("pat_id").tail(1)
    [row] = [row for row in cells(get(path, model_url, "/models")) if row[1:2] == ["shadow"]]
    n, difference, order = row[-3:]
    assert int(n) == len(last) == STAYS
    assert difference == f"{percent((last[CHAMPION] - last[SHADOW]).abs().mean())} points"
    expected = last[CHAMPION].corr(last[SHADOW], method="spearman")
    assert float(order) == pytest.approx(expected, abs=0.005)


def test_calibration_equals_that_of_pandas(tmp_path: Path, model_url: str) -> None:
    path = tmp_path / "icu.sqlite"
    fill(path)
    found = tables(path, "predictions").query("model == @CHAMPION").dropna(subset=["output"])
    early = found[pd.to_datetime(found["measured_at"]) < START + timedelta(hours=48)]
    outcome = tables(path, "outcomes").groupby("pat_id")["value"].last()
    pairs = pd.DataFrame({"p": early.groupby("pat_id")["output"].last(), "y": outcome}).dropna()
    assert 70 < len(pairs) < len(outcome)
    html = get(path, model_url, "/models")
    [section] = re.findall(r'<section aria-labelledby="calibration1">(.*?)</section>', html, re.S)
    assert CHAMPION in section
    text = unescape(re.sub(r"<.*?>", "", section))
    numbers = re.findall(r"\d+\.?\d*", text[text.index("On ") :])
    n, newest, observed, expected, ratio, brier = numbers[:6]
    assert (int(n), int(newest)) == (len(pairs), 500)
    assert int(observed) == pairs["y"].sum()
    assert float(expected) == pytest.approx(pairs["p"].sum(), abs=0.05)
    assert float(ratio) == pytest.approx(pairs["y"].sum() / pairs["p"].sum(), abs=0.005)
    assert float(brier) == pytest.approx(((pairs["p"] - pairs["y"]) ** 2).mean(), abs=5e-5)
    shown = cells(section)[1:]
    assert [int(row[1]) for row in shown] == [
        len(pairs) * (i + 1) // 5 - len(pairs) * i // 5 for i in range(5)
    ]
    start = 0
    for row in shown:
        part = pairs.sort_values("p").iloc[start : start + int(row[1])]
        start += len(part)
        assert row[0] == f"{percent(part['p'].min())} to {percent(part['p'].max())} %"
        assert row[2:] == [
            f"{percent(part['p'].mean())} %",
            f"{part['y'].sum():.0f}",
            f"{percent(part['y'].mean())} %",
        ]
    assert start == len(pairs)
