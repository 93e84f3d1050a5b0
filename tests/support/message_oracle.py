"""The expected rows for a stream of messages, computed from the messages with pandas.

It uses no code of the services. `tests.support.oracle` does the same from CSV files.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

Frames = dict[str, pd.DataFrame]
STAY = ["pat_id", "date_admission"]
SIX_HOURS = pd.Timedelta("6h")


class Expected:
    """The tables after all messages. messages: each message by its number; all values must be
    plausible.
    """

    def __init__(self, messages: Mapping[int, bytes]) -> None:
        self.readings = pd.DataFrame(
            columns=["seq", *STAY, "measured_at", "parameter", "value", "text"]
        )
        self.stays: dict[tuple[int, str], dict[str, Any]] = {}
        self.withdrawn: list[tuple[int, int]] = []
        self.predictions: dict[int, dict[str, float | None]] = {}
        self.outcomes: list[tuple[Any, ...]] = []
        self.acknowledgements: list[tuple[Any, ...]] = []
        self.rejected: list[int] = []
        for seq, data in messages.items():
            try:
                take = getattr(self, f"_{json.loads(data)['type']}")
            except (ValueError, AttributeError):
                self.rejected.append(seq)
            else:
                take(seq, json.loads(data))

    def _reading(self, seq: int, message: dict[str, Any]) -> None:
        stay = self._stay(message)
        text = _text(message)
        self.readings.loc[len(self.readings)] = [
            *(seq, message["pat_id"], message["date_admission"]),
            *(pd.Timestamp(text), message["parameter"], message["value"], text),
        ]
        if stay["date_discharge"] is None:
            self.predictions[seq] = self._features(message, stay["age"])

    def _discharge(self, seq: int, message: dict[str, Any]) -> None:
        self._stay(message)["date_discharge"] = message["date_discharge"]

    def _admission(self, seq: int, message: dict[str, Any]) -> None:
        stay = self._stay(message)
        stay["date_discharge"] = None
        for name in ("place", "identifier"):
            stay[name] = message.get(name) or stay[name]

    def _withdrawal(self, seq: int, message: dict[str, Any]) -> None:
        readings = self.readings
        same = readings["seq"] == message["of"]
        for column in STAY:
            same &= readings[column] == message[column]
        if not same.any():
            self.rejected.append(seq)
            return
        self.withdrawn.append((seq, message["of"]))
        self.readings = readings[~same].reset_index(drop=True)

    def _outcome(self, seq: int, message: dict[str, Any]) -> None:
        what = (message["name"], message["value"], _text(message))
        self.outcomes.append((seq, message["pat_id"], message["date_admission"], *what))

    def _acknowledgement(self, seq: int, message: dict[str, Any]) -> None:
        what = (message.get("model"), message["author"], _text(message))
        self.acknowledgements.append((seq, message["pat_id"], message["date_admission"], *what))

    def _stay(self, message: dict[str, Any]) -> dict[str, Any]:
        new = dict.fromkeys(("age", "date_discharge", "identifier", "place"))
        stay = self.stays.setdefault((message["pat_id"], message["date_admission"]), new)
        if message["age"] is not None:
            stay["age"] = message["age"]
        return stay

    def _features(self, message: dict[str, Any], age: float | None) -> dict[str, float | None]:
        mine = self.readings
        for column in STAY:
            mine = mine[mine[column] == message[column]]
        clock = mine["measured_at"].max()
        hr = mine[mine["parameter"] == "heart_rate"].sort_values(["measured_at", "seq"])
        spo2 = mine[mine["parameter"] == "spo2"]
        return {
            "age": age,
            "heart_rate__mean": _or_none(hr["value"].mean()),
            "heart_rate__count": float(len(hr)),
            "heart_rate__last": _or_none(hr["value"].iloc[-1] if len(hr) else np.nan),
            "heart_rate__max__6h": _or_none(
                hr.loc[hr["measured_at"] > clock - SIX_HOURS, "value"].max()
            ),
            "spo2__age": _or_none((clock - spo2["measured_at"].max()) / pd.Timedelta("1h")),
        }

    def vitals(self) -> list[tuple[Any, ...]]:
        """The rows of `vitals`: (pat_id, date_admission, parameter, n, mean, m2, minimum, maximum,
        first_value, first_at, last_value, last_at).
        """
        found = []
        for key, group in self.readings.groupby([*STAY, "parameter"]):
            ordered = group.sort_values(["measured_at", "seq"])
            value = ordered["value"].astype(float)
            ends = [(ordered["value"].iloc[end], ordered["text"].iloc[end]) for end in (0, -1)]
            found.append(
                (
                    *(*key, len(value), value.mean(), value.var(ddof=0) * len(value)),
                    *(value.min(), value.max(), *ends[0], *ends[1]),
                )
            )
        return sorted(found, key=lambda row: row[:3])


def _text(message: dict[str, Any]) -> str:
    hour, minute, second = (message.get(name, 0) for name in ("hour", "minute", "second"))
    return f"{message['day']} {hour:02}:{minute:02}:{second:02}"


def _or_none(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
