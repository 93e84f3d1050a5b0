"""What one cell of the hospital's CSVs means, or why it can't be used."""

import math
import re
from collections.abc import Callable
from datetime import date

from hospital.settings import SettingError

Parse = Callable[[str], float]

# De-identified exports hide ages above 89: eICU writes "> 89", MIMIC-III moves the birth to 300
# years before the first admission. "The median age for the patients whose date of birth was
# shifted is 91.4" (https://mimic.mit.edu/docs/iii/tables/patients/).
TOP_CODED_AGE = 91.4
OLDEST = 125.0
LONGEST_PARAMETER = 64
OPEN = 10_000_000  # as a day of discharge: still in the ICU
NO_YEAR = date(9999, 1, 1).toordinal()  # 31/12/9999 is how some systems write "not yet"

MISSING = frozenset(["", "nan", "nat", "null", "none", "na", "n/a", "#n/a", "-", "--", "."])
NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
ONE_MARK = re.compile(r"[+-]?[1-9]\d{0,2}([.,])\d{3}", re.ASCII)
WHOLE = re.compile(r"(\d{1,18})(?:[.,]0*)?", re.ASCII)
CLOCK = re.compile(r"(\d{1,2})(?::([0-5]\d)){1,2}(?:\.\d+)?", re.ASCII)
TOP_CODED = re.compile(r"(?:>|>=|≥)\s*(?:89|90)|(?:89|90)\s*\+", re.ASCII)
FORMAT = re.compile(r"%?(d+|m+)[-/.]%?(d+|m+)[-/.]%?(y+)|%?(y+)[-/.]%?(m+)[-/.]%?(d+)")
TIME_OF_DAY = r"(?:[T ]\s*(\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?)\s*(?:Z|[+-]\d\d:?\d\d)?)?"
YEAR_FIRST = re.compile(r"([1-9]\d{3})[-/.](\d{1,2})[-/.](\d{1,2})" + TIME_OF_DAY, re.ASCII)
YEAR_LAST = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.]([1-9]\d{3})" + TIME_OF_DAY, re.ASCII)


class Refused(ValueError):
    """A cell, or its row, can't be used; the message is one of few reasons, without the value."""


class AnotherOrder(Refused):
    """A date that proves its file is not written day first, while nobody said how it is."""


def missing(text: str) -> bool:
    return text.strip().casefold() in MISSING


def patient(text: str) -> int:
    """A patient's number: 42231, or 42231.0 as pandas writes a column with gaps."""
    if missing(text):
        raise Refused("missing")
    if not (match := WHOLE.fullmatch(text.strip())):
        raise Refused("not a whole number")
    return int(match[1])


def hour(text: str) -> int:
    """The hour of the day, 0 to 24: 7, 7.0 or 07:45 (the message has no place for minutes)."""
    text = text.strip()
    if missing(text):
        raise Refused("missing")
    match = WHOLE.fullmatch(text) or CLOCK.fullmatch(text)
    if not match:
        raise Refused("not an hour")
    found = int(match[1])
    if found > 24 or (found == 24 and text.partition(":")[2].strip("0:.")):
        raise Refused("not an hour of the day")
    return found


class Numbers:
    """Numbers of one column. `37,6` is always a decimal comma, but `1,234` may be a thousand.

    Such a value counts as a decimal only if the rest of the column shows which mark it uses:
    call `learn` with all its texts first. A point is the default, a comma has to be shown.
    """

    def __init__(self) -> None:
        self._shown = {".": False, ",": False}

    def learn(self, text: str) -> None:
        text = text.strip()
        if NUMBER.fullmatch(text) and not ONE_MARK.fullmatch(text):
            for mark in self._shown:
                self._shown[mark] |= mark in text

    def parse(self, text: str) -> float:
        text = text.strip()
        if not NUMBER.fullmatch(text):
            raise Refused("missing" if missing(text) else "not a number")
        if len(text) <= 8 and (match := ONE_MARK.fullmatch(text)) and self._ambiguous(match[1]):
            raise Refused("thousands or decimals: cannot be told")
        number = float(text.replace(",", "."))
        if not math.isfinite(number):
            raise Refused("not a number")
        return number

    def _ambiguous(self, mark: str) -> bool:
        if mark == ".":
            return self._shown[","]
        return self._shown["."] or not self._shown[","]


def age(text: str) -> float:
    """Age in years; infinity for one hidden as above 89 (top-coded)."""
    if TOP_CODED.fullmatch(text.strip()):
        return math.inf
    years = Numbers().parse(text)
    if 300 <= years <= 300 + OLDEST - 89:
        return math.inf
    if not 0 <= years <= OLDEST:
        raise Refused("not an age in years")
    return years


class Parameters:
    """Names of what was measured, each numbered as it first comes."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def parse(self, text: str) -> int:
        name = text.strip()
        if missing(name):
            raise Refused("missing")
        if len(name) > LONGEST_PARAMETER:
            raise Refused(f"longer than {LONGEST_PARAMETER} characters")
        if not name.isprintable() or ";" in name or "�" in name:
            raise Refused("not a name: it holds a separator or unreadable characters")
        return self.numbers.setdefault(name, len(self.numbers))


class Dates:
    """Dates of one file, as days since 0001-01-01.

    Year first (2019-02-01) is always understood. With the year last, day first is the documented
    format. Nothing is guessed silently: unless DATE_FORMAT says more,

    - a date that exists only with the month first (02/15/2019) ends the reading: such a file, or
      one that mixes both orders, holds other dates that would be read wrongly without a sign;
    - a file in which no date tells the order (all days up to 12) is read day first, and
      `untold` names a date of it for a warning.

    With DATE_FORMAT the dates that do not fit are refused one by one.
    """

    def __init__(self, date_format: str | None) -> None:
        self._order = _order(date_format)
        self._told = False
        self._untold = ""

    @property
    def untold(self) -> str:
        """A date whose order was assumed, if no date of the file shows it."""
        return "" if self._told else self._untold

    def parse(self, text: str) -> int:
        """A date; a time of day behind it is left out."""
        return self._parse(text)[0]

    def parse_discharge(self, text: str) -> int:
        """A date, or OPEN for a stay that has not ended: an empty cell, NULL or 31/12/9999."""
        return OPEN if missing(text) or "9999" in text else self.parse(text)

    def parse_day(self, text: str) -> int:
        """A date that has no time of day, or midnight: the hour has its own column."""
        day, clock = self._parse(text)
        if clock.strip("0:."):
            raise Refused("a time of day; the hour has its own column")
        return day

    def _parse(self, text: str) -> tuple[int, str]:
        text = text.strip()
        if missing(text):
            raise Refused("missing")
        if match := YEAR_FIRST.fullmatch(text):
            year, month, day, clock = match.groups(default="")
            found = _ordinal(year, month, day)
        elif match := YEAR_LAST.fullmatch(text):
            first, second, year, clock = match.groups(default="")
            found = self._year_last(first, second, year)
        else:
            raise Refused("not a date")
        if found is None or found >= NO_YEAR:
            raise Refused("not a date")
        return found, clock

    def _year_last(self, first: str, second: str, year: str) -> int | None:
        day_first = _ordinal(year, second, first)
        month_first = _ordinal(year, first, second)
        if self._order:
            found = {"dmy": day_first, "mdy": month_first}.get(self._order)
            if found is None and (day_first or month_first):
                raise Refused("not a date in the order of DATE_FORMAT")
            return found
        if month_first is None:
            self._told |= day_first is not None
        elif day_first is None:
            raise AnotherOrder("not a date")
        elif day_first != month_first:
            self._untold = self._untold or f"{first}/{second}/{year}"
        return day_first


def _ordinal(year: str, month: str, day: str) -> int | None:
    try:
        return date(int(year), int(month), int(day)).toordinal()
    except ValueError:
        return None


def _order(date_format: str | None) -> str:
    """The order of day, month and year in a format such as dd/mm/YYYY or %d/%m/%Y."""
    if not date_format:
        return ""
    match = FORMAT.fullmatch(date_format.strip().casefold())
    order = "".join(part[0] for part in match.groups() if part) if match else ""
    if order not in ("dmy", "mdy", "ymd"):
        raise SettingError(
            f"DATE_FORMAT: {date_format!r} is none of dd/mm/YYYY, mm/dd/YYYY and YYYY-mm-dd"
        )
    return order
