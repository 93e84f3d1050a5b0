"""Formats numbers and times for people. All times are the stream's own."""

from datetime import date, datetime

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# A hyphen would be too short for a minus sign.
MINUS = "\N{MINUS SIGN}"


def day(when: date) -> str:
    """A day with its weekday.

    >>> day(date(2019, 2, 14))
    'Thu 14 Feb 2019'
    """
    return f"{_DAYS[when.weekday()]} {when.day} {_MONTHS[when.month - 1]} {when.year}"


def clock(when: datetime) -> str:
    """The hour and minute of a time.

    >>> clock(datetime(2019, 2, 14, 7))
    '07:00'
    """
    return f"{when:%H:%M}"


def moment(when: datetime) -> str:
    """A time with its day.

    >>> moment(datetime(2019, 2, 14, 7))
    'Thu 14 Feb 2019, 07:00'
    """
    return f"{day(when)}, {clock(when)}"


def age(hours: float) -> str:
    """The age of a value.

    >>> age(0), age(7), age(50)
    ('<1 h', '7 h', '2 d')
    """
    if hours < 1:
        return "<1 h"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"


def number(value: float, digits: int | None = None) -> str:
    """A number with `digits` decimals, or with four significant digits.

    >>> number(118.4, 0), number(-0.25, 1), number(0.00123456), number(118.0)
    ('118', '−0.2', '0.001235', '118')
    """
    text = f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
    return text.replace("-", MINUS)


def rounded(value: float) -> str:
    """A number with two significant digits, or a whole number.

    >>> rounded(0.27473), rounded(-3.746), rounded(104.6)
    ('0.27', '−3.7', '105')
    """
    return number(value, 0) if abs(value) >= 10 else f"{value:.2g}".replace("-", MINUS)


def percent(probability: float) -> str:
    """A probability in percent, without the % sign; one decimal below 10.

    >>> percent(0.0123), percent(0.34), percent(0.0999)
    ('1.2', '34', '10')
    """
    shown = 100 * probability
    return f"{shown:.1f}" if shown < 9.95 else f"{shown:.0f}"


def seconds(duration: float) -> str:
    """A duration in whole seconds, minutes, hours or days.

    >>> seconds(14.2), seconds(150), seconds(8000), seconds(350000)
    ('14 s', '2 min', '2 h', '4 d')
    """
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if duration < limit:
            return f"{duration / size:.0f} {unit}"
    return f"{duration / 86400:.0f} d"


def count(value: int) -> str:
    """A whole number with a space before each group of three digits.

    >>> count(367774) == "367\\N{NO-BREAK SPACE}774"
    True
    """
    return f"{value:,}".replace(",", "\N{NO-BREAK SPACE}")
