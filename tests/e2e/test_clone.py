"""Tests a clone with converted line ends in a folder with an unusual name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.programs import ROOT
from tests.support.pipeline import synthetic

pytestmark = pytest.mark.timeout(240)


def test_a_clone_with_crlf_line_ends_in_a_folder_of_any_name_runs_a_replay(tmp_path: Path) -> None:
    clone = tmp_path / "ICU data #1?a=b%25"
    subprocess.run(["git", "-c", "core.autocrlf=true", "clone", "--quiet", ROOT, clone], check=True)
    ward = synthetic(tmp_path / "a ward, 50%", "--patients", "3", "--days", "2")
    done = subprocess.run(
        [sys.executable, "-m", "embedded", "replay"],
        cwd=clone,
        env={**os.environ, "PATIENT_DATA": str(ward)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    # The champion has passed the check of its digest, and has predicted for every reading.
    assert result["predictions"] >= result["stored"] > 100
    assert (clone / "var").stat().st_mode & 0o077 == 0
