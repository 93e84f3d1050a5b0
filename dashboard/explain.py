"""Requests explanations from the model API, one at a time and independent of the rounds."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

from dashboard.http_services import Explanation, Services
from dashboard.patient import Why
from dashboard.rows import Prediction
from dashboard.views import PatientView

CACHE = 256
# Pause after a failure; it doubles up to the longest.
RETRY_SECONDS, RETRY_LONGEST = 2.0, 60.0
LOOK_SECONDS = 0.2

_Key = tuple[object, ...]


class Explainer:
    """Fetches the explanation of the latest prediction for each open patient page."""

    def __init__(
        self,
        services: Services,
        views: Callable[[], Iterable[PatientView]],
        changed: Callable[[PatientView], None],
        available: Callable[[], bool],
    ) -> None:
        self._services = services
        self._views = views
        self._changed = changed
        self._available = available
        self._known: OrderedDict[_Key, Explanation] = OrderedDict()
        self._pause = RETRY_SECONDS
        self._not_before = 0.0

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            if not await self.step():
                await asyncio.sleep(LOOK_SECONDS)

    async def step(self) -> bool:
        """Explains one prediction; returns False when there is nothing to explain."""
        for view in list(self._views()):
            latest = view.patient.latest if view.patient else None
            if latest is None or latest.probability is None:
                continue
            key, why = _key(latest), view.why
            if why and why.explanation and _key(why.prediction) == key:
                continue
            answer = self._known.get(key)
            if answer is None:
                if time.monotonic() < self._not_before:
                    continue
                answer = await self._ask(latest, key)
            if answer.error is None:
                view.why = Why(latest, answer)
            else:
                view.why = replace(why or Why(latest), error=answer.error)
            self._changed(view)
            return True
        return False

    async def _ask(self, latest: Prediction, key: _Key) -> Explanation:
        if self._available():
            answer = await self._services.explain(latest.model, latest.features)
        else:
            answer = Explanation(error="the model API does not answer")
        if answer.error is not None:
            self._not_before = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, RETRY_LONGEST)
            return answer
        self._pause = RETRY_SECONDS
        self._known[key] = answer
        if len(self._known) > CACHE:
            self._known.popitem(last=False)
        return answer


def _key(latest: Prediction) -> _Key:
    return (latest.model, tuple(latest.features.items()))
