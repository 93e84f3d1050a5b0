"""The drift page: compares each figure of the last stream days with its band from training."""

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import groupby
from typing import Any

from aiohttp import web

from dashboard import formats, queries
from dashboard.database import Database
from dashboard.http_services import Models
from dashboard.pages import ready, render, stream_of
from dashboard.rows import ModelKey, day
from dashboard.sparkline import HEIGHT, path, scaled
from dashboard.topic import Fields
from wire.drift import DriftRow
from wire.vitals import vital

DAYS = 30
FIGURES = {
    "volume": "readings per stay-day",
    "known": "stay-days with a reading, %",
    "psi": "stability index",
    "risk": "mean prediction, %",
    "alarms": "alarms per patient-day",
    "rejected": "rejected messages, %",
    "observed_expected": "observed / expected events",
    "brier": "Brier score",
}
# These figures have no band. Training does not know how often a rule raises an alarm.
WITHOUT_BAND = ("alarms",)
PERCENT = ("known", "risk", "rejected")


def state(row: DriftRow) -> str:
    """`outside` or `within` the band, `few` without a band, or `none` without a value."""
    if row.value is None:
        return "none"
    if row.low is None or row.high is None:
        return "few"
    return "within" if row.low <= row.value <= row.high else "outside"


async def drift(request: web.Request) -> web.Response:
    """Shows the drift figures of the last DAYS days, by model."""
    poller = await ready(request)
    stream = stream_of(request, poller)
    name = stream or poller.state.current or ""
    points = await poller.query(lambda database: _read(database, name))
    used = poller.state.models
    order = [used.champion, *used.shadows]
    groups = groupby(points, lambda point: ModelKey(point.model, point.version))
    found = {key: list(_rows(list(group))) for key, group in groups}
    # The models in use come first, champion before shadows.
    keys = sorted(found, key=lambda key: order.index(key) if key in order else len(order))
    models = [
        {"name": key.name, "version": key.version, "role": _role(key, used), "rows": found[key]}
        for key in keys
    ]
    return render(
        request,
        "drift",
        page=poller.shelf.ward(None).topic.content.get("page"),
        query=f"?stream={stream}" if stream else "",
        models=models,
        without=[f"{key.name} {key.version}" for key in order if key and key not in found],
        newest=formats.day(day(max(point.day for point in points))) if points else "",
        days=DAYS,
    )


def _role(key: ModelKey, used: Models) -> str:
    if key == used.champion:
        return "champion"
    return "shadow" if key in used.shadows else "not in use"


def _read(database: Database, stream: str) -> list[DriftRow]:
    newest = database.rows(queries.NEWEST_DRIFT, stream)[0][0]
    if newest is None:
        return []
    since = date.fromordinal(max(1, day(newest).toordinal() - DAYS + 1))
    rows = database.rows(queries.DRIFT, stream, since.isoformat())
    points = [DriftRow(row[0], str(row[1]), *row[2:]) for row in rows]
    order = list(FIGURES)
    return sorted(points, key=lambda p: (p.model, p.version, p.parameter, order.index(p.figure)))


def _rows(points: list[DriftRow]) -> Iterator[Fields]:
    """One row per parameter and figure, as of the newest day."""
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
            "band": _band(now),
            "state": state(now),
            "outside": sum(state(point) == "outside" for point in some),
            **_curve(some, last),
        }


def _band(row: DriftRow) -> str:
    if row.low is not None:
        return f"{_text(row.figure, row.low)} to {_text(row.figure, row.high)}"
    return "none" if row.figure in WITHOUT_BAND else "too few stays"


def _text(figure: str, value: float | None) -> str:
    if value is None:
        return "–"
    return formats.percent(value) if figure in PERCENT else formats.number(value, 2)


def _curve(points: Sequence[DriftRow], last: str) -> Fields:
    """The paths of the value and of the band over the last DAYS days, on the same axis."""
    known = [point for point in points if point.value is not None]
    numbers: list[float] = [
        number for point in known for number in (point.value, point.low, point.high)
        if number is not None
    ]  # fmt: skip
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)

    def place(point: DriftRow, value: Any) -> tuple[float, float]:
        return float(DAYS - 1 - (day(last) - day(point.day)).days), scaled(float(value), low, high)

    banded = [point for point in known if point.low is not None]
    edge = [place(point, point.high) for point in banded]
    edge += [place(point, point.low) for point in reversed(banded)]
    return {
        "line": path([place(point, point.value) for point in known], gap=1),
        "area": "M" + "L".join(f"{x:g} {y:.0f}" for x, y in edge) + "Z" if edge else "",
        "box": f"-0.5 -4 {DAYS} {HEIGHT + 8}",
    }
