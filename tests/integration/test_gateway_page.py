"""Tests the pipeline page of a live ward with the answers of a real gateway."""

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp

from dashboard.http_services import Health, Services
from dashboard.live_ward import SILENT_SECONDS, LiveWard
from dashboard.queue_state import QueueState
from dashboard.rendering import Pages
from dashboard.services import Board, Observation
from gateway.mllp import wrap
from tests.support.gateway import code, gateway, oru, send
from tests.support.hl7_corpus import obx
from wire.settings import SecretFile


def asked(log: Path, *messages: bytes) -> tuple[Health, Health]:
    """The health reports of a gateway before and after messages."""

    async def run() -> tuple[Health, Health]:
        async with gateway(log) as running, aiohttp.ClientSession() as session:
            services = Services(session, running.url, running.url, SecretFile())
            before = await services.hospital()
            frames = [wrap(message) for message in messages]
            assert "AA" in {code(one) for one in await send(running.mllp, frames, len(frames))}
            return before, await services.hospital()

    return asyncio.run(run())


def test_the_page_shows_senders_rates_and_unknown_codes(tmp_path: Path) -> None:
    other = oru(obx("PAGE1^x^L", "1"), obx("PAGE1^x^L", "2")).replace(b"|MON|WARD|", b"|PAGE|A<b|")
    before, after = asked(tmp_path / "log", oru(obx()), other, b"nonsense")
    page = LiveWard()
    page.content(before, 0.0, time.time())
    content = page.content(after, 4.0, time.time())
    senders = {f["name"]: f for key, f in content.items() if key.startswith("sender:")}
    assert senders["PAGE@A<b"]["messages"] == "1"
    assert senders["PAGE@A<b"]["state"] == "up"
    assert content["gateway"]["rate"] == "0.5"
    assert int(content["gateway"]["nacks"]) >= 1
    codes = {f["code"]: f["count"] for key, f in content.items() if key.startswith("code:")}
    assert codes["L/PAGE1"] == "2"
    later = LiveWard().content(after, 0.0, time.time() + SILENT_SECONDS + 60)
    assert {f["state"] for key, f in later.items() if key.startswith("sender:")} == {"silent"}
    key = next(key for key, fields in content.items() if fields.get("name") == "PAGE@A<b")
    assert "PAGE@A&lt;b" in Pages().entry("sender", key, content[key])


def test_a_live_stream_is_not_shown_as_ended(tmp_path: Path) -> None:
    _, health = asked(tmp_path / "log", oru(obx()))
    stream, stored = health.answer["stream"], health.answer["messages"]
    queues = QueueState(stream=stream, taken=stored)
    rest: Any = (Health(None, {}), stream, stored, None, 60.0, 0.0)
    observed = Observation(queues, health, *rest)
    assert not observed.ended
    board = Board()
    board.observe(observed, 0.0)
    assert board.services["hospital"].name == "gateway"


def test_a_source_other_than_a_gateway_adds_nothing_to_the_page() -> None:
    assert not LiveWard().content(Health(None, {"stream": "s", "messages": 3}), 0.0, 0.0)
    assert not LiveWard().content(Health(None, {"mode": "live", "senders": 3}), 0.0, 0.0)
