"""Checks that the lock files contain all requirements with hashes, and that the package can be
imported.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from embedded.programs import ROOT

ASKED = sorted([*ROOT.glob("*/requirements.txt"), ROOT / "embedded/redis.txt"])
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", re.MULTILINE)


def text(path: Path) -> str:
    """The requirements of a file, including those of the files that it includes."""
    return re.sub(
        r"^-r (\S+)$", lambda found: text(path.parent / found[1]), path.read_text(), flags=re.M
    )


def pins(path: Path) -> set[tuple[str, str]]:
    return {
        (re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in PIN.findall(text(path))
    }


@pytest.mark.parametrize("path", ASKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_lock_file_has_all_pins_with_hashes(path: Path) -> None:
    lock = path.with_suffix(".lock")
    assert pins(path) <= pins(lock), "run `make lock`"
    requirements = re.split(r"\n(?=\S)", lock.read_text().strip())
    assert all("--hash=sha256:" in requirement for requirement in requirements)


def test_the_package_can_be_imported_from_any_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for name in metadata["tool"]["setuptools"]["dynamic"]["dependencies"]["file"]:
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    for folder in ("wire", "training", "modelapi", "tool"):
        shutil.copytree(ROOT / folder, copy / folder, dirs_exist_ok=True)
    subprocess.run([*pip, "--editable", copy, "--prefix", tmp_path / "prefix"], check=True)
    [site] = (tmp_path / "prefix").glob("lib/python*/site-packages")
    code = (
        f"import site; site.addsitedir({str(site)!r})\n"
        "import importlib.metadata, training.config_file, modelapi.seal, tool.backfill\n"
        "print(training.config_file.__file__)\n"
        "print(*importlib.metadata.requires('icu-stream'), sep='\\n')"
    )
    place, *required = subprocess.check_output(
        [sys.executable, "-c", code], cwd=tmp_path, text=True
    ).splitlines()
    assert Path(place).is_relative_to(copy)
    assert pins(ROOT / "training/requirements.txt") <= {
        (re.sub(r"[-_.]+", "-", name).lower(), version)
        for name, version in PIN.findall("\n".join(required))
    }
