"""The records that importers yield, and the report of the data that they convert or drop."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, NamedTuple

from training.errors import TrainingError

#: Ages above 89 are identifying (HIPAA), so data sets replace them, each in its own way: 90, 91,
#: 100, 300. Importers write all of them as the median age of the patients that MIMIC-III gave an
#: age of 300 (https://mimic.mit.edu/docs/iii/tables/patients/).
ABOVE_89 = 91.4


class ImportFailure(TrainingError):
    """The source cannot be imported; the message is one line for the user."""


class Stay(NamedTuple):
    """One stay. outcome: the columns of outcome.csv without the key."""

    pat_id: int
    date_admission: date
    date_discharge: date | None
    age: float | None
    outcome: Mapping[str, object]


class Reading(NamedTuple):
    """One value, charted at minute `minute` (0-1439) of `day`."""

    pat_id: int
    day: date
    minute: int
    parameter: str
    value: float


@dataclass
class Report:
    """What an import read, converted and dropped. readings: counts by parameter. converted,
    dropped: counts by reason."""

    notes: list[str] = field(default_factory=list)
    converted: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    stays: int = 0
    readings: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as a dict for JSON, with the most frequent counts first."""
        return {
            "stays": self.stays,
            "readings": self.readings.total(),
            "parameters": dict(self.readings.most_common()),
            "converted": dict(self.converted.most_common()),
            "dropped": dict(self.dropped.most_common()),
            "notes": self.notes,
        }

    def __str__(self) -> str:
        lines = [f"{self.stays:,} stays, {self.readings.total():,} readings"]
        lines += [f"  note       {note}" for note in self.notes]
        for word, counts in (("converted", self.converted), ("dropped", self.dropped)):
            lines += [f"  {word:<10} {n:>10,}  {reason}" for reason, n in counts.most_common()]
        return "\n".join(lines)


def invented_admission(pat_id: int) -> date:
    """Returns a day of 2019 for a stay whose source has no date.

    A fixed rule spreads the days over the year, so that stays overlap as on a ward. Every import of
    the same source gives the same days.
    """
    return date(2019, 1, 1) + timedelta(days=pat_id * 7919 % 365)


def reported_age(years: float, report: Report) -> float:
    """Returns the age in years, or 91.4 for an age above 89, which is counted in the report."""
    if years <= 89:
        return years
    report.converted["age above 89, written as 91.4"] += 1
    return ABOVE_89
