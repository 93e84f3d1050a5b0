"""Writes a synthetic ward: age.csv, admission.csv, signal.csv and ground_truth.csv.

No patient is real: every value is random. A vital sign is the sum of the patient's own level, a
diurnal rhythm, an Ornstein-Uhlenbeck process (variation from hour to hour) and measurement noise. A
latent severity between 0 and 1 pulls it towards the level of a dying patient. Severity drifts and
usually recedes; before a death it rises to 1.

Calibrated to (hourly mean / SD between patients / SD within a patient):

    blood_pressure    122    / 17   / 13.7   mmHg, systolic; about 90 in the last hours before death
    respiration_rate   19.5  /  4.3 /  2.7   per minute
    temperature        36.87 /   .49 /  .40  degrees Celsius, charted every 1 to 4 hours
    heart_rate         83    / 15   /  7.5   per minute
    spo2               96.6  /  2.1 /  1.7   percent
    gcs                13.0  /  2.6 /  2.0   3 to 15, charted every 1 to 5 hours

    length of stay     .12 / .79 / 1.47 / 2.8 / 7.7 days (5 / 25 / 50 / 75 / 95 %)
    stays              about 30 % still open at the end, 4 % readmissions

The same options give the same bytes on any machine, because one PCG64 generator draws all values,
and all values are rounded.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from io import TextIOWrapper
from pathlib import Path

import numpy as np
from numpy.random import PCG64, Generator

from hospital.files import create, unfinished
from hospital.synthetic_mark import INPUTS, mark
from hospital.synthetic_ward import (
    COMA_SCALE,
    COMA_SCALE_GAP,
    VITALS,
    Floats,
    Hours,
    Integers,
    Stays,
    admit,
    charted,
    coma_scale,
    measure,
)

FIRST_DAY = date(2019, 1, 1)
FIRST_PATIENT = 100_001
ROWS = 100_000  # readings formatted at a time
TRUTH = "pat_id;date_admission;day;hour;severity;outcome;hours_left"


def write_ward(folder: Path, patients: int, days: int, seed: int) -> None:
    """Writes the four files of a ward, and synthetic.json, which marks them as synthetic.

    Raises FileExistsError if one of the three inputs exists, and OSError if it cannot write.
    """
    for name in INPUTS:
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} exists and is not overwritten")
    random = Generator(PCG64(seed))
    age = random.normal(63, 17, patients).clip(18, 90).round(1)
    stays = admit(random, patients, 24 * days)
    hours = Hours(stays)
    severity = hours.severity(random)
    signal = signal_rows(random, hours, severity)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "ground_truth.csv", TRUTH, truth_rows(hours, severity))
    write(folder / "age.csv", "pat_id;age", age_rows(age))
    write(folder / "admission.csv", "pat_id;date_admission;date_discharge", admission_rows(stays))
    write(folder / "signal.csv", "pat_id;day;hour;parameter;value", signal)
    mark(folder, patients=patients, days=days, seed=seed)
    for name in (*INPUTS, "ground_truth.csv"):
        unfinished(folder, name).replace(folder / name)


def age_rows(ages: Floats) -> Iterator[str]:
    return (f"{FIRST_PATIENT + patient};{age}" for patient, age in enumerate(ages.tolist()))


def admission_rows(stays: Stays) -> Iterator[str]:
    for row in np.lexsort((stays.admission, stays.patient)).tolist():
        admission, length = int(stays.admission[row]), int(stays.length[row])
        discharge = "" if stays.open[row] else f"{day(admission + length - 1):%d/%m/%Y}"
        yield f"{FIRST_PATIENT + stays.patient[row]};{day(admission):%d/%m/%Y};{discharge}"


def signal_rows(random: Generator, hours: Hours, severity: Floats) -> Iterator[str]:
    """Yields all readings, in order of time and patient."""
    at = [charted(random, vital.longest_gap, len(severity)) for vital in VITALS]
    values = [
        measure(random, vital, hours, severity)[rows]
        for vital, rows in zip(VITALS, at, strict=True)
    ]
    scale = coma_scale(random, hours, severity)
    scored = charted(random, COMA_SCALE_GAP, len(severity))
    scored = scored[~np.isnan(scale[scored])]
    at.append(scored)
    values.append(scale[scored])
    return readings_as_text(
        hours,
        row=np.concatenate(at),
        kind=np.repeat(np.arange(len(at)), [len(rows) for rows in at]),
        value=np.concatenate(values),
    )


def readings_as_text(hours: Hours, row: Integers, kind: Integers, value: Floats) -> Iterator[str]:
    patient = FIRST_PATIENT + hours.stays.patient[hours.stay[row]]
    clock = hours.clock[row]
    days = [day(24 * number).isoformat() for number in range(clock.max() // 24 + 1)]
    names = [*(vital.parameter for vital in VITALS), COMA_SCALE]
    in_time = np.lexsort((kind, patient, clock))
    for first in range(0, len(in_time), ROWS):
        some = in_time[first : first + ROWS]
        columns = (column[some].tolist() for column in (patient, clock, kind, value))
        for pat_id, hour, which, reading in zip(*columns, strict=True):
            yield f"{pat_id};{days[hour // 24]};{hour % 24};{names[which]};{reading}"


def truth_rows(hours: Hours, severity: Floats) -> Iterator[str]:
    """Yields the latent severities, which a model tries to estimate; no service reads them."""
    stays = hours.stays
    outcome = np.where(stays.died, "died", "recovered").tolist()
    admission = [day(hour).isoformat() for hour in stays.admission.tolist()]
    patient = (FIRST_PATIENT + stays.patient).tolist()
    columns = (hours.stay, hours.clock, np.round(severity, 4), hours.left)
    for stay, hour, risk, left in zip(*(column.tolist() for column in columns), strict=True):
        yield (
            f"{patient[stay]};{admission[stay]};{day(hour).isoformat()};{hour % 24};"
            f"{risk};{outcome[stay]};{left}"
        )


def day(hour: int) -> date:
    return FIRST_DAY + timedelta(days=hour // 24)


def write(path: Path, header: str, rows: Iterable[str]) -> None:
    """Writes the rows to an unfinished file, each after its number, as in hospitals' exports."""
    with TextIOWrapper(create(unfinished(path.parent, path.name)), encoding="utf-8") as file:
        file.write(f";{header}\n")
        file.writelines(f"{number};{row}\n" for number, row in enumerate(rows))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hospital.synthetic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--patients", type=positive, default=60, help="number of patients (default: 60)"
    )
    parser.add_argument("--days", type=positive, default=14, help="number of days (default: 14)")
    parser.add_argument(
        "--seed", type=positive, default=1, help="seed of the random generator (default: 1)"
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("patient_data"),
        help="output folder (default: patient_data)",
    )
    chosen = parser.parse_args()
    try:
        write_ward(chosen.to, chosen.patients, chosen.days, chosen.seed)
    except OSError as error:
        print(f"hospital.synthetic: {error}", file=sys.stderr)
        return 1
    return 0


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
