"""Small curves, as SVG paths that the browser scales.

The x coordinates are hours since admission, so a path changes only with a new value. The viewBox
selects the last 24 hours of the ward's clock.
"""

from collections.abc import Iterable

HOURS = 24
HEIGHT = 100


def window(hours_now: float, height: int = HEIGHT) -> str:
    """The viewBox of the 24 hours that end at `hours_now` (hours since admission)."""
    # The margin on the right keeps the newest point from being cut in half.
    return f"{hours_now - HOURS:g} -4 {HOURS + 0.6:g} {height + 8}"


def path(points: Iterable[tuple[float, float]], gap: float) -> str:
    """The SVG path of (x, y) points in order of x. The path is interrupted where x jumps by more
    than `gap`.

    >>> path([(0, 10), (1, 12.4), (9, 50)], gap=2)
    'M0 10L1 12M9 50h0'
    """
    parts: list[str] = []
    last: float | None = None
    alone = False
    for x, y in points:
        joined = last is not None and x - last <= gap
        if alone and not joined:
            parts.append("h0")
        parts.append(f"{'L' if joined else 'M'}{x:g} {y:.0f}")
        alone = not joined
        last = x
    # A single point becomes a line of length 0, which round line ends draw as a dot.
    if alone:
        parts.append("h0")
    return "".join(parts)


def scaled(value: float, low: float, high: float) -> float:
    """The coordinate of a value on an axis of length HEIGHT with 0 at the top; clipped to the axis.

    >>> scaled(60, 60, 190), scaled(125, 60, 190), scaled(500, 60, 190)
    (100.0, 50.0, 0.0)
    """
    if high <= low:
        return HEIGHT / 2
    return HEIGHT * (1 - (min(max(value, low), high) - low) / (high - low))
