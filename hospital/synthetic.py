"""Writes a synthetic ward: age.csv, admission.csv, signal.csv, and ground_truth.csv beside them.

Nobody in it is real, and nobody was: each value is drawn. A vital sign of a patient is the
patient's own level, a diurnal rhythm, an Ornstein-Uhlenbeck process (what the body does from hour
to hour), the pull of a latent severity between 0 and 1 towards the level of somebody dying, and
the noise of measuring. Severity drifts and as a rule recedes; before a death it rises to 1.

Calibrated to (hourly mean / SD between patients / SD within a patient):

    blood_pressure    122    / 17   / 13.7   mmHg, systolic; about 90 in the last hours before death
    respiration_rate   19.5  /  4.3 /  2.7   per minute
    temperature        36.87 /   .49 /  .40  degrees Celsius, charted every 1 to 4 hours
    heart_rate         83    / 15   /  7.5   per minute
    spo2               96.6  /  2.1 /  1.7   percent

    length of stay     .12 / .79 / 1.47 / 2.8 / 7.7 days (5 / 25 / 50 / 75 / 95 %)
    stays              about 30 % still open at the end, 4 % readmissions

The same options give the same bytes on any machine: one PCG64 generator, values rounded.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.random import PCG64, Generator

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

FIRST_DAY = date(2019, 1, 1)
FIRST_PATIENT = 100_001
OPEN = 0.30  # share of stays without a discharge at the end
READMISSIONS = 0.04  # share of stays
LENGTH_SHARES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
LENGTH_DAYS = (0.04, 0.12, 0.79, 1.47, 2.8, 7.7, 30)
GAP = 24  # hours at least between two stays, which so never share a day
ROWS = 100_000  # readings put into text at a time
TRUTH = "pat_id;date_admission;day;hour;severity;outcome;hours_left"


@dataclass(frozen=True)
class Vital:
    """How one parameter behaves. Standard deviations in its own unit.

    These are chosen so that what comes out, with severity's pull, rounding and limits, has the
    figures of the module's docstring.
    """

    parameter: str
    mean: float
    between: float  # SD of patients' own levels
    swing: float  # SD of the Ornstein-Uhlenbeck process
    half_life: float  # of the same, hours
    noise: float  # SD of one measurement
    diurnal: float  # amplitude; highest at 17 h, lowest at 5 h
    dying: float  # level at severity 1
    low: float
    high: float
    decimals: int
    longest_gap: int = 1  # hours from one charting to the next, at most


VITALS = (
    Vital("blood_pressure", 128, 17.7, 10.7, 4.0, 7.6, 2.5, 89, 40, 250, 0),
    Vital("respiration_rate", 17.9, 4.6, 1.92, 3.5, 1.44, 0.4, 28, 4, 60, 0),
    Vital("temperature", 36.93, 0.557, 0.369, 5.0, 0.158, 0.15, 36.6, 32, 42, 1, longest_gap=4),
    Vital("heart_rate", 76.5, 15.9, 5.2, 4.0, 2.6, 2.0, 115, 25, 220, 0),
    Vital("spo2", 98.1, 2.26, 1.26, 3.0, 0.97, 0.0, 90, 50, 100, 0),
)


@dataclass(frozen=True)
class Stays:
    """One row a stay. Times in hours since midnight of the first day, lengths in hours."""

    patient: Integers
    admission: Integers
    length: Integers  # until discharge or death, be it after the end of the data
    shown: Integers  # until then or the end of the data
    acuity: Floats  # severity at admission
    died: Booleans

    @property
    def open(self) -> Booleans:
        return self.shown < self.length


def admit(random: Generator, patients: int, end: int) -> Stays:
    """Draw who comes when, for how long and how it ends. `end` of the data: hours."""
    length = lengths_of_stay(random, patients, end)
    is_open = random.permutation(patients) < round(OPEN * patients)
    # Who is still in at the end came some part of the own stay before it. The others came in a
    # wave with its crest in the middle.
    shown = np.where(is_open, 1 + drawn_below(random, length - 1), length)
    latest = end - length
    wave = np.floor(random.beta(2, 2, patients) * (latest + 1)).astype(np.int64)
    admission = np.where(is_open, end - shown, np.minimum(wave, latest))
    acuity, died = fates(random, patients)
    first = Stays(np.arange(patients), admission, length, shown, acuity, died)
    return joined(first, readmit(random, first, end))


def readmit(random: Generator, first: Stays, end: int) -> Stays:
    """Draw the second stays of some who had left alive."""
    wanted = round(len(first.patient) * READMISSIONS / (1 - READMISSIONS))
    earliest = first.admission + first.length + GAP
    able = np.flatnonzero(~first.open & ~first.died & (earliest < end))
    again = random.permutation(able)[:wanted]
    length = lengths_of_stay(random, len(again), end)
    admission = earliest[again] + drawn_below(random, end - earliest[again])
    shown = np.minimum(length, end - admission)
    return Stays(first.patient[again], admission, length, shown, *fates(random, len(again)))


def joined(first: Stays, second: Stays) -> Stays:
    return Stays(
        *(
            np.concatenate([getattr(part, field.name) for part in (first, second)])
            for field in fields(Stays)
        )
    )


def lengths_of_stay(random: Generator, count: int, longest: int) -> Integers:
    """Hours, by the inverse of the distribution of LENGTH_DAYS, from 2 to `longest`."""
    days = np.exp(np.interp(random.random(count), LENGTH_SHARES, np.log(LENGTH_DAYS)))
    hours: Integers = np.clip(np.rint(24 * days), 2, longest).astype(np.int64)
    return hours


def fates(random: Generator, count: int) -> tuple[Floats, Booleans]:
    """Severity at admission and whether the stay ends in death, about 10 % of them."""
    acuity = random.beta(2, 5, count)
    return acuity, random.random(count) < 0.35 * acuity


def drawn_below(random: Generator, limits: Integers) -> Integers:
    """A whole number from 0 to each limit, that one excluded."""
    return np.floor(random.random(len(limits)) * limits).astype(np.int64)


class Hours:
    """One row an hour of a stay, stay after stay, as far as the data show it."""

    def __init__(self, stays: Stays) -> None:
        self.stays = stays
        self.start = np.cumsum(stays.shown) - stays.shown  # a stay's first row
        self.stay = np.repeat(np.arange(len(stays.shown)), stays.shown)
        self.since_admission = np.arange(len(self.stay)) - self.start[self.stay]
        self.clock = stays.admission[self.stay] + self.since_admission
        self.left = stays.length[self.stay] - 1 - self.since_admission

    def ornstein_uhlenbeck(self, random: Generator, half_life: float) -> Floats:
        """A stationary process of SD 1 that runs through each stay. Half-life in hours."""
        kept = 0.5 ** (1 / half_life)
        fresh = (1 - kept**2) ** 0.5
        process = random.standard_normal(len(self.stay))
        longest_first = np.argsort(-self.stays.shown, kind="stable")
        start, shown = self.start[longest_first], self.stays.shown[longest_first]
        for hour in range(1, int(shown[0])):
            row = start[: np.searchsorted(-shown, -hour)] + hour
            process[row] = kept * process[row - 1] + fresh * process[row]
        return process

    def severity(self, random: Generator) -> Floats:
        """Latent severity, 0 to 1: drifts, recedes in who lives, rises to 1 in who dies."""
        died = self.stays.died[self.stay]
        drift = 0.5 * self.ornstein_uhlenbeck(random, half_life=12)
        recovery = np.where(died, 0, self.since_admission / 48)
        severity: Floats = np.minimum(self.stays.acuity[self.stay] * np.exp(drift - recovery), 1)
        decline = np.where(died, 1 / (1 + np.exp((self.left - 8) / 2)), 0)
        severity += (1 - severity) * decline
        return severity


def measure(random: Generator, vital: Vital, hours: Hours, severity: Floats) -> Floats:
    """The values of one vital sign, one an hour."""
    patient = hours.stays.patient[hours.stay]
    level = vital.mean + vital.between * random.standard_normal(patient.max() + 1)[patient]
    rhythm = np.cos((hours.clock % 24 - 17) * (2 * np.pi / 24))
    values: Floats = (
        level
        + (vital.dying - level) * severity
        + vital.diurnal * rhythm
        + vital.swing * hours.ornstein_uhlenbeck(random, vital.half_life)
        + vital.noise * random.standard_normal(len(level))
    )
    values = np.clip(values, vital.low, vital.high).round(vital.decimals)
    return values


def charted(random: Generator, vital: Vital, rows: int) -> Integers:
    """The rows in which the vital sign was written down."""
    at = np.cumsum(random.integers(1, vital.longest_gap + 1, rows)) - 1
    return at[at < rows]


def write_ward(folder: Path, patients: int, days: int, seed: int) -> None:
    """Write the four files of one ward.

    Raises FileExistsError if one of the three inputs is there, OSError if it cannot write.
    """
    for name in ("age.csv", "admission.csv", "signal.csv"):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} is there already and is not overwritten")
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


def age_rows(ages: Floats) -> Iterator[str]:
    return (f"{FIRST_PATIENT + patient};{age}" for patient, age in enumerate(ages.tolist()))


def admission_rows(stays: Stays) -> Iterator[str]:
    for row in np.lexsort((stays.admission, stays.patient)).tolist():
        admission, length = int(stays.admission[row]), int(stays.length[row])
        discharge = "" if stays.open[row] else f"{day(admission + length - 1):%d/%m/%Y}"
        yield f"{FIRST_PATIENT + stays.patient[row]};{day(admission):%d/%m/%Y};{discharge}"


def signal_rows(random: Generator, hours: Hours, severity: Floats) -> Iterator[str]:
    """All readings in the order of time, then of patients."""
    at = [charted(random, vital, len(severity)) for vital in VITALS]
    values = [
        measure(random, vital, hours, severity)[rows]
        for vital, rows in zip(VITALS, at, strict=True)
    ]
    return readings_as_text(
        hours,
        row=np.concatenate(at),
        kind=np.repeat(np.arange(len(VITALS)), [len(rows) for rows in at]),
        value=np.concatenate(values),
    )


def readings_as_text(hours: Hours, row: Integers, kind: Integers, value: Floats) -> Iterator[str]:
    patient = FIRST_PATIENT + hours.stays.patient[hours.stay[row]]
    clock = hours.clock[row]
    days = [day(24 * number).isoformat() for number in range(clock.max() // 24 + 1)]
    names = [vital.parameter for vital in VITALS]
    in_time = np.lexsort((kind, patient, clock))
    for first in range(0, len(in_time), ROWS):
        some = in_time[first : first + ROWS]
        columns = (column[some].tolist() for column in (patient, clock, kind, value))
        for pat_id, hour, which, reading in zip(*columns, strict=True):
            yield f"{pat_id};{days[hour // 24]};{hour % 24};{names[which]};{reading}"


def truth_rows(hours: Hours, severity: Floats) -> Iterator[str]:
    """What a model is to find out: no service reads it."""
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
    """Write rows with their number first, as the original files have it; whole or not at all."""
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f";{header}\n")
        file.writelines(f"{number};{row}\n" for number, row in enumerate(rows))
    unfinished.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hospital.synthetic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--patients", type=positive, default=60, help="how many (60)")
    parser.add_argument("--days", type=positive, default=14, help="covered by the data (14)")
    parser.add_argument("--seed", type=positive, default=1, help="another seed, another ward (1)")
    parser.add_argument(
        "--to", type=Path, default=Path("patient_data"), help="into which folder (patient_data)"
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
