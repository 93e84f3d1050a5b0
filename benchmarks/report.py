"""Writes the table, the JSON file and the plot."""

import json
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.bench import Result

# The plot's row height, and the left end and the width of the bars.
HEIGHT, LEFT, WIDE = 22, 420, 420
COLOURS = {
    "hospital": "#8ecae6",
    "buffer": "#219ebc",
    "redis": "#d62828",
    "tool": "#023047",
    "modelapi": "#ffb703",
    "database": "#fb8500",
}


@dataclass(frozen=True)
class Goal:
    """A goal for a figure; `value` extracts the figure from the results. least: the bound, which
    is a maximum for times and memory. aim: the value to work towards."""

    what: str
    value: Callable[[dict[str, Result]], float | None]
    least: float
    aim: float
    unit: str = ""

    def met(self, value: float) -> bool:
        # Goals with a unit are times and memory, for which less is better.
        better = operator.le if self.unit else operator.ge
        return bool(better(value, self.least))


def _ratio(key: str) -> Callable[[dict[str, Result]], float | None]:
    return lambda found: found[key].ratio if key in found else None


def _figure(key: str) -> Callable[[dict[str, Result]], float | None]:
    return lambda found: found[key].figure if key in found else None


def _against(key: str, other: str) -> Callable[[dict[str, Result]], float | None]:
    def compare(found: dict[str, Result]) -> float | None:
        return found[key].figure / found[other].figure if {key, other} <= found.keys() else None

    return compare


def e2e(predicted: int, workers: int, stored: int = 0) -> str:
    return f"e2e server {predicted}% {workers}w 2000p {stored}h"


GOALS = (
    Goal(
        "100 % predicted, 2 workers, models as shipped, against X",
        _ratio(f"{e2e(100, 2)} shipped"),
        *(0.35, 0.5),
    ),
    Goal("30 % predicted, 1 worker, against X", _ratio(e2e(30, 1)), 0.6, 0.8),
    Goal("30 % predicted, 2 workers, against X", _ratio(e2e(30, 2)), 0.95, 1.1),
    Goal("100 % predicted, 2 workers, against X", _ratio(e2e(100, 2)), 0.65, 0.8),
    Goal(
        "100 % predicted, 2 workers, after 10,000,000 readings, against empty tables",
        _against(e2e(100, 2, 10_000_000), e2e(100, 2)),
        *(0.97, 1.0),
    ),
    Goal(
        "100 % predicted, 2 workers, against the naive baseline at 1,000 rows per patient",
        _against(e2e(100, 2), "naive 1000"),
        *(100, 500),
    ),
    Goal(
        "100 % predicted, 2 workers, against 1 worker", _against(e2e(100, 2), e2e(100, 1)), 1.5, 1.8
    ),
    Goal(
        "SQLite, 100 % predicted, models as shipped, against a bare executemany into SQLite",
        _ratio("e2e sqlite 100% 2w 2000p 0h shipped"),
        *(0.15, 0.25),
    ),
    Goal(
        "latency p50 at 1,000 messages/s, models as shipped",
        _figure("latency 1000 shipped p50"),
        *(10, 5, "ms"),
    ),
    Goal(
        "latency p99 at 1,000 messages/s, models as shipped",
        _figure("latency 1000 shipped p99"),
        *(30, 15, "ms"),
    ),
    Goal("latency p99 at 10,000 messages/s", _figure("latency 10000 p99"), 80, 40, "ms"),
    Goal("RQ jobs that do nothing, against bare commands", _ratio("rq"), 0.15, 0.25),
    Goal("model API, 1,000 rows, against predict_proba", _ratio("model 1000"), 0.5, 0.7),
    Goal("model API, 1 row, against the CPU of a bare Flask route", _ratio("model cpu"), 0.7, 0.86),
    Goal(
        "stored features per prediction of the champion", _figure("feature bytes"), 0.8, 0.5, "kB"
    ),
    Goal("replay with the ward page open, against without", _ratio("page read"), 0.95, 1.0),
    Goal("hospital alone, messages/s", _figure("hospital"), 300_000, 1_000_000),
    Goal("memory of hospital", _figure("memory hospital"), 150, 100, "MB"),
    Goal("memory of buffer", _figure("memory buffer"), 150, 100, "MB"),
    Goal("memory of a worker", _figure("memory tool"), 150, 100, "MB"),
    Goal(
        "gateway, ORU of 10 OBX over 50 connections, messages/s", _figure("gateway"), 2_000, 4_000
    ),
    Goal("gateway, answer to one sender, p99", _figure("gateway ack p99"), 10, 5, "ms"),
    Goal("sender → stored prediction, p99", _figure("gateway to prediction p99"), 100, 50, "ms"),
    Goal("memory of gateway", _figure("gateway memory"), 150, 100, "MB"),
    Goal("merge of 10,000,000 rows, time", _figure("merge 10000000 time"), 60, 15, "s"),
    Goal("merge of 10,000,000 rows, memory", _figure("merge 10000000 memory"), 2_000, 1_000, "MB"),
)


def row(result: Result) -> list[str]:
    ratio = result.ratio
    return [
        result.stage,
        f"{_number(result.figure)} {result.unit}",
        f"{_number(result.raw)} ({result.raw_is})" if result.raw else "–",
        "–" if ratio is None else f"{ratio:.3g}" if ratio < 0.995 else f"{ratio:.2f}",
    ]


def table(results: list[Result]) -> str:
    """The results as a table in Markdown."""
    return _table(["stage", "figure", "raw limit", "ratio"], [row(result) for result in results])


def goals(results: list[Result]) -> str:
    """The table of the measured goals; empty if there are none."""
    found = {result.key: result for result in results}
    rows = [
        [
            goal.what,
            f"{_number(value)} {goal.unit}".strip(),
            f"{_number(goal.least)} {goal.unit}".strip(),
            f"{_number(goal.aim)} {goal.unit}".strip(),
            "yes" if goal.met(value) else "NO",
        ]
        for goal in GOALS
        if (value := goal.value(found)) is not None
    ]
    return _table(["goal", "reached", "bound", "aim", "met"], rows) if rows else ""


def write_json(path: Path, about: dict[str, Any], results: list[Result]) -> None:
    document = about | {
        "results": [
            {
                "key": result.key,
                "stage": result.stage,
                "figure": result.figure,
                "unit": result.unit,
                "raw_limit": result.raw,
                "raw_limit_is": result.raw_is,
                "ratio": result.ratio,
                **result.details,
            }
            for result in results
        ]
    }
    path.write_text(json.dumps(document, indent=1))


def write_svg(path: Path, title: str, results: list[Result]) -> None:
    """Plots each result's ratio to its raw limit, and the CPU time of each end-to-end run."""
    shown = [result for result in results if result.ratio]
    runs = [result for result in shown if result.key.startswith("e2e")]
    y, lines = _ratios(66.0, shown)
    if runs:
        y, more = _cpu(y + 34, runs)
        lines += more
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1080 {y + 16:g}" '
        'font-family="system-ui, sans-serif" fill="#222">'
        f'<rect width="1080" height="{y + 16:g}" fill="#fff"/>'
        + text(10, 26, title, 15)
        + "".join(lines)
        + "</svg>\n"
    )


def _ratios(y: float, shown: list[Result]) -> tuple[float, list[str]]:
    """Draws one bar per result from `y` downwards. Returns the y below the last bar, and the
    elements.
    """
    widest = max([1.0, *(min(result.ratio or 0, 2.0) for result in shown)])
    caption = "Each figure against its raw limit, which was measured in the same run (bar: ratio)"
    lines = [text(10, 52, caption, 13)]
    for result in shown:
        ratio = result.ratio or 0
        end = LEFT + WIDE * min(ratio, widest) / widest
        figure = f"{_number(result.figure)} {result.unit} · {ratio:.2g}"
        lines += [
            text(LEFT - 8, y + 15, result.stage, 12, "end"),
            bar(LEFT, y + 3, end - LEFT, "#2a6f97"),
            text(end + 6, y + 15, figure, 12),
        ]
        y += HEIGHT
    limit = LEFT + WIDE / widest
    lines.append(f'<path d="M{limit:.1f} 62V{y:g}" stroke="#888" stroke-dasharray="3 3"/>')
    return y, lines


def _cpu(y: float, runs: list[Result]) -> tuple[float, list[str]]:
    """Draws one bar per run, divided by program, and a legend. Returns the y below the legend, and
    the elements.
    """
    lines = [text(10, y, "CPU time of a message, end to end, µs, by program", 13)]
    y += 14
    most = max(sum(result.details["cpu_us_per_message"].values()) for result in runs) or 1
    for result in runs:
        used = result.details["cpu_us_per_message"]
        lines.append(text(LEFT - 8, y + 15, result.stage, 12, "end"))
        x = float(LEFT)
        for name, colour in COLOURS.items():
            width = WIDE * used.get(name, 0.0) / most
            lines.append(bar(x, y + 3, width, colour))
            x += width
        lines.append(text(x + 6, y + 15, f"{sum(used.values()):.1f}", 12))
        y += HEIGHT
    for place, (name, colour) in enumerate(COLOURS.items()):
        x = LEFT + 84.0 * place
        lines += [bar(x, y + 8, 12, colour), text(x + 16, y + 19, name, 12)]
    return y + 30, lines


def text(x: float, y: float, content: str, size: int, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">'
        f"{escape(content)}</text>"
    )


def bar(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="16" fill="{colour}"/>'


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def joined(line: list[str]) -> str:
        cells = [
            cell.ljust(width) if column in (0, 2) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = [
        "-" * width if column in (0, 2) else "-" * (width - 1) + ":"
        for column, width in enumerate(widths)
    ]
    return "\n".join([joined(head), f"| {' | '.join(rule)} |", *map(joined, rows)])
