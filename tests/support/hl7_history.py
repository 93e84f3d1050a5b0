"""Random histories of a ward in HL7, and the readings that remain valid at the end.

The readings are computed with pandas, from the sent messages only, without code of the services.
"""

import random
from collections.abc import Callable
from typing import Any

import pandas as pd

from tests.support.gateway import hl7
from tests.support.hl7_corpus import obx

ZONE = "Europe/Berlin"
CODES = {"heart_rate": ("8867-4^HR^LN", "/min"), "spo2": ("59408-5^SpO2^LN", "%")}
# Nights in which daylight saving time begins or ends.
NIGHTS = ("2026-03-28", "2026-10-24")


class History:
    """The patients of one ward. All were admitted on the same day."""

    def __init__(self, seed: int, patients: int = 4) -> None:
        self._random = random.Random(seed)
        self.day = pd.Timestamp(NIGHTS[seed % 2])
        self.messages: list[bytes] = []
        self._control = 0
        self._minute = 0
        self._true: dict[str, dict[str, Any]] = {}  # by filler number
        self.open = {f"P{n}": True for n in range(patients)}
        self.owner = {name: name for name in self.open}  # after merges
        for name in self.open:
            self._move("A01", name, self.day + pd.Timedelta("8h"))

    def play(self, steps: int) -> None:
        """Adds random events, and then one reading for each patient who is on the ward."""
        kinds: dict[int, Callable[[], object]] = {
            **dict.fromkeys(range(8), self._reading),
            **dict.fromkeys((8, 9), self._correct),
            10: self._withdraw,
            11: self._late,
            12: self._leave,
            13: self._come_back,
            14: self._cancel,
            15: self._merge,
        }
        for _ in range(steps):
            # Merges and cancelled admissions are rarer, because they remove patients and readings.
            number = self._random.randrange(14 if self._random.random() < 0.9 else 16)
            kinds[number]()
        for name in self.present():
            self._reading(name)

    def frame(self) -> pd.DataFrame:
        """The readings that remain valid: patient, parameter, measured_at, value."""
        rows = [
            {**row, "patient": self.owner[row["patient"]], "filler": filler}
            for filler, row in self._true.items()
        ]
        return pd.DataFrame(
            rows, columns=["patient", "parameter", "measured_at", "value", "filler"]
        )

    def present(self) -> list[str]:
        """The patients who are on the ward."""
        return [name for name, here in self.open.items() if here and self.owner[name] == name]

    def _reading(self, patient: str = "", late: str = "0h") -> str:
        present = self.present()
        patient = patient or (self._random.choice(present) if present else "")
        if not patient:
            return ""
        filler = f"F{len(self.messages)}"
        self._minute += self._random.randint(1, 11)
        wall = self.day + pd.Timedelta("22h") + pd.Timedelta(minutes=self._minute)
        wall -= pd.Timedelta(late)
        parameter = self._random.choice(list(CODES))
        text, at = self._time(wall)
        value = round(self._random.uniform(60, 99), 1)
        row = {"patient": patient, "parameter": parameter, "measured_at": at, "value": value}
        self._true[filler] = row | {"text": text}
        self._oru(filler, value, "F")
        return filler

    def _time(self, wall: pd.Timestamp) -> tuple[str, pd.Timestamp]:
        """Returns a time as a sender writes it, at random with or without an offset, and as the
        ward's clock shows it.
        """
        if self._random.random() < 0.5:
            local = wall.tz_localize("UTC").tz_convert(ZONE)
            return f"{wall:%Y%m%d%H%M%S}+0000", local.tz_localize(None)
        local = wall.tz_localize(ZONE, ambiguous=True, nonexistent=pd.Timedelta("1h"))
        return f"{wall:%Y%m%d%H%M%S}", local.tz_localize(None)

    def _late(self) -> None:
        self._reading(late="90min")

    def _correct(self) -> None:
        filler = self._pick()
        if filler:
            self._true[filler]["value"] = round(self._random.uniform(60, 99), 1)
            self._oru(filler, self._true[filler]["value"], self._random.choice("FC"))

    def _withdraw(self) -> None:
        filler = self._pick()
        if filler:
            self._oru(filler, "", self._random.choice("DWX"))
            del self._true[filler]

    def _leave(self) -> None:
        present = self.present()
        if len(present) > 1:
            name = self._random.choice(present)
            self.open[name] = False
            self._move("A03", name, self._now())

    def _come_back(self) -> None:
        away = [n for n, here in self.open.items() if not here and self.owner[n] == n]
        if away:
            name = self._random.choice(away)
            self.open[name] = True
            self._move("A13", name, self._now())

    def _cancel(self) -> None:
        """Cancels an admission, and admits the patient again."""
        present = self.present()
        if present:
            name = self._random.choice(present)
            self._move("A11", name, self._now())
            gone = [f for f, row in self._true.items() if self.owner[row["patient"]] == name]
            for filler in gone:
                del self._true[filler]
            self._move("A01", name, self.day + pd.Timedelta("8h"))

    def _merge(self) -> None:
        present = self.present()
        if len(present) > 1:
            survivor, prior = self._random.sample(present, 2)
            for name, owner in self.owner.items():
                self.owner[name] = survivor if owner == prior else owner
            patient = (f"PID|||{survivor}^^^H^MR", f"MRG|{prior}^^^H^MR")
            self._send("ADT^A40", f"EVN|A40|{self._now():%Y%m%d%H%M%S}", *patient)

    def _pick(self) -> str:
        here = [f for f, row in self._true.items() if self.open[self.owner[row["patient"]]]]
        return self._random.choice(here) if here else ""

    def _now(self) -> pd.Timestamp:
        """A time that is later than all readings, on any clock."""
        return self.day + pd.Timedelta("26h") + pd.Timedelta(minutes=self._minute)

    def _move(self, event: str, patient: str, at: pd.Timestamp) -> None:
        patient_and_bed = (f"PID|||{patient}^^^H^MR||||19601231", "PV1||I|ICU^1^1")
        self._send(f"ADT^{event}", f"EVN|{event}|{at:%Y%m%d%H%M%S}", *patient_and_bed)

    def _oru(self, filler: str, value: object, status: str) -> None:
        row = self._true[filler]
        code, unit = CODES[row["parameter"]]
        patient = (f"PID|||{row['patient']}^^^H^MR", "PV1||I|ICU^1^1", f"OBR|1||{filler}^L")
        text = obx(code, str(value), unit, status, row["text"])
        self._send("ORU^R01", *patient, text)

    def _send(self, kind: str, *segments: str) -> None:
        self._control += 1
        self.messages.append(hl7(kind, *segments, control=str(self._control)))
