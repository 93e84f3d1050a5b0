"""Tests that several tools share the partitions of one pipeline."""

from collections import Counter
from pathlib import Path

import pytest

from tests.support.oracle import check
from tests.support.pipeline import Pipeline, synthetic
from wire.keys import lease_key

pytestmark = pytest.mark.timeout(300)

TOOLS = ("tool", "tool-2", "tool-3")


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ward")
    return synthetic(folder, "--patients", "12", "--days", "4", "--seed", "2")


@pytest.fixture
def pipeline(ward: Path, tmp_path: Path) -> Pipeline:
    """A pipeline with four partitions."""
    return Pipeline(tmp_path, ward, PARTITIONS="4", REPLAY_RATE="40", LOG_LEVEL="DEBUG")


def holders(pipeline: Pipeline) -> list[bytes | None]:
    """The id of each partition's tool; None for a partition without one."""
    found: list[bytes | None] = pipeline.redis.mget(lease_key(part) for part in range(4))
    return found


def shares(pipeline: Pipeline) -> list[int]:
    """The number of partitions of each tool, largest first; empty if a partition has no tool."""
    found = holders(pipeline)
    return [] if None in found else sorted(Counter(found).values(), reverse=True)


def store(pipeline: Pipeline, tool: str) -> None:
    """Waits until this tool has stored a batch after it last took a lease."""
    pipeline.wait(lambda: " stored, " in pipeline.log(tool).rpartition("lease taken")[2])


def test_tools_that_join_leave_and_die_share_the_partitions_evenly(
    ward: Path, pipeline: Pipeline
) -> None:
    with pipeline:
        pipeline.wait(lambda: shares(pipeline) == [4])
        store(pipeline, "tool")
        pipeline.start("tool-2")
        pipeline.wait(lambda: shares(pipeline) == [2, 2])
        store(pipeline, "tool-2")
        pipeline.start("tool-3")
        pipeline.wait(lambda: shares(pipeline) == [2, 1, 1])
        store(pipeline, "tool-3")
        pipeline.stop("tool-2")
        pipeline.wait(lambda: shares(pipeline) == [2, 2])
        for name in TOOLS:
            assert "another worker was faster" not in pipeline.log(name)
        before = set(holders(pipeline))
        pipeline.kill("tool")
        pipeline.wait(lambda: shares(pipeline) == [4])
        assert set(holders(pipeline)) < before
        pipeline.start("tool")
        pipeline.wait(lambda: shares(pipeline) == [2, 2])
        held = holders(pipeline)
        pipeline.redis.flushall()
        pipeline.wait(lambda: shares(pipeline) == [2, 2])
        assert holders(pipeline) == held
        # The rest of the stream is sent at full speed.
        pipeline.kill("hospital")
        pipeline.environ["REPLAY_RATE"] = "0"
        pipeline.start("hospital")
        pipeline.wait(pipeline.settled)
        check(ward, pipeline.database_url, "live")
