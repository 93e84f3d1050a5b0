"""Runs `python -m tool backfill` beside a running pipeline, and kills the command while it
writes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embedded.programs import ROOT
from tests.support.pipeline import Pipeline, synthetic
from tests.support.servers import rows

pytestmark = pytest.mark.timeout(200)

MODEL = ROOT / "models" / "icu-mortality" / "1"


def twins(folder: Path) -> Path:
    """A folder with the same model under two names, `early` and `late`. `early` is the champion."""
    for name in ("early", "late"):
        copy = folder / name / "1"
        shutil.copytree(MODEL, copy)
        manifest = json.loads((MODEL / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps({**manifest, "model": name}))
    state = {"champion": {"model": "early", "version": "1"}, "shadows": []}
    (folder / "default.json").write_text(json.dumps(state))
    return folder


def predictions(pipeline: Pipeline, model: str) -> list[Any]:
    columns = "seq, pat_id, measured_at, output, reason"
    where = f"WHERE model = '{model}' AND seq % 10 = 0"
    values = f"SELECT seq, feature, value FROM prediction_features {where}"
    found = rows(
        pipeline.database_url,
        f"SELECT {columns} FROM predictions WHERE model = '{model}' ORDER BY seq",
    )
    found += rows(pipeline.database_url, f"{values} ORDER BY seq, feature")
    return [[f"{v:.9g}" if isinstance(v, float) else v for v in row] for row in found]


def command(pipeline: Pipeline, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, env=pipeline.environ)


def test_a_backfill_beside_the_stream_adds_each_prediction_once(tmp_path: Path) -> None:
    ward, models = tmp_path / "ward", tmp_path / "models"
    ward.mkdir()
    models.mkdir()
    synthetic(ward, "--patients", "8", "--days", "3", "--seed", "3")
    backfill = ("tool", "backfill", "late", "1")
    settings = {"MODELS": str(twins(models)), "REPLAY_RATE": "60"}
    with Pipeline(tmp_path / "run", ward, **settings) as pipeline:
        pipeline.wait(lambda: pipeline.committed() > 100)
        killed = command(pipeline, *backfill)
        some = "SELECT 1 FROM predictions WHERE model = 'late' LIMIT 1"
        pipeline.wait(lambda: rows(pipeline.database_url, some) != [])
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        # From here on, the version is also a shadow for the stream that is running.
        assert command(pipeline, "modelapi", "shadow", "late", "1").wait() == 0
        pipeline.kill("hospital")
        pipeline.environ["REPLAY_RATE"] = "0"
        pipeline.start("hospital")
        pipeline.wait(pipeline.settled)
        # A second backfill adds the rest, up to the readings that were stored just before the new
        # declaration.
        assert command(pipeline, *backfill).wait() == 0
        assert predictions(pipeline, "late") == predictions(pipeline, "early")
        assert rows(pipeline.database_url, "SELECT COUNT(*) FROM pending") == [(0,)]
        assert rows(pipeline.database_url, "SELECT role FROM models WHERE model = 'late'") == [
            ("shadow",)
        ]
