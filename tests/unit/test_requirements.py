"""Checks that the lock files contain all requirements, with hashes."""

import re
from pathlib import Path

import pytest

from embedded.programs import ROOT

ASKED = sorted([*ROOT.glob("*/requirements.txt"), ROOT / "embedded/redis.txt"])
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", re.MULTILINE)


def pins(path: Path) -> set[tuple[str, str]]:
    return {
        (re.sub(r"[-_.]+", "-", name).lower(), version)
        for name, version in PIN.findall(path.read_text())
    }


@pytest.mark.parametrize("path", ASKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_lock_file_is_up_to_date_and_has_hashes(path: Path) -> None:
    lock = path.with_suffix(".lock")
    assert pins(path) <= pins(lock), "run `make lock`"
    requirements = re.split(r"\n(?=\S)", lock.read_text().strip())
    assert all("--hash=sha256:" in requirement for requirement in requirements)
