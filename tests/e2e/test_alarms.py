"""The alarms of the whole pipeline under kills, and between two replays."""

from pathlib import Path

import pandas as pd
import pytest

from modelapi import champion
from modelapi.artifact import Ref
from modelapi.champion import StateFile
from tests.support import alarm_oracle
from tests.support import pipeline as pipelines
from tests.support.oracle import at_rest, check, table
from tests.support.pipeline import ROOT, Pipeline, synthetic
from wire.alarms import Policy

pytestmark = pytest.mark.timeout(300)

# Low thresholds: the synthetic patients are not very ill.
RULES = {
    Ref("icu-mortality", "1"): Policy(at=0.1, clear=0.09, for_hours=1, silence_hours=2),
    Ref("formula", "1"): Policy(at=0.013, silence_hours=1, again_hours=6),
}
KILLS = {
    **{"predicted": 400, "committed": 800, "alarms-computed": 200},
    **{"alarms-inserted": 600, "alarms-committed": 1000},
}


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ward")
    return synthetic(folder, "--patients", "12", "--days", "3", "--seed", "1")


def set_rules(folder: Path) -> None:
    states = StateFile(folder / "models.sqlite", ROOT / "models" / "default.json")
    for ref, rule in RULES.items():
        states.change(
            *("alarm", str(ref), "test"),
            lambda state, ref=ref, rule=rule: champion.set_alarm(state, ref, rule),  # type: ignore[misc]
        )


def settled(pipeline: Pipeline) -> bool:
    return pipeline.done() and at_rest(pipeline.database_url) and alarms_done(pipeline.database_url)


def alarms_done(url: str) -> bool:
    """Whether the alarms of both models are computed up to the positions."""
    stored = table(url, "positions").set_index("part")["seq"].to_dict()
    done = table(url, "alarm_positions")
    return len(done) == len(RULES) * len(stored) and all(
        row.seq == stored[row.part] for row in done.itertuples()
    )


def alarms(url: str) -> pd.DataFrame:
    found = table(url, "alarms")
    return found.sort_values(["seq", "model"], ignore_index=True)


def test_alarms_are_the_same_whatever_is_killed_and_in_a_second_replay(
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
    assert set(expected["model"]) == {ref.model for ref in RULES}

    monkeypatch.setitem(pipelines.COMMANDS, "tool", "exec python -m tests.support.failing_tool")
    points = " ".join(f"{name}={seq}" for name, seq in KILLS.items())
    settings = {"FAIL_POINTS": points, "FAIL_MARKS": str(killed), "REPLAY_RATE": "400"}
    with Pipeline(killed, ward, **settings) as pipeline:
        pipeline.wait(lambda: pipeline.committed() > 300)
        pipeline.kill("modelapi")
        pipeline.wait(lambda: len(table(pipeline.database_url, "pending")) > 50)
        pipeline.start("modelapi")
        pipeline.wait(lambda: settled(pipeline))
        assert [name for name in KILLS if not (killed / name).exists()] == []
        pd.testing.assert_frame_equal(alarms(pipeline.database_url), expected)
        check(ward, pipeline.database_url, "live")
