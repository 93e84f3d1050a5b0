"""Runs the examples in the docstrings of all packages."""

import doctest
from importlib import import_module

import pytest

from embedded.programs import ROOT

MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ROOT.iterdir()
    if (folder / "__init__.py").exists() and folder.name != "tests"
    for path in sorted(folder.rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_pass(name: str) -> None:
    found = doctest.testmod(import_module(name))
    assert found.attempted
    assert not found.failed
