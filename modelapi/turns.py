"""Keeps slow work from taking all threads of a worker."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from modelapi.api_errors import Busy


class Turns:
    """Lets one thread work at a time, and a limited number of threads wait.

    An explanation may take a thousand times as long as a prediction. At most two of a worker's four
    threads are busy with explanations (one computes, one waits); the others are free for
    predictions.
    """

    def __init__(self, waiting: int) -> None:
        self._admitted = threading.BoundedSemaphore(1 + waiting)
        self._turn = threading.Lock()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Waits for the turn, and holds it within the context. Raises Busy if too many threads are
        waiting."""
        if not self._admitted.acquire(blocking=False):
            raise Busy("Other explanations are being computed; try again later.")
        try:
            with self._turn:
                yield
        finally:
            self._admitted.release()
