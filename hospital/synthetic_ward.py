"""Draws the patients, stays and vital signs of a synthetic ward; `synthetic` writes them."""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

import wire.vitals

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

OPEN = 0.30  # share of stays without a discharge at the end
READMISSIONS = 0.04  # share of stays
# Quantiles of the length of stay.
LENGTH_SHARES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
LENGTH_DAYS = (0.04, 0.12, 0.79, 1.47, 2.8, 7.7, 30)
GAP = 24  # minimum hours between two stays, so that they never share a day


@dataclass(frozen=True)
class Vital:
    """The model of one parameter. Standard deviations are in its unit.

    The figures are chosen so that the results, after severity, rounding and limits, have the
    statistics in the docstring of `hospital.synthetic`.
    """

    parameter: str
    mean: float
    between: float  # SD of patients' own levels
    swing: float  # SD of the Ornstein-Uhlenbeck process
    half_life: float  # half-life of the process, in hours
    noise: float  # SD of one measurement
    diurnal: float  # amplitude of the diurnal rhythm; highest at 17 h, lowest at 5 h
    dying: float  # mean at severity 1
    low: float
    high: float
    longest_gap: int = 1  # maximum number of hours between two charted values


VITALS = (
    Vital("blood_pressure", 128, 17.7, 10.7, 4.0, 7.6, 2.5, 89, 40, 250),
    Vital("respiration_rate", 17.9, 4.6, 1.92, 3.5, 1.44, 0.4, 28, 4, 60),
    Vital("temperature", 36.93, 0.557, 0.369, 5.0, 0.158, 0.15, 36.6, 32, 42, longest_gap=4),
    Vital("heart_rate", 76.5, 15.9, 5.2, 4.0, 2.6, 2.0, 115, 25, 220),
    Vital("spo2", 98.1, 2.26, 1.26, 3.0, 0.97, 0.0, 90, 50, 100),
)

COMA_SCALE = "gcs"
COMA_SCALE_GAP = 5  # maximum number of hours between two charted values
NOT_SCORED = 0.05  # share of patients whose coma scale is never charted
SEDATED = 0.4  # share of stays that begin under sedation
SEDATION_HOURS = 36.0  # mean duration of a sedation


@dataclass(frozen=True)
class Stays:
    """One entry per stay. Times are hours since midnight of the first day; lengths are in hours."""

    patient: Integers
    admission: Integers
    length: Integers  # until discharge or death, even after the end of the data
    shown: Integers  # until discharge, death or the end of the data
    acuity: Floats  # severity at admission
    died: Booleans

    @property
    def open(self) -> Booleans:
        return self.shown < self.length


def admit(random: Generator, patients: int, end: int) -> Stays:
    """Draws when patients are admitted, how long they stay, and whether they die.

    end: hours from the beginning to the end of the data.
    """
    length = lengths_of_stay(random, patients, end)
    is_open = random.permutation(patients) < round(OPEN * patients)
    # Patients who are still in the ICU at the end have spent a random part of their stay there. The
    # admissions of the others peak in the middle of the data.
    shown = np.where(is_open, 1 + drawn_below(random, length - 1), length)
    latest = end - length
    wave = np.floor(random.beta(2, 2, patients) * (latest + 1)).astype(np.int64)
    admission = np.where(is_open, end - shown, np.minimum(wave, latest))
    acuity, died = fates(random, patients)
    first = Stays(np.arange(patients), admission, length, shown, acuity, died)
    return joined(first, readmit(random, first, end))


def readmit(random: Generator, first: Stays, end: int) -> Stays:
    """Draws second stays of some patients who were discharged alive."""
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
    """Draws lengths of stay in hours, from 2 to `longest`, with the quantiles LENGTH_DAYS."""
    days = np.exp(np.interp(random.random(count), LENGTH_SHARES, np.log(LENGTH_DAYS)))
    hours: Integers = np.clip(np.rint(24 * days), 2, longest).astype(np.int64)
    return hours


def fates(random: Generator, count: int) -> tuple[Floats, Booleans]:
    """Draws the severity at admission, and whether the stay ends in death (about 10 % do)."""
    acuity = random.beta(2, 5, count)
    return acuity, random.random(count) < 0.35 * acuity


def drawn_below(random: Generator, limits: Integers) -> Integers:
    """Draws, for each limit, a whole number that is at least 0 and less than the limit."""
    return np.floor(random.random(len(limits)) * limits).astype(np.int64)


class Hours:
    """One entry per hour of each stay, stay by stay, until the end of the data."""

    def __init__(self, stays: Stays) -> None:
        self.stays = stays
        self.start = np.cumsum(stays.shown) - stays.shown  # the first row of each stay
        self.stay = np.repeat(np.arange(len(stays.shown)), stays.shown)
        self.since_admission = np.arange(len(self.stay)) - self.start[self.stay]
        self.clock = stays.admission[self.stay] + self.since_admission
        self.left = stays.length[self.stay] - 1 - self.since_admission

    def ornstein_uhlenbeck(self, random: Generator, half_life: float) -> Floats:
        """Draws a stationary Ornstein-Uhlenbeck process of SD 1 for each stay.

        half_life: in hours.
        """
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
        """The latent severity, 0 to 1: it drifts, recedes in survivors, and rises to 1 before a
        death.
        """
        died = self.stays.died[self.stay]
        drift = 0.5 * self.ornstein_uhlenbeck(random, half_life=12)
        recovery = np.where(died, 0, self.since_admission / 48)
        severity: Floats = np.minimum(self.stays.acuity[self.stay] * np.exp(drift - recovery), 1)
        decline = np.where(died, 1 / (1 + np.exp((self.left - 8) / 2)), 0)
        severity += (1 - severity) * decline
        return severity


def measure(random: Generator, vital: Vital, hours: Hours, severity: Floats) -> Floats:
    """Draws the values of one vital sign, one per hour."""
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
    values = np.clip(values, vital.low, vital.high).round(
        wire.vitals.VITALS[vital.parameter].digits or 0
    )
    return values


def charted(random: Generator, longest_gap: int, rows: int) -> Integers:
    """Draws the entries of `Hours` in which a parameter is charted."""
    at = np.cumsum(random.integers(1, longest_gap + 1, rows)) - 1
    return at[at < rows]


def coma_scale(random: Generator, hours: Hours, severity: Floats) -> Floats:
    """Draws the Glasgow Coma Scale, 3 to 15, one value per hour; NaN for a patient whose coma scale
    is never charted.

    It is 15 in most patients, low under sedation at the beginning of some stays, and falls as the
    severity rises.
    """
    stays, stay = hours.stays, hours.stay
    count = len(stays.length)
    awake = 15.4 - random.exponential(0.5, count)
    sedated = random.random(count) < SEDATED
    until = np.where(sedated, random.exponential(SEDATION_HOURS, count), -np.inf)
    depth = random.uniform(0.4, 1, count)
    sedation = depth[stay] / (1 + np.exp((hours.since_admission - until[stay]) / 1.5))
    lost = np.maximum(sedation, severity**2)
    variation = 0.4 * hours.ornstein_uhlenbeck(random, half_life=6)
    values: Floats = np.clip(awake[stay] + (3 - awake[stay]) * lost + variation, 3, 15).round()
    scored = random.random(stays.patient.max() + 1) >= NOT_SCORED
    return np.where(scored[stays.patient[stay]], values, np.nan)
