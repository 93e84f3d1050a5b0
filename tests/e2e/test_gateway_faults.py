"""Runs a short, fixed schedule of `python -m chaos --stack live`."""

import os
from pathlib import Path

import pytest

from chaos import live
from embedded.redis_server import NoRedis, executable


@pytest.mark.timeout(400)
def test_a_live_ward_loses_and_doubles_nothing_under_faults(tmp_path: Path) -> None:
    try:
        executable()
    except NoRedis as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    assert live.run(tmp_path, seed=5, steps=300, most=3, say=print)
