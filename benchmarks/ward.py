"""Writes the benchmarks' input: clean CSVs of any size. Every patient has one stay, and one reading
per hour of each of four parameters. signal.csv is in the order of the stream, so that in hindsight
mode line n (after the header) is message n.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

FIRST_DAY = date(2150, 1, 1)
FIRST_PATIENT = 100_001
ROWS = 200_000  # rows formatted at a time

# parameter: (mean, SD between patients, SD within a patient, decimals, lowest, highest)
PARAMETERS = {
    "blood_pressure": (122.0, 17.0, 13.7, 0, 40, 250),
    "respiration_rate": (19.5, 4.3, 2.7, 0, 4, 60),
    "temperature": (36.9, 0.5, 0.4, 1, 32, 42),
    "heart_rate": (83.0, 15.0, 7.5, 0, 25, 220),
}


@dataclass(frozen=True)
class Ward:
    """A folder with CSVs. staying: the share of the patients whose stay has no end. In hindsight
    mode only these patients get predictions.
    """

    folder: Path
    patients: int
    rows: int
    staying: float


def write(folder: Path, patients: int, rows: int, staying: float, seed: int = 1) -> Ward:
    """Writes age.csv, admission.csv and signal.csv. Writing 3 million rows takes one or two
    seconds."""
    random = np.random.default_rng([seed, patients, rows, round(staying * 1000)])
    folder.mkdir(parents=True, exist_ok=True)
    ids = np.arange(patients) + FIRST_PATIENT
    counts = np.full(patients, rows // patients)
    counts[: rows % patients] += 1
    start = random.integers(0, 24, patients)  # the first hour, on the day of admission
    end = start + (counts - 1) // len(PARAMETERS)
    open_ = np.zeros(patients, bool)
    open_[random.permutation(patients)[: round(patients * staying)]] = True
    ages = random.integers(18, 95, patients)
    with (folder / "age.csv").open("w") as file:
        file.write("pat_id;age\n")
        file.writelines(f"{i};{age}\n" for i, age in zip(ids.tolist(), ages.tolist(), strict=True))
    with (folder / "admission.csv").open("w") as file:
        file.write("pat_id;date_admission;date_discharge\n")
        file.writelines(
            f"{i};{FIRST_DAY};{'' if stays else FIRST_DAY + timedelta(days=hour // 24)}\n"
            for i, stays, hour in zip(ids.tolist(), open_.tolist(), end.tolist(), strict=True)
        )
    _write_signal(folder / "signal.csv", ids, counts, start, random)
    return Ward(folder, patients, rows, staying)


def _write_signal(
    path: Path, ids: Integers, counts: Integers, start: Integers, random: np.random.Generator
) -> None:
    """Writes the readings in the order of the stream. counts: the number of readings of each
    patient. start: the hour of each patient's first reading.
    """
    patients, rows = len(ids), int(counts.sum())
    first = np.cumsum(counts) - counts
    patient = np.repeat(np.arange(patients, dtype=np.int32), counts)
    place = np.arange(rows, dtype=np.int32) - np.repeat(first, counts).astype(np.int32)
    hour = start[patient].astype(np.int32) + place // len(PARAMETERS)
    order = np.argsort(hour, kind="stable")
    texts = [f"{i};" for i in ids.tolist()]
    times = [
        f"{FIRST_DAY + timedelta(days=day)};{hour};"
        for day in range(int(hour.max()) // 24 + 1)
        for hour in range(24)
    ]
    levels = np.array(list(PARAMETERS.values()))
    own = levels[:, 0] + random.standard_normal((patients, len(levels))) * levels[:, 1]
    with path.open("w") as file:
        file.write("pat_id;day;hour;parameter;value\n")
        for begin in range(0, rows, ROWS):
            some = order[begin : begin + ROWS]
            who, kind = patient[some], place[some] % len(PARAMETERS)
            _, _, within, decimals, low, high = levels[kind].T
            value = own[who, kind] + random.standard_normal(len(some)) * within
            tenths = np.round(np.clip(value, low, high) * 10**decimals) * 10 ** (1 - decimals)
            # A parameter and its value become one number, so that each text is formatted once.
            codes, pieces = np.unique(kind * 100_000 + tenths.astype(int), return_inverse=True)
            names = [_cells(*divmod(code, 100_000)) for code in codes.tolist()]
            file.writelines(
                [
                    texts[p] + times[t] + names[n]
                    for p, t, n in zip(
                        who.tolist(), hour[some].tolist(), pieces.tolist(), strict=True
                    )
                ]
            )


def _cells(kind: int, tenths: int) -> str:
    name = list(PARAMETERS)[kind]
    return f"{name};{tenths / 10:.1f}\n" if PARAMETERS[name][3] else f"{name};{tenths // 10}\n"
