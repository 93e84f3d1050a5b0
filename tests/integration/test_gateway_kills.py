"""A gateway that is killed around commit and acknowledgement loses and doubles nothing."""

from pathlib import Path

from tests.support.gateway_kills import run


def test_tables_are_equal_after_kills(tmp_path: Path) -> None:
    assert run(8, tmp_path, seed=1)
