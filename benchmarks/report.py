"""Writes the table, the JSON file and the plot."""

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.bench import Result
from benchmarks.goals import GOALS

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
            f"{_number(goal.bound)} {goal.unit}".strip(),
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
