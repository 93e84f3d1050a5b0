"""Logs every 10 s how much a program has done since the last line."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Self

from prometheus_client import REGISTRY, CollectorRegistry

EVERY = 10.0  # seconds


class Summary:
    """Context manager that logs a program's counts every 10 s and at the end, if at least one has
    increased.

    counts: names of samples of counters or histograms, each with its text in the log; the increase
    since the last line is logged. current: the same for gauges; their value is logged.
    """

    def __init__(
        self,
        log: logging.Logger,
        counts: Mapping[str, str],
        current: Mapping[str, str] | None = None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._log = log
        self._counts = counts
        self._current = current or {}
        self._registry = registry
        self._last = self._totals()
        self._at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="summary", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._write()

    def _write(self) -> None:
        totals, now = self._totals(), time.monotonic()
        parts = [
            f"{totals[name] - self._last[name]:,.0f} {text}"
            for name, text in self._counts.items()
            if totals[name] > self._last[name]
        ]
        seconds = now - self._at
        self._last, self._at = totals, now
        if parts:
            parts += [f"{totals[name]:,.0f} {text}" for name, text in self._current.items()]
            self._log.info("%.0f s: %s", seconds, ", ".join(parts))

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self._write()

    def _totals(self) -> Counter[str]:
        """The value of each sample, summed over all labels."""
        names = self._counts.keys() | self._current.keys()
        found: Counter[str] = Counter()
        for metric in self._registry.collect():
            for sample in metric.samples:
                if sample.name in names:
                    found[sample.name] += sample.value  # type: ignore[assignment]
        return found
