"""Converts times between text, as in the tables, and hours since the day of admission."""

from datetime import UTC, date, datetime
from functools import lru_cache

from wire.messages import ordinal

# The first and the last second of the calendar, counted from the day before 0001-01-01.
FIRST, LAST = date.min.toordinal() * 86_400, (date.max.toordinal() + 1) * 86_400 - 1


def now() -> str:
    """The current time in UTC with milliseconds, in the format of the tables."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def text_on(day: str, hour: int, minute: int, second: int) -> str:
    """The text of a time in a message.

    >>> text_on("2019-02-03", 7, 30, 0)
    '2019-02-03 07:30:00'
    """
    return f"{day} {hour:02}:{minute:02}:{second:02}"


def hours_of_day(hour: int, minute: int, second: int) -> float:
    """Hours since midnight. A message and the row that is made from it give the same float.

    >>> hours_of_day(7, 30, 0)
    7.5
    """
    return hour + (minute * 60 + second) / 3600


@lru_cache(maxsize=100_000)
def text_of(admitted: int, hours: float) -> str:
    """The text of a time that is given in hours since the start of day `admitted`, rounded to
    seconds. A time before or after the calendar becomes its first or last second.

    >>> hours_of(text_of(737093, 30.5), 737093)
    30.5
    """
    since = min(max(admitted * 86_400 + round(hours * 3600), FIRST), LAST)
    day, seconds = divmod(since, 86_400)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{date.fromordinal(day).isoformat()} {hour:02}:{minute:02}:{second:02}"


def hours_of(text: str, admitted: int) -> float:
    """Converts a text of `text_of` back to hours."""
    since = hours_of_day(int(text[11:13]), int(text[14:16]), int(text[17:19]))
    return (ordinal(text[:10]) - admitted) * 24.0 + since
