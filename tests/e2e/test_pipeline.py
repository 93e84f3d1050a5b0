"""Tests the whole pipeline on the embedded stack, with the real programs, a real Redis
and SQLite.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import pytest

from embedded.programs import ROOT
from tests.support.oracle import check, table
from tests.support.pipeline import PROGRAMS, Pipeline, synthetic

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CSVs of twelve patients for three days."""
    folder = tmp_path_factory.mktemp("ward")
    return synthetic(folder, "--patients", "12", "--days", "3", "--seed", "1")


def test_the_tables_of_a_replay_in_hindsight_equal_those_that_pandas_computes(
    ward: Path, tmp_path: Path
) -> None:
    # The other tests replay live.
    with Pipeline(tmp_path, ward, REPLAY_MODE="hindsight", MODELAPI_WORKERS="2") as pipeline:
        pipeline.wait(pipeline.settled)
        check(ward, pipeline.database_url, "hindsight")
        # Each message was read once: no job was wrongly considered lost.
        assert pipeline.log("hospital").count("connected:") == 1
        assert pipeline.position()["seq"] == pipeline.health()["messages"]


def test_killed_programs_restart_and_nothing_is_lost_or_doubled(ward: Path, tmp_path: Path) -> None:
    # QUEUE_MAX keeps the stream from ending while the tool is down.
    settings = {"REPLAY_RATE": "100", "QUEUE_MAX": "200", "MODELAPI_WORKERS": "2"}
    with Pipeline(tmp_path, ward, **settings) as pipeline:

        def wait_for(number: int) -> None:
            pipeline.wait(lambda: pipeline.stored_up_to() >= number or pipeline.done())

        # The model API is the last, because the stream continues while it is down.
        for name in sorted(PROGRAMS, key="modelapi".__eq__):
            wait_for(pipeline.stored_up_to() + 100)
            assert not pipeline.position().get("ended"), name
            # All partitions must continue before the next kill, which could restart one that does
            # not.
            before = pipeline.stored_up_to()
            pipeline.kill(name)
            pipeline.start(name)
            wait_for(before + 50)
        pipeline.wait(pipeline.settled)
        check(ward, pipeline.database_url, "live")


def test_a_stopped_and_then_wiped_pipeline_resumes_after_the_last_stored_message(
    ward: Path, tmp_path: Path
) -> None:
    # QUEUE_MAX keeps the stream from ending while the tool is down.
    with Pipeline(tmp_path, ward, REPLAY_RATE="200", QUEUE_MAX="200") as pipeline:
        pipeline.wait(lambda: pipeline.committed() > 300)
        for name in reversed(PROGRAMS):
            pipeline.stop(name)
        before = len(table(pipeline.database_url, "readings"))
        pipeline.start(*PROGRAMS)
        pipeline.wait(lambda: pipeline.log("hospital").count("connected:") > 1)
        pipeline.wait(lambda: pipeline.committed() > 700)
        first, *later = re.findall(r"from message (\d+) of", pipeline.log("hospital"))
        pipeline.redis.flushall()
        pipeline.wait(pipeline.settled)
        assert 300 <= before < len(table(pipeline.database_url, "readings"))
        assert first == "1"
        assert later
        assert "1" not in later
        check(ward, pipeline.database_url, "live")


def test_make_replay_ends_by_itself_with_a_summary(ward: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "embedded", "replay"],
        cwd=ROOT,
        env={**os.environ, "PATIENT_DATA": str(ward)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout.splitlines()[-1])
    stored = table(f"sqlite:///{ROOT}/var/replay.sqlite", "readings")
    assert summary["stored"] == len(stored) > 1000
    assert summary["rejected"] == 0
    assert summary["messages"] > summary["stored"] >= summary["predictions"] > 0
    assert summary["start_s"] > 0
    assert summary["latency_ms"].keys() == {"p50", "p99"}
    assert summary["work_s"].keys() == {"database", "features", "model", "queue"}
    assert min(summary["work_s"].values()) > 0


def test_a_promotion_during_a_stream_omits_no_prediction(ward: Path, tmp_path: Path) -> None:
    with Pipeline(tmp_path, ward, REPLAY_RATE="300", MODELAPI_WORKERS="2") as pipeline:
        pipeline.wait(lambda: pipeline.committed() > 300)
        half = pipeline.health()["messages"] // 2
        with subprocess.Popen(
            [sys.executable, "-m", "modelapi", "promote", "news2", "2017"],
            cwd=ROOT,
            env=pipeline.environ,
        ) as promotion:
            # On a slow machine, the stream must not end before the promotion.
            pipeline.wait(lambda: pipeline.position()["seq"] > half)
            pipeline.send("hospital", signal.SIGSTOP)
            assert promotion.wait(60) == 0
        pipeline.wait(lambda: b"news2" in pipeline.redis.get("icu:declaration"))
        pipeline.send("hospital", signal.SIGCONT)
        pipeline.wait(pipeline.settled)
        readings = table(pipeline.database_url, "readings")
        made = table(pipeline.database_url, "predictions")
        by_model = {of: set(rows["seq"]) for of, rows in made.groupby(["model", "version"])}
        # The previous champion becomes a shadow, and the previous shadow remains one.
        shipped = [by_model.pop(("icu-mortality", version)) for version in "12"]
        assert shipped == [set(readings["seq"])] * 2
        assert by_model.keys() == {("news2", "2017")}
        # Each worker has switched to the new champion between two batches, so no prediction is
        # missing.
        parts = readings["pat_id"].map(lambda pat_id: crc32(str(pat_id).encode()) % 2)
        for part in (0, 1):
            seqs = set(readings.loc[parts == part, "seq"])
            new = by_model["news2", "2017"] & seqs
            assert 0 < len(new) < len(seqs)
            assert new == {seq for seq in seqs if seq >= min(new)}
        check(ward, pipeline.database_url, "live")
