"""The page of drift: each figure of the last stream days against its band in training."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import groupby
from typing import Any, NamedTuple

from aiohttp import web

from dashboard import formats, queries
from dashboard.database import Database
from dashboard.pages import ready, render, stream_of
from dashboard.rows import day
from dashboard.sparkline import HEIGHT, path, scaled
from dashboard.topic import Fields
from wire.vitals import vital

DAYS = 30
FIGURES = {
    "volume": "readings per stay-day",
    "known": "stay-days with a reading, %",
    "psi": "stability index",
    "risk": "mean prediction, %",
    "rejected": "rejected messages, %",
    "observed_expected": "observed by expected events",
    "brier": "Brier score",
}
PERCENT = ("known", "risk", "rejected")


class Point(NamedTuple):
    """A row of table `drift`; low and high are None while there are too few stays to tell."""

    day: date
    model: str
    version: str
    parameter: str
    figure: str
    stays: int
    value: float | None
    low: float | None
    high: float | None

    @property
    def state(self) -> str:
        """`outside` or `within` the band, `few` stays, or `none` without a value."""
        if self.value is None:
            return "none"
        if self.low is None or self.high is None:
            return "few"
        return "within" if self.low <= self.value <= self.high else "outside"


async def drift(request: web.Request) -> web.Response:
    """The figures of every model that has a reference."""
    poller = await ready(request)
    stream = stream_of(request, poller)
    name = stream or poller.state.current or ""
    points = await poller.query(lambda database: _read(database, name))
    models = [
        {"name": model, "version": version, "rows": list(_rows(list(group)))}
        for (model, version), group in groupby(points, lambda point: (point.model, point.version))
    ]
    return render(
        request,
        "drift",
        page=poller.shelf.ward(None).topic.content.get("page"),
        query=f"?stream={stream}" if stream else "",
        models=models,
        newest=formats.day(max(point.day for point in points)) if points else "",
        days=DAYS,
    )


def _read(database: Database, stream: str) -> list[Point]:
    newest = database.rows(queries.NEWEST_DRIFT, stream)[0][0]
    if newest is None:
        return []
    since = day(newest) - timedelta(days=DAYS - 1)
    rows = database.rows(queries.DRIFT, stream, since.isoformat())
    points = [Point(day(row[0]), *row[1:]) for row in rows]
    order = list(FIGURES)
    return sorted(points, key=lambda p: (p.model, p.version, p.parameter, order.index(p.figure)))


def _rows(points: list[Point]) -> Iterator[Fields]:
    """A row per parameter and figure, as of the newest day."""
    last = max(point.day for point in points)
    for (parameter, figure), group in groupby(points, lambda p: (p.parameter, p.figure)):
        some = sorted(group, key=lambda point: point.day)
        now = some[-1]
        if now.day < last:
            continue
        yield {
            "parameter": vital(parameter).label if parameter else "All readings",
            "figure": FIGURES[figure],
            "stays": formats.count(now.stays) if now.stays else "",
            "value": _text(figure, now.value),
            "band": f"{_text(figure, now.low)} to {_text(figure, now.high)}"
            if now.low is not None
            else "too few stays to tell",
            "state": now.state,
            "outside": sum(point.state == "outside" for point in some),
            **_curve(some, last),
        }


def _text(figure: str, value: float | None) -> str:
    if value is None:
        return "–"
    return formats.percent(value) if figure in PERCENT else formats.number(value, 2)


def _curve(points: Sequence[Point], last: date) -> Fields:
    """Paths of the value and of the band over the last DAYS days, on the same axis."""
    known = [point for point in points if point.value is not None]
    numbers: list[float] = [
        number for point in known for number in (point.value, point.low, point.high)
        if number is not None
    ]  # fmt: skip
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)

    def place(point: Point, value: Any) -> tuple[float, float]:
        return float(DAYS - 1 - (last - point.day).days), scaled(float(value), low, high)

    banded = [point for point in known if point.low is not None]
    edge = [place(point, point.high) for point in banded]
    edge += [place(point, point.low) for point in reversed(banded)]
    return {
        "line": path([place(point, point.value) for point in known], gap=1),
        "area": "M" + "L".join(f"{x:g} {y:.0f}" for x, y in edge) + "Z" if edge else "",
        "box": f"-0.5 -4 {DAYS} {HEIGHT + 8}",
    }
