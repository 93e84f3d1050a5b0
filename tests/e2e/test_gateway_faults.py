"""Runs a short, fixed schedule of `python -m chaos --stack live`."""

from pathlib import Path

import pytest

from chaos import live
from tests.support.servers import redis_program


@pytest.mark.timeout(400)
def test_a_live_ward_loses_and_doubles_nothing_under_faults(tmp_path: Path) -> None:
    redis_program()
    assert live.run(tmp_path, seed=5, steps=300, most=3, say=print)
