"""Times of day as seconds since midnight, and moments as one number for day and second."""

import re
from functools import lru_cache

from hospital.cell_errors import RejectedCell

DAY = 86_400
END = DAY  # stands for the end of the day, or for no time of day
SLOTS = DAY + 1  # a moment is day * SLOTS + second
# A time zone is ignored: the stream uses the ward's wall clock.
CLOCK = re.compile(
    r"(\d{1,2})(?::([0-5]\d)(?::([0-5]\d))?(?:[.,]\d*)?)?\s*([ap])?\.?(?:m\.?)?"
    r"\s*(?:z|utc|gmt|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)
WHOLE_HOUR = re.compile(r"(\d{1,2})(?:[.,]0*)?", re.ASCII)


@lru_cache(maxsize=100_000)
def seconds(text: str) -> int:
    """Parses a time such as `07:25`, `7:25:30.5`, `7:25 PM` or `07:25Z` to seconds since midnight.

    24:00 is 86,400. Fractions of a second are dropped. Raises RejectedCell.

    >>> seconds("07:25:30"), seconds("12:05 am"), seconds("07:25:30.999+02:00")
    (26730, 300, 26730)
    """
    match = CLOCK.fullmatch(text)
    if match is None or not (match[2] or match[4]):
        raise RejectedCell("not a time of day")
    hour = int(match[1])
    if match[4]:
        if not 1 <= hour <= 12:
            raise RejectedCell("not a time of day")
        hour = hour % 12 + 12 * (match[4] in "pP")
    found = 3600 * hour + 60 * int(match[2] or 0) + int(match[3] or 0)
    if found > DAY:
        raise RejectedCell("not a time of day")
    return found


def hour(text: str) -> int:
    """Parses a cell of `hour` (7, 7.0, 07:25 or 07:25:30) to seconds since midnight.

    Raises RejectedCell.
    """
    text = text.strip()
    if match := WHOLE_HOUR.fullmatch(text):
        if int(match[1]) > 24:
            raise RejectedCell("not an hour of the day")
        return 3600 * int(match[1])
    try:
        return seconds(text)
    except RejectedCell:
        raise RejectedCell("not an hour of the day") from None


def sixtieth(text: str) -> int:
    """Parses `minute` or `second`, 0 to 59; drops a fraction. Raises RejectedCell."""
    match = re.fullmatch(r"([0-5]?\d)(?:[.,]\d*)?", text.strip(), re.ASCII)
    if match is None:
        raise RejectedCell("not 0 to 59")
    return int(match[1])
