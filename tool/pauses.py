"""Pauses after failures, so that a model that hangs does not delay every batch."""

import logging
import time

from tool import metrics

log = logging.getLogger("tool.model")

Key = tuple[str, str]  # model, version


class Pauses:
    """The pauses of each model. With each further failure the pause of a model doubles, up to
    `longest` seconds."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        # For each model: the length of its pause, and the end of the pause.
        self._pauses: dict[Key, tuple[float, float]] = {}

    def __contains__(self, key: Key) -> bool:
        """Whether the model has not answered since its last failure."""
        return key in self._pauses

    def running(self, key: Key) -> bool:
        """Whether the model is paused now."""
        return key in self._pauses and time.monotonic() < self._pauses[key][1]

    def failed(self, key: Key, error: Exception) -> None:
        """Starts a pause. Logs the first failure."""
        metrics.MODEL_FAILURES.inc()
        length, _ = self._pauses.get(key, (0.0, 0.0))
        if not length:
            log.warning("model: %s %s: %s; its predictions stay pending", *key, error)
        length = min(max(1.0, length * 2), self._longest)
        self._pauses[key] = (length, time.monotonic() + length)

    def answered(self, key: Key) -> None:
        """Ends the pauses. Logs the recovery."""
        if self._pauses.pop(key, None):
            metrics.RECONNECTS.labels("model").inc()
            log.info("model: %s %s: available again", *key)
