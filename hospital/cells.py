"""Parses single cells of the hospital's CSVs, or rejects them with a reason."""

import math
import re
from collections.abc import Callable
from datetime import date

from hospital.cell_errors import AnotherOrder, RejectedCell
from hospital.clock import END, SLOTS, seconds
from wire.settings import SettingError

Parse = Callable[[str], float]

LONGEST_NAME = 64  # maximum length of a parameter's name, an identifier or a place
LARGEST_NUMBER = 2**63 - 1  # the highest patient number that the tables can hold
OPEN = 10_000_000  # the day of discharge of a patient who is still in the ICU
# A year before FIRST_YEAR, or from NEVER on, means "no date": 2999 and 9999 stand for "not yet";
# 1900, 1753 and 0001 are the empty dates of Excel, SQL Server and .NET.
FIRST_YEAR, NEVER = 1901, 2900

MISSING = frozenset(
    (
        *("", "nan", "-nan", "nat", "null", "none", "nil", "na", "n/a", "n.a.", "#n/a", "#n/v"),
        *("<na>", "(null)", "<null>", "[null]", "\\n", "-", "--", ".", "?"),
    )
)
NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
ONE_MARK = re.compile(r"[+-]?[1-9]\d{0,2}([.,])\d{3}", re.ASCII)
WHOLE = re.compile(r"(\d+)(?:[.,]0*)?", re.ASCII)
FORMAT = re.compile(r"%?(d+|m+)[-/.]%?(d+|m+)[-/.]%?(y+)|%?(y+)[-/.]%?(m+)[-/.]%?(d+)")
YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})", re.ASCII)
YEAR_LAST = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})", re.ASCII)


def missing(text: str) -> bool:
    return text.strip().casefold() in MISSING


def name(text: str) -> str:
    """Parses a name that the stream can hold. Raises RejectedCell."""
    found = text.strip()
    if not found:
        raise RejectedCell("missing")
    if len(found) > LONGEST_NAME:
        raise RejectedCell(f"longer than {LONGEST_NAME} characters")
    if not found.isprintable() or ";" in found or "\ufffd" in found:
        raise RejectedCell("not a name: contains a separator or unreadable characters")
    return found


def identifier(text: str) -> str:
    """Parses a patient's identifier. 42231.0 becomes 42231, because pandas writes whole numbers
    as decimals in a column with empty cells. Raises RejectedCell.
    """
    if missing(text):
        raise RejectedCell("missing")
    match = WHOLE.fullmatch(text.strip())
    return name(match[1] if match else text)


def is_number(identifier: str) -> bool:
    """Whether an identifier is a number without leading zeros that the tables can hold.

    >>> [is_number(text) for text in ("42231", "007", "P-17", "9223372036854775808")]
    [True, False, False, False]
    """
    return (
        identifier.isascii()
        and identifier.isdigit()
        and (identifier == "0" or identifier[0] != "0")
        and len(identifier) < 20
        and int(identifier) <= LARGEST_NUMBER
    )


def patient(text: str) -> int:
    """Parses a patient's number: 42231 and 42231.0 are 42231, and 007 is 7. Raises RejectedCell."""
    digits = identifier(text).lstrip("0") or "0"
    if not is_number(digits):
        raise RejectedCell("not a whole number")
    return int(digits)


class Numbers:
    """Parses the numbers of one column. `37,6` is a decimal, but `1,234` may mean 1234 or 1.234.

    An ambiguous value is accepted, as a decimal, only if other values of the column show its
    decimal mark and none shows the other mark. If no value shows a mark, the mark is a point. Call
    `learn` with all texts of the column first.
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
            raise RejectedCell("missing" if missing(text) else "not a number")
        if len(text) <= 8 and (match := ONE_MARK.fullmatch(text)) and self._ambiguous(match[1]):
            raise RejectedCell("ambiguous: thousands or decimals")
        number = float(text.replace(",", "."))
        if not math.isfinite(number):
            raise RejectedCell("not a number")
        return number

    def _ambiguous(self, mark: str) -> bool:
        if mark == ".":
            return self._shown[","]
        return self._shown["."] or not self._shown[","]


class Dates:
    """Parses the dates of one file, as days since 0001-01-01.

    Dates with the year first (2019-02-01) are always accepted. For dates with the year last, day
    first is the default. If DATE_FORMAT is unset,

    - a date that exists only with the month first (02/15/2019) is an error, because other dates of
      such a file would be misread silently;
    - a file in which no date shows the order (no day is above 12) is read day first, and `assumed`
      returns one of its dates, for a warning.

    If DATE_FORMAT is set, dates in another order are rejected.
    """

    def __init__(self, date_format: str | None) -> None:
        self._order = _order(date_format)
        self._shown = False
        self._ambiguous = ""
        self._days: dict[str, int] = {}

    @property
    def assumed(self) -> str:
        """A date of the file if its order was assumed because no date shows it; otherwise empty."""
        return "" if self._shown else self._ambiguous

    def parse(self, text: str) -> int:
        """Parses a date as a day. A time of day after the date is ignored."""
        return self.parse_moment(text) // SLOTS

    def parse_moment(self, text: str) -> int:
        """Parses a moment, day * SLOTS + second. Without a time of day, the second is END."""
        day_text, clock = _parts(text)
        if not day_text or missing(text):
            raise RejectedCell("missing")
        second = seconds(clock) if clock else END
        day = self._days.get(day_text)
        if day is None:
            if len(self._days) >= 100_000:
                self._days.clear()
            day = self._days[day_text] = self._day(day_text)
        return day * SLOTS + second

    def parse_discharge(self, text: str) -> int:
        """Parses a moment; returns OPEN * SLOTS for an open stay: a missing value, or a date such
        as 31/12/9999 or 01/01/1900, which means that there is no date.

        A time of 00:00:00 counts as no time, because databases write it after every date.
        """
        if missing(text):
            return OPEN * SLOTS
        day_text, _ = _parts(text)
        if match := YEAR_FIRST.fullmatch(day_text):
            year = int(match[1])
        elif match := YEAR_LAST.fullmatch(day_text):
            year = int(match[3])
        else:
            raise RejectedCell("not a date")
        if not FIRST_YEAR <= year < NEVER:
            return OPEN * SLOTS
        moment = self.parse_moment(text)
        return moment if moment % SLOTS else moment + END

    def _day(self, text: str) -> int:
        if match := YEAR_FIRST.fullmatch(text):
            found = _ordinal(*match.groups())
        elif match := YEAR_LAST.fullmatch(text):
            found = self._year_last(*match.groups())
        else:
            raise RejectedCell("not a date")
        if found is None or not FIRST_YEAR <= date.fromordinal(found).year < NEVER:
            raise RejectedCell("not a date")
        return found

    def _year_last(self, first: str, second: str, year: str) -> int | None:
        day_first = _ordinal(year, second, first)
        month_first = _ordinal(year, first, second)
        if self._order:
            found = {"dmy": day_first, "mdy": month_first}.get(self._order)
            if found is None and (day_first or month_first):
                raise RejectedCell("not a date in the order of DATE_FORMAT")
            return found
        if month_first is None:
            self._shown |= day_first is not None
        elif day_first is None:
            raise AnotherOrder("not a date")
        elif day_first != month_first:
            self._ambiguous = self._ambiguous or f"{first}/{second}/{year}"
        return day_first


def _parts(text: str) -> tuple[str, str]:
    """Splits a cell into the date and the time of day.

    >>> _parts(" 2019-02-03T07:25:30Z "), _parts("03/02/2019")
    (('2019-02-03', '07:25:30Z'), ('03/02/2019', ''))
    """
    text = text.strip()
    at = min((place for place in (text.find("T"), text.find(" ")) if place >= 0), default=-1)
    return (text, "") if at < 0 else (text[:at], text[at + 1 :].strip())


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
            f"DATE_FORMAT={date_format}: expected dd/mm/YYYY, mm/dd/YYYY or YYYY-mm-dd"
        )
    return order
