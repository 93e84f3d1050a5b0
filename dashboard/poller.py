"""Polls the pipeline in rounds, once for all pages of all browsers."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from dashboard import metrics
from dashboard.connection import DatabaseDown
from dashboard.database import Database
from dashboard.explain import Explainer
from dashboard.http_services import Health, Models, Services
from dashboard.judge import Judge
from dashboard.live_ward import LiveWard
from dashboard.model_info import ModelInfo
from dashboard.pipeline import Sample, Throughput, figures, rejected_content
from dashboard.queue_state import Queues, QueueState
from dashboard.reading import RoundReader, State
from dashboard.rendering import Pages
from dashboard.rows import ModelKey
from dashboard.shelf import Shelf
from dashboard.status import LATE_SECONDS, status_fields
from dashboard.stream_clock import read_clock
from dashboard.topic import Fields, Topic
from dashboard.views import PatientView, Round, View

log = logging.getLogger("dashboard")

T = TypeVar("T")

REST, REST_LONGEST, REST_FACTOR = 1.0, 3.0, 9
# Minimum seconds between two requests for the models in use.
MODELS_SECONDS = 5.0
# The lists of the pipeline page.
LISTS = ("reason", "sender", "code")
# Maximum seconds that a page request waits for the database.
ANSWER_SECONDS = 4.0


def rest(read: float) -> float:
    """The pause in seconds after a round that read the database for `read` seconds. It is
    REST_FACTOR times `read`, so that the load stays small, but at least REST and at most
    REST_LONGEST. After a slow round the pause is shorter, so that the page is not late before the
    next round ends.
    """
    longest = min(REST_LONGEST, LATE_SECONDS - 2 * read)
    return max(REST, min(longest, REST_FACTOR * read))


class Poller:
    """Runs the rounds and keeps the topics of all pages up to date."""

    def __init__(
        self,
        database: Database,
        queues: Queues,
        services: Services,
        pages: Pages,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._queues = queues
        self._services = services
        self.clock = clock
        # An SQLite connection belongs to one thread.
        self._thread = ThreadPoolExecutor(1, "database")
        self._throughput = Throughput()
        self._live_ward = LiveWard()
        self._models = Models(error="was not queried yet")
        self._models_at = -MODELS_SECONDS
        self._round_at = clock()
        self._read_seconds = 0.0
        self._error: str | None = None
        self._version = 0
        self.descriptions: dict[ModelKey, ModelInfo] = {}
        self.state = State()
        self.judge = Judge()
        self.epoch = secrets.token_hex(4)
        self.pipeline = Topic({name: partial(pages.entry, name) for name in LISTS})
        self.shelf = Shelf(database, pages)
        self._reader = RoundReader(database, self.shelf)
        self.polled = asyncio.Event()
        self._explainer = Explainer(
            services,
            lambda: [view for view in self.shelf.views.values() if isinstance(view, PatientView)],
            self._publish_view,
            lambda: self.judge.board.services["modelapi"].state != "down",
        )

    async def run(self) -> None:
        """Runs until cancelled."""
        others = [asyncio.create_task(self._explainer.run()), asyncio.create_task(self._tick())]
        try:
            while True:
                failed = False
                try:
                    await self.poll()
                except Exception:
                    # A failed round must not stop the pages.
                    log.exception("a round failed")
                    failed = True
                await asyncio.sleep(REST if failed or self._error else rest(self._read_seconds))
        finally:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self._thread.submit(self._database.close)
            self._thread.shutdown(wait=False)

    async def _tick(self) -> None:
        """Marks the pages as late while a round takes too long."""
        while True:
            await asyncio.sleep(1)
            if self.polled.is_set() and self._age(None) > LATE_SECONDS:
                self._version += 1
                for view in self.shelf.views.values():
                    view.topic.set("page", self._status(view), self._version)
                self.pipeline.set("page", self._status(None), self._version)

    def _age(self, view: View | None) -> float:
        """Seconds since the data of a page was read. view: None for the pipeline page."""
        return self.clock() - (view.read_at if view else self._round_at)

    @property
    def model(self) -> ModelInfo:
        """The champion's description; until it is known, one without details."""
        key = self.state.models.champion or ModelKey("no model", "")
        return self.descriptions.get(key) or ModelInfo(key)

    async def poll(self) -> None:
        """Runs one round."""
        began = self.clock()
        # The other services are read before the database, so that the database is at least as new.
        queues, hospital, model_api = await asyncio.gather(
            self._queues.read(), self._services.hospital(), self._services.model_api()
        )
        await self._read_models(began, model_api)
        started = time.monotonic()
        try:
            self.state = await self._in_thread(
                lambda: self._reader.read(began, self.state, queues, hospital, self._models)
            )
            if self._error is not None:
                log.info("database: answers again")
            self._error, self._round_at = None, began
        except DatabaseDown as error:
            if self._error is None:
                log.warning("the database cannot be read: %s", error.__cause__ or error)
            self._error = str(error)
            metrics.FAILED.inc()
        self._read_seconds = time.monotonic() - started
        metrics.DURATION.observe(self._read_seconds)
        at = self.clock()
        self.judge.observe(at, self.state, self._error, queues, hospital, model_api)
        self._publish(at, queues, hospital)
        if self._error is None:
            metrics.ROUND.set(time.time() - (self.clock() - began))
        self.polled.set()

    async def _read_models(self, at: float, model_api: Health) -> None:
        if at - self._models_at < MODELS_SECONDS or model_api.error is not None:
            return
        models = await self._services.models()
        if models.champion is None:
            return
        self._models_at, self._models = at, models
        for key in (models.champion, *models.shadows):
            if key not in self.descriptions and (found := await self._services.describe(key)):
                self.descriptions[key] = found

    def _status(self, view: View | None) -> Fields:
        """The fields of every page."""
        stream, clock = (view.key.stream, view.clock) if view else (None, self.state.clock)
        status = self.judge.status(stream, clock, self.state, self._error, self._age(view))
        layout = [status.stream or "-", *(sign.name for sign in (view.signs if view else []))]
        if view is not None:
            layout += (*self.model.key, self.model.unit)
        services = list(self.judge.board.services.values())
        return status_fields(status, services, " ".join(layout), self.clock())

    def _publish(self, at: float, queues: QueueState, source: Health) -> None:
        self._version += 1
        state, clock = self.state, self.state.clock
        down = self._error is not None
        stored = None if down else state.stored
        self._throughput.add(Sample(at, queues.stream, queues.taken, stored, queues.latency))
        rejected = self._reader.rejected
        pipeline: dict[str, Fields] = {
            "page": self._status(None),
            "figures": figures(
                self._throughput,
                queues,
                stored,
                clock.now if clock else None,
                None if down else state.pending,
                rejected,
            ),
        }
        pipeline |= self.judge.board.content(at)
        pipeline |= rejected_content(rejected)
        pipeline |= self._live_ward.content(source, at, time.time())
        self.pipeline.update(pipeline, self._version, self._round_at)
        self.shelf.drop_unwanted()
        metrics.READERS.set(sum(view.readers for view in self.shelf.views.values()))
        ward = self.shelf.ward(None).ward
        metrics.PATIENTS.set(len(ward.ranked) if ward else 0)
        for view in self.shelf.views.values():
            view.publish(self._status(view), self.model, self._version)

    def _publish_view(self, view: View) -> None:
        self._version += 1
        view.publish(self._status(view), self.model, self._version)

    async def query(self, work: Callable[[Database], T]) -> T:
        """Runs `work` in a snapshot. Raises DatabaseDown, for example after a timeout."""

        def run() -> T:
            with self._database.snapshot():
                return work(self._database)

        try:
            return await asyncio.wait_for(self._in_thread(run), ANSWER_SECONDS)
        except TimeoutError:
            raise DatabaseDown("does not answer in time") from None

    async def open(self, view: View) -> None:
        """Reads a page's data for the first time and adds the page to the shelf.

        Raises DatabaseDown.
        """
        current, champion = self.state.current, self.state.models.champion
        name = view.key.stream or current or ""
        began = self.clock()

        def read(database: Database) -> None:
            positions = [each for each in database.positions() if each.stream == name]
            clock = read_clock(database, name, positions, QueueState())
            clocks = {name: clock} if clock else {}
            seen = database.seen(champion) if champion else None
            pending = {name: database.pending(name)}
            view.read(Round(began, current, clocks, champion, seen, pending))

        await self.query(read)
        self.shelf.views.setdefault(view.key, view)
        self._publish_view(view)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
