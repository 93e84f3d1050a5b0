"""Computes, with pandas, the alarms that follow from the rows of a database.

It reads the predictions, acknowledgements and discharges, and the rules in the JSON of the table
`models`. It uses no code of the services.
"""

import json
from typing import Any

import pandas as pd

from tests.support.oracle import table

STAY = ["stream", "pat_id", "date_admission"]
COLUMNS = ["stream", "seq", "model", "version", "kind", "raised_seq", "happened_at", "author"]


def check(database_url: str) -> str:
    """Compares the table `alarms` with the expected alarms; raises AssertionError at a difference.
    Returns a summary.
    """
    found = table(database_url, "alarms").sort_values(COLUMNS[:4], ignore_index=True)
    found["happened_at"] = pd.to_datetime(found["happened_at"])
    wanted = expected(database_url).sort_values(COLUMNS[:4], ignore_index=True)
    assert len(found) == len(wanted), f"{len(found)} alarms, {len(wanted)} expected"
    for column in COLUMNS:
        left, right = found[column], wanted[column]
        same = (left == right) | (left.isna() & right.isna())
        assert same.all(), f"{column}: {found[~same].head(3)} but {wanted[~same].head(3)}"
    return f"{len(found)} alarms: all equal"


def expected(database_url: str) -> pd.DataFrame:
    """The events of all alarms of every model that has an alarm rule, with the columns COLUMNS."""
    events = []
    for row in table(database_url, "models", "alarm IS NOT NULL").itertuples():
        events += _events(database_url, row.model, row.version, json.loads(row.alarm))
    found = pd.DataFrame(events, columns=COLUMNS)
    return found.assign(happened_at=pd.to_datetime(found["happened_at"]))


def _events(url: str, model: str, version: str, rule: dict[str, Any]) -> list[dict[str, Any]]:
    of_model = f"model = '{model}' AND version = '{version}'"
    predictions = table(url, "predictions", f"{of_model} AND output IS NOT NULL")
    predictions = predictions.assign(what="p", at=predictions["measured_at"])
    acknowledged = table(url, "acknowledgements", f"model IS NULL OR model = '{model}'")
    acknowledged = acknowledged.assign(what="a", at=acknowledged["acknowledged_at"])
    discharged = table(url, "discharges")
    discharged = discharged.assign(what="d", at=discharged["happened_at"])
    some = [frame for frame in (predictions, acknowledged, discharged) if len(frame)]
    if not some:
        return []
    inputs = pd.concat(some).sort_values("seq")
    inputs["at"] = pd.to_datetime(inputs["at"])
    found = []
    for (stream, _, _), stay in inputs.groupby(STAY):
        same = {"stream": stream, "model": model, "version": version}
        found += [same | event for event in _of_stay(stay, rule)]
    return found


def _of_stay(stay: pd.DataFrame, rule: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of one stay. The rule's times are in hours."""
    clear_below = rule["at"] if rule.get("clear") is None else rule["clear"]
    persistence, silence = _hours(rule["for_hours"]), _hours(rule["silence_hours"])
    again = _hours(rule["again_hours"]) if rule.get("again_hours") is not None else None
    events: list[dict[str, Any]] = []
    run_from = active = last_raised = snoozed = None
    now, first = pd.Timestamp.min, None
    learned = _hours(rule["learned_hours"]) if rule.get("learned_hours") is not None else None
    for each in stay.itertuples():
        if each.what == "a":
            if active is not None:
                snoozed = (max(now, each.at) + _hours(each.snooze_hours)).round("s")
                events.append(
                    {"seq": each.seq, "kind": "acknowledge", "raised_seq": active}
                    | {"happened_at": each.at, "author": each.author}
                )
            continue
        now = max(now, each.at)
        if each.what == "p":
            first = each.at if first is None else min(first, each.at)
        outside = learned is not None and first is not None and now - first >= learned
        quiet = snoozed is not None and now < snoozed
        kind, raised = "", active
        if each.what == "d" or each.output < rule["at"]:
            run_from = None
        elif run_from is None:
            run_from = now
        if active is not None:
            if each.what == "d" or each.output < clear_below:
                kind = "clear"
                active = snoozed = None
            elif (
                again is not None
                and run_from is not None
                and not (quiet or outside)
                and now - last_raised >= again
            ):
                kind = "again"
                last_raised = now
        elif not outside and (
            run_from is not None
            and now - run_from >= persistence
            and (last_raised is None or now - last_raised >= silence)
        ):
            kind, raised = "raise", each.seq
            active, last_raised = each.seq, now
        if kind:
            events.append(
                {"seq": each.seq, "kind": kind, "raised_seq": raised, "happened_at": now}
                | {"author": None}
            )
    return events


def _hours(number: float) -> pd.Timedelta:
    return pd.Timedelta(seconds=round(number * 3600))
