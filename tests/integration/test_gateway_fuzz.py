"""Tests that each damaged message is parsed or rejected, and that each frame is answered."""

import asyncio
from pathlib import Path

from tests.support.gateway_fuzz import answered, read


def test_any_message_is_parsed_or_rejected(tmp_path: Path) -> None:
    counts = read(4_000, 1, tmp_path / "log")
    assert counts["inputs"] == 4_000
    assert counts["read"] > 1_000


def test_each_frame_is_answered(tmp_path: Path) -> None:
    counts = asyncio.run(answered(300, 2, tmp_path / "log"))
    assert counts["AA"] > 100
    assert counts["AR"] > 10
