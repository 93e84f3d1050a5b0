"""Alarm rules with low thresholds, so that synthetic patients, who are not very ill, have
alarms.
"""

from pathlib import Path

from embedded.programs import ROOT
from modelapi import champion
from modelapi.artifact import Ref
from modelapi.states import StateFile
from wire.alarms import Policy

RULES = {
    Ref("icu-mortality", "2"): Policy(at=0.1, clear=0.09, for_hours=1, silence_hours=2),
    Ref("icu-mortality", "1"): Policy(at=0.1, silence_hours=1, again_hours=6),
}


def set_rules(folder: Path) -> None:
    """Sets the rules of an embedded pipeline. Call this before its start."""
    states = StateFile(folder / "models.sqlite", ROOT / "models" / "default.json")
    for ref, rule in RULES.items():
        states.change(
            *("alarm", str(ref), "test"),
            lambda state, ref=ref, rule=rule: champion.set_alarm(state, ref, rule),  # type: ignore[misc]
        )
