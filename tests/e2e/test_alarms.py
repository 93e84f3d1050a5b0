"""Compares the alarms of an undisturbed replay with those of a replay with kills, and with the
alarms that a webhook has received in the second replay.
"""

from pathlib import Path

import pandas as pd
import pytest

from tests.support import alarm_oracle
from tests.support import pipeline as pipelines
from tests.support.alarm_rules import RULES, set_rules
from tests.support.oracle import check, table
from tests.support.pipeline import Pipeline, synthetic
from tests.support.receiver import Receiver

pytestmark = pytest.mark.timeout(300)

KILLS = {
    **{"predicted": 400, "committed": 800, "alarms-computed": 200},
    **{"alarms-inserted": 600, "alarms-committed": 1000},
    **{"alarm-accepted": 300, "alarm-sent": 700},
}


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ward")
    return synthetic(folder, "--patients", "12", "--days", "3", "--seed", "1")


def settled(pipeline: Pipeline) -> bool:
    url = pipeline.database_url
    return pipeline.settled() and alarms_done(url) and table(url, "outbox").empty


def alarms_done(url: str) -> bool:
    """Whether the alarms of both models are computed up to the stored positions."""
    stored = table(url, "positions").set_index("part")["seq"].to_dict()
    done = table(url, "alarm_positions")
    return len(done) == len(RULES) * len(stored) and all(
        row.seq == stored[row.part] for row in done.itertuples()
    )


def alarms(url: str) -> pd.DataFrame:
    found = table(url, "alarms")
    return found.sort_values(["seq", "version"], ignore_index=True)


def test_a_second_replay_with_kills_gives_the_same_alarms(
    ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for folder in (calm, killed):
        folder.mkdir()
        set_rules(folder)
    with Pipeline(calm, ward) as pipeline:
        pipeline.wait(lambda: settled(pipeline))
        expected = alarms(pipeline.database_url)
        alarm_oracle.check(pipeline.database_url)
    assert {"raise", "clear"} <= set(expected["kind"])
    assert set(expected["version"]) == {ref.version for ref in RULES}

    monkeypatch.setitem(pipelines.COMMANDS, "tool", "exec python -m tests.support.failing_tool")
    points = " ".join(f"{name}={seq}" for name, seq in KILLS.items())
    settings = {"FAIL_POINTS": points, "FAIL_MARKS": str(killed), "REPLAY_RATE": "400"}
    with (
        Receiver(lambda number: 503 if number % 7 == 3 else 200) as receiver,
        Pipeline(killed, ward, ALARM_WEBHOOK=receiver.url, **settings) as pipeline,
    ):
        pipeline.wait(lambda: pipeline.committed() > 300)
        pipeline.kill("modelapi")
        pipeline.wait(lambda: len(table(pipeline.database_url, "pending")) > 50)
        pipeline.start("modelapi")
        pipeline.wait(lambda: settled(pipeline))
        assert [name for name in KILLS if not (killed / name).exists()] == []
        pd.testing.assert_frame_equal(alarms(pipeline.database_url), expected)
        check(ward, pipeline.database_url, "live")
        received = pd.DataFrame(receiver.accepted)
        assert len(receiver.requests) > len(received)
    stay = ["pat_id", "date_admission", "version"]
    # The receiver has got the events of each stay in order.
    for _, events in received.groupby(stay):
        assert events["seq"].is_monotonic_increasing
    columns = ["seq", "version", "kind", "raised_seq", "pat_id"]
    received = received.sort_values(["seq", "version"], ignore_index=True)
    pd.testing.assert_frame_equal(received[columns], expected[columns])
