"""`python -m dashboard.terminal [--watch]`: shows the figures of the pipeline page.

Queries the dashboard at DASHBOARD_URL, or at DASHBOARD_PORT (5002) on this machine.
"""

import argparse
import json
import os
import sys
import time
import urllib.request
from typing import Any
from urllib.error import HTTPError

from dashboard.topic import Content

EVERY = 1.0  # seconds
LOGIN = (
    ". This address requires a login. Run the command inside the container instead:"
    " docker compose exec dashboard python -m dashboard.terminal"
)
CLEAR = "\033[H\033[2J"

FIGURES = (
    ("in", "messages in", "/s"),
    ("stored", "messages stored", "/s"),
    ("lag", "not stored yet", "messages"),
    ("lag.time", "lag in stream time", ""),
    ("jobs", "queue", "jobs"),
    ("pending", "predictions pending", ""),
    ("p50", "latency, median", "ms"),
    ("p99", "latency, 99th percentile", "ms"),
    ("taken.total", "taken in", "messages"),
    ("stored.total", "stored", "messages"),
    ("rejected", "rejected", "messages"),
)


def text(content: Content) -> str:
    """Formats the pipeline page's content as lines of text."""
    page, figures = content["page"], content["figures"]
    lines = [f"ICU Stream · {page['word']} · {page['day']} {page['clock']} stream time"]
    if page["notice"]:
        lines.append(page["notice"])
    lines.append("")
    for key, fields in content.items():
        if key.startswith("service:"):
            line = (
                f"  {fields['name']:<10} {fields['word']:<10} for {fields['since']:<12} "
                f"{fields['counted']} seen: {fields['count']}  {fields['note']}"
            )
            lines.append(line.rstrip())
    lines.append("")
    for name, label, unit in FIGURES:
        lines.append(f"  {label:<26} {figures[name]:>12} {unit}".rstrip())
    for key, fields in content.items():
        if key.startswith("reason:"):
            lines.append(f"    {fields['reason']:<60} {fields['count']:>10}")
    return "\n".join(lines)


def ask(url: str) -> Any:
    """The content of the pipeline page at `url`. Raises OSError or ValueError."""
    with urllib.request.urlopen(f"{url}/pipeline.json", timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dashboard.terminal", description="Shows the pipeline's figures."
    )
    parser.add_argument("--watch", action="store_true", help="repeat until Ctrl-C is pressed")
    watch = parser.parse_args().watch
    port = os.environ.get("DASHBOARD_PORT") or "5002"
    url = (os.environ.get("DASHBOARD_URL") or f"http://127.0.0.1:{port}").rstrip("/")
    if not url.startswith(("http://", "https://")):
        print(f"status: DASHBOARD_URL={url}: expected http://…", file=sys.stderr)
        return 1
    while True:
        answered = True
        try:
            shown = text(ask(url))
        except HTTPError as error:
            hint = LOGIN if error.code == 401 else ""
            shown, answered = f"status: {url} answers {error.code} {error.reason}{hint}", False
        except (OSError, ValueError, KeyError) as error:
            shown, answered = f"status: {url} does not answer: {error}", False
        if not watch:
            print(shown, file=sys.stdout if answered else sys.stderr)
            return 0 if answered else 1
        print(f"{CLEAR if sys.stdout.isatty() else ''}{shown}", flush=True)
        try:
            time.sleep(EVERY)
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
