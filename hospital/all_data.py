"""Writes all_data.csv: one line per message, in the order of the stream.

The columns `minute` and `second` exist only if a message has minutes or seconds, and `identifier`
and `place` only if there are admissions. For an input that needs none of them, the file and the
stream's name are the same as before these columns existed.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from hospital.cells import OPEN
from hospital.clock import END, SLOTS
from hospital.contents import Progress
from hospital.csv_file import Array
from hospital.readings import Readings
from hospital.stays import Stays, day_text

EVERY = 4096  # messages between two entries of the index


class Messages:
    """The messages of the stream as arrays. `order` has their indices in the order of the stream.

    Each message has an entry in `head` (type and stay), `slot` (moment), `name` and `value`.
    Admissions come before other messages of the same moment, and a discharge without a time comes
    at the end of its day.
    """

    def __init__(self, stays: Stays, readings: Readings) -> None:
        discharged = np.flatnonzero(stays.discharge != OPEN)
        named = [
            bool(one or other) for one, other in zip(stays.identifier, stays.place, strict=True)
        ]
        admitted = np.flatnonzero(named)
        admission_second = np.where(stays.admitted == END, 0, stays.admitted)[admitted]
        self.with_admissions = len(admitted) > 0
        self.admissions, self.readings = len(admitted), len(readings.stay)
        self.discharges = len(discharged)
        count = len(stays)
        self.slot = np.concatenate(
            [
                stays.admission[admitted] * SLOTS + admission_second,
                readings.slot,
                stays.discharge[discharged] * SLOTS + stays.discharged[discharged],
            ]
        )
        self.head = np.concatenate(
            [admitted, readings.stay + count, discharged + 2 * count]
        ).astype(np.int32)
        self.heads = [*_heads("admission", stays, self.with_admissions)]
        self.heads += _heads("reading", stays, self.with_admissions)
        self.heads += _heads("discharge", stays, self.with_admissions)
        self.names = [f"{name};" for name in (*readings.names, "")]
        self.name = np.full(len(self.slot), len(self.names) - 1, np.int32)
        self.value = np.full(len(self.slot), np.nan)
        middle = slice(self.admissions, self.admissions + self.readings)
        self.name[middle], self.value[middle] = readings.parameter, readings.value
        second = self.slot % SLOTS
        self.with_minutes = bool(((second % 3600 != 0) & (second != END)).any())
        self.clocks = [*_clocks(self.with_minutes)]
        self.order = np.argsort(self.slot, kind="stable")

    @property
    def header(self) -> str:
        of_admissions = "identifier;place;" if self.with_admissions else ""
        clock = "hour;minute;second" if self.with_minutes else "hour"
        return (
            f"type;pat_id;age;date_admission;date_discharge;{of_admissions}"
            f"day;{clock};parameter;value\n"
        )

    def lines(self, rows: Array) -> str:
        """The CSV lines of the messages with these indices."""
        codes, distinct = pd.factorize(self.value[rows])
        values = [*map(repr, distinct.tolist()), ""]  # NaN has code -1, which selects the last text
        day, second = np.divmod(self.slot[rows], SLOTS)
        day_codes, days = pd.factorize(day)
        day_texts = [f"{day_text(one)};" for one in days.tolist()]
        heads, clocks, names = self.heads, self.clocks, self.names
        return "".join(
            [
                f"{heads[h]}{day_texts[d]}{clocks[s]}{names[n]}{values[v]}\n"
                for h, d, s, n, v in zip(
                    self.head[rows].tolist(),
                    day_codes.tolist(),
                    second.tolist(),
                    self.name[rows].tolist(),
                    codes.tolist(),
                    strict=True,
                )
            ]
        )


def write(file: BinaryIO, messages: Messages) -> dict[str, Any]:
    """Writes the stream; returns the digest, the counts and the index, as entries of all_data.json.

    The index has one entry per EVERY messages: the position in bytes, the number of messages before
    it, and the number of messages before it that are not discharges.
    """
    order = messages.order
    last_kept = messages.admissions + messages.readings
    header = messages.header.encode()
    digest = hashlib.sha256(header)
    file.write(header)
    position, kept = len(header), 0
    offsets: list[tuple[int, int, int]] = []
    progress = Progress("all_data.csv: writing")
    for start in range(0, len(order), EVERY):
        offsets.append((position, start, kept))
        rows = order[start : start + EVERY]
        lines = messages.lines(rows).encode()
        file.write(lines)
        digest.update(lines)
        position += len(lines)
        kept += int((rows < last_kept).sum())
        progress.at(start, len(order))
    return {
        "sha256": digest.hexdigest(),
        "bytes": position,
        "messages": len(order),
        "readings": messages.readings,
        "discharges": messages.discharges,
        "admissions": messages.admissions,
        "every": EVERY,
        "offsets": offsets,
    }


def _heads(kind: str, stays: Stays, with_admissions: bool) -> Iterator[str]:
    """Yields, for each stay, the first columns of its messages of one type."""
    for pat_id, age, admission, discharge, identifier, place in zip(
        stays.pat_id.tolist(),
        stays.age.tolist(),
        stays.admission.tolist(),
        stays.discharge.tolist(),
        stays.identifier,
        stays.place,
        strict=True,
    ):
        extra = ""
        if with_admissions:
            extra = f"{identifier};{place};" if kind == "admission" else ";;"
        yield (
            f"{kind};{pat_id};{repr(age) if age == age else ''};"
            f"{day_text(admission)};{day_text(discharge)};{extra}"
        )


def _clocks(with_minutes: bool) -> Iterator[str]:
    """Yields the text of the columns with the time of day, for each second of a day and for END."""
    for second in range(END):
        hour, rest = divmod(second, 3600)
        yield f"{hour};{rest // 60};{rest % 60};" if with_minutes else f"{hour};"
    yield ";;;" if with_minutes else ";"
