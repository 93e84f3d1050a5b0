"""Tests that docs/guarantees.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# `test_file.py`, `tests/e2e/test_file.py`, `test_file.py::test_name` or, for the last file,
# `…test_name`; a name may end in …
NAMED = re.compile(r"`(?:((?:tests/\w+/)?test_\w+\.py)(?:::)?|…)(test_\w+)?(…)?`")
PATHS = list((ROOT / "tests").rglob("test_*.py"))
FILES = {path.name: path.read_text() for path in PATHS}
FILES |= {path.relative_to(ROOT).as_posix(): path.read_text() for path in PATHS}


def test_each_guarantee_names_tests_that_exist() -> None:
    named = list(NAMED.finditer((ROOT / "docs/guarantees.md").read_text()))
    assert named
    file, missing = "", []
    for found in named:
        file = found[1] or file
        name = f"{found[2]}{'' if found[3] else '('}" if found[2] else "test_"
        if f"def {name}" not in FILES.get(file, ""):
            missing.append(found[0])
    assert missing == []
