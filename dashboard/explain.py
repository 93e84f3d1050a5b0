"""Requests explanations from the model API, one at a time and independently of the poller's
rounds."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

from dashboard.http_services import Explanation, Services
from dashboard.patient import Why
from dashboard.rows import Prediction
from dashboard.views import PatientView

CACHE = 256  # maximum number of explanations
# Seconds to pause after a failure. The pause doubles with each failure, up to the longest.
RETRY_SECONDS, RETRY_LONGEST = 2.0, 60.0
# Seconds between two searches for a prediction to explain.
LOOK_SECONDS = 0.2

_Key = tuple[object, ...]


class Explainer:
    """Fetches the explanations that each open patient page shows."""

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
            explained = view.patient.explained if view.patient else {}
            for name, prediction in explained.items():
                if await self._explain(view, name, prediction):
                    return True
        return False

    async def _explain(self, view: PatientView, name: str, prediction: Prediction) -> bool:
        """Explains a prediction on a page, or sets the error.

        Returns False if the page already has the explanation or the request must wait.
        """
        key, why = _key(prediction), view.whys.get(name)
        if why and why.explanation and _key(why.prediction) == key:
            return False
        answer = self._known.get(key)
        if answer is None:
            if time.monotonic() < self._not_before:
                return False
            answer = await self._ask(prediction, key)
        if answer.error is None:
            view.whys[name] = Why(prediction, answer)
        else:
            view.whys[name] = replace(why or Why(prediction), error=answer.error)
        self._changed(view)
        return True

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
