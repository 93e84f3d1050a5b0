"""The one that asks: all pages of all browsers are fed by a single round of questions."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from dashboard.database import Database, DatabaseDown, Stay, StayKey
from dashboard.patient import Patient, PatientReader, patient_content
from dashboard.pipeline import (
    Reading,
    RejectedCount,
    Service,
    Throughput,
    figures,
    rejected_content,
    safe_seq,
    service_content,
)
from dashboard.rendering import Pages
from dashboard.sources import Explanation, Health, Queues, QueueState, Services
from dashboard.status import Standing, status_fields
from dashboard.topic import Content, Fields, Topic
from dashboard.vital_signs import VitalSign
from dashboard.ward import (
    Ward,
    WardReader,
    bed_fields,
    bed_key,
    discharged_fields,
    risk_ceiling,
)

log = logging.getLogger("dashboard")

T = TypeVar("T")

# Rest between rounds, at least; and so many times as long as the database was read, so that
# the dashboard never takes more than a twentieth of its time.
REST = 1.0
REST_FACTOR = 19
# A patient's page that nobody looks at any more is read for so long.
WATCH_SECONDS = 60.0
WATCH_LIMIT = 50
CHAMPION_SECONDS = 5.0
# The tool is down when messages wait and nothing is stored for so long.
STALL_SECONDS = 10.0


class TooManyPages(Exception):
    """More different patients' pages are open than are kept up to date."""


class Watch:
    """A patient's page that someone looks at."""

    def __init__(self, reader: PatientReader, topic: Topic) -> None:
        self.reader = reader
        self.topic = topic
        self.patient: Patient | None = None
        self.readers = 0
        self.wanted = time.monotonic()
        self.explained: tuple[object, Explanation] | None = None


@dataclass(frozen=True)
class Found:
    """What one round read from the database."""

    stream: str | None = None
    stored: int | None = None
    committed_at: datetime | None = None
    ward: Ward | None = None
    pending: int | None = None
    error: str | None = None


class Poller:
    """Asks everyone, round after round, and keeps the topics of all pages up to date."""

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
        self._ask = services
        self._pages = pages
        self._clock = clock
        # SQLite's connections belong to one thread.
        self._thread = ThreadPoolExecutor(1, "database")
        self._reader = WardReader(database)
        self._rejected = RejectedCount()
        self._throughput = Throughput()
        self._pending: int | None = None
        self._champion: str | None = None
        self._champion_at = -CHAMPION_SECONDS
        self._moved: dict[str, tuple[object, float]] = {}
        self._found = Found()
        self._reading = 0.0
        self._version = 0
        self._status: Fields = {}
        self.services = {
            name: Service(name, does)
            for name, does in (
                ("hospital", "sends the messages"),
                ("buffer", "takes them in and batches them"),
                ("redis", "holds the queues"),
                ("tool", "stores them and asks for predictions"),
                ("database", "keeps everything"),
                ("modelapi", "predicts"),
            )
        }
        self.epoch = secrets.token_hex(4)
        # The ward's columns: always those of the fields that its topic has.
        self.signs: list[VitalSign] = []
        self.ward = Topic(
            {
                "ward": lambda key, fields: pages.entry("bed", key, fields, signs=self.signs),
                "gone": partial(pages.entry, "discharged"),
            }
        )
        self.pipeline = Topic({"reason": partial(pages.entry, "reason")})
        self.watches: dict[StayKey, Watch] = {}
        self.polled = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._reading = 0.0
                try:
                    await self.poll()
                except Exception:
                    # A page that goes on is worth more than a clean end.
                    log.exception("this round failed")
                await asyncio.sleep(max(REST, REST_FACTOR * self._reading))
        finally:
            await self._in_thread(self._database.close)
            self._thread.shutdown()

    async def poll(self) -> None:
        """One round."""
        now = self._clock()
        # Before the database, so that what it says to be stored is not less than what they saw.
        queues, hospital, model_api = await asyncio.gather(
            self._queues.read(), self._ask.hospital(), self._ask.model_api()
        )
        if now - self._champion_at >= CHAMPION_SECONDS and model_api.error is None:
            self._champion = await self._ask.champion() or self._champion
            self._champion_at = now
        before = self._found
        found = await self._in_thread(lambda: self._read(queues))
        if found.error is not None and found.error != before.error:
            log.warning("database: %s", found.error)
        self._found = replace(before, error=found.error) if found.error else found
        at = self._clock()
        stored = None if found.error else found.stored
        self._throughput.add(Reading(at, queues.stream, queues.taken, stored, queues.latency))
        standing = self._judge(at, queues, hospital, model_api)
        self._publish(at, queues, standing)
        await self._explain()
        self.polled.set()

    def _read(self, queues: QueueState) -> Found:
        """In the database's thread."""
        started = time.monotonic()
        try:
            with self._database.snapshot():
                positions = self._database.positions()
                if not positions:
                    return Found()
                stream = positions[0].stream
                model = self._champion or self._database.champion()
                pending = self._database.pending(stream)
                answered = self._pending is not None and pending < self._pending
                answered = answered or (self._pending == pending and pending > 0)
                self._pending = pending
                ward = self._reader.read(stream, model, answered)
                same = queues.stream == stream
                safe = safe_seq(
                    positions, queues.taken if same else None, queues.parts if same else {}
                )
                self._rejected.read(self._database, stream, safe)
                for watch in self.watches.values():
                    watch.patient = watch.reader.read(stream, model, answered)
                return Found(
                    stream,
                    max(position.seq for position in positions),
                    max(position.committed_at for position in positions),
                    ward,
                    pending,
                )
        except DatabaseDown as error:
            return Found(error=str(error))
        finally:
            self._reading = time.monotonic() - started

    def _stood(self, name: str, value: object, at: float) -> float:
        """For how many seconds `value` has been the same."""
        before = self._moved.get(name)
        if before is None or before[0] != value:
            self._moved[name] = before = (value, at)
        return at - before[1]

    def _judge(
        self, at: float, queues: QueueState, hospital: Health, model_api: Health
    ) -> Standing:
        found = self._found
        stored_for = self._stood("stored", (found.stream, found.stored), at)
        total, rate = hospital.said.get("messages"), hospital.said.get("rate")
        stored, taken = found.stored or 0, queues.taken
        ended = queues.ended and found.stream == queues.stream and stored >= (taken or 0)
        if isinstance(total, int) and hospital.said.get("stream") == found.stream:
            ended = ended or stored >= total
        see = self._see
        see("hospital", at, hospital.error)
        see("redis", at, queues.error, queues.run_id)
        see("database", at, found.error)
        see("modelapi", at, model_api.error)
        if queues.error is not None:
            self.services["buffer"].seen("unknown", "is seen through redis only", at)
            self.services["tool"].seen("unknown", "is seen through redis only", at)
        else:
            see("buffer", at, None if queues.buffer else "holds no lease in redis", queues.buffer)
            waits = taken is not None and found.stream == queues.stream and stored < taken
            waiting_for = self._stood("waits", waits, at)
            error = None
            if not queues.workers:
                error = "no worker is registered"
            elif waits and found.error is None and min(waiting_for, stored_for) > STALL_SECONDS:
                error = "messages wait and nothing is being stored"
            see("tool", at, error, " ".join(sorted(queues.workers)) or None)
        if ended:
            for name in ("buffer", "tool"):
                if self.services[name].state == "up":
                    self.services[name].seen("waiting", "the stream has ended", at)
        return Standing(
            found.ward.now if found.ward else None,
            found.error,
            stored_for,
            float(rate) if isinstance(rate, int | float) else None,
            ended,
        )

    def _see(self, name: str, at: float, error: str | None, identity: str | None = None) -> None:
        self.services[name].seen("down" if error else "up", error or "", at, identity)

    def _publish(self, at: float, queues: QueueState, standing: Standing) -> None:
        self._version += 1
        ward = self._found.ward
        signs = ward.signs if ward else []
        layout = " ".join([self._found.stream or "-", *(sign.parameter for sign in signs)])
        services = list(self.services.values())
        self._status = status_fields(standing, services, layout)
        content = self._ward_content(ward, signs)
        self.signs = signs
        self.ward.update(content, self._version)
        now = ward.now if ward else None
        down = standing.database_error is not None
        pipeline: dict[str, Fields] = {
            "page": self._status,
            "figures": figures(
                self._throughput,
                queues,
                None if down else self._found.stored,
                now,
                None if down else self._found.pending,
                self._rejected,
            ),
        }
        pipeline |= service_content(services, at)
        pipeline |= rejected_content(self._rejected)
        self.pipeline.update(pipeline, self._version)
        self._drop_unwatched()
        for watch in self.watches.values():
            self._publish_patient(watch, now)

    def _ward_content(self, ward: Ward | None, signs: list[VitalSign]) -> Content:
        content: dict[str, Fields] = {"page": self._status}
        if ward is None:
            return content | {"ward": {"count": "0", "ceiling": "", "more": ""}}
        ceiling = risk_ceiling(ward.beds)
        content["ward"] = {
            "count": str(len(ward.beds)) + ("+" if ward.full else ""),
            "ceiling": f"{100 * ceiling:g} %",
            "more": "There are more: those admitted last are shown." if ward.full else "",
        }
        for bed in ward.beds:
            content[bed_key(bed.stay.key)] = bed_fields(bed, ward.now, signs, ceiling)
        for stay in ward.discharged:
            key = f"gone:{stay.key.pat_id}-{stay.key.admitted:%Y%m%d}"
            content[key] = discharged_fields(stay)
        return content

    def _publish_patient(self, watch: Watch, now: datetime | None) -> None:
        content: dict[str, Fields] = {"page": self._status}
        if watch.patient is not None and now is not None:
            told = watch.explained[1] if watch.explained else None
            content |= patient_content(replace(watch.patient, explanation=told), now)
        watch.topic.update(content, self._version)

    async def _explain(self) -> None:
        """Ask the model API for contributions, once a prediction and page."""
        for watch in list(self.watches.values()):
            latest = watch.patient.latest if watch.patient else None
            if latest is None or latest.probability is None:
                continue
            asked = (latest.model, latest.version, tuple(latest.features.items()))
            if watch.explained and watch.explained[0] == asked and not watch.explained[1].error:
                continue
            if self.services["modelapi"].state == "down":
                told = Explanation(error="it does not answer")
            else:
                told = await self._ask.explain(latest.model, latest.version, latest.features)
            watch.explained = (asked, told)
            self._version += 1
            self._publish_patient(watch, self._found.ward.now if self._found.ward else None)

    def _drop_unwatched(self) -> None:
        limit = time.monotonic() - WATCH_SECONDS
        for key in [k for k, w in self.watches.items() if not w.readers and w.wanted < limit]:
            del self.watches[key]

    async def stays_of(self, pat_id: int) -> list[Stay]:
        """A patient's stays in the current stream, newest first. Raises DatabaseDown."""
        stream = self._found.stream
        if stream is None:
            return []

        def read() -> list[Stay]:
            with self._database.snapshot():
                return self._database.stays_of(stream, pat_id)

        return await self._in_thread(read)

    async def watch(self, key: StayKey) -> Watch:
        """A stay's page, read at once and kept up to date while someone looks at it.

        Raises DatabaseDown when it is not known yet and cannot be read.
        """
        watch = self.watches.get(key)
        if watch is None:
            self._drop_unwatched()
            if len(self.watches) >= WATCH_LIMIT:
                raise TooManyPages
            entries = ("vital", "feature", "rejected")
            topic = Topic({name: partial(self._pages.entry, name) for name in entries})
            watch = Watch(PatientReader(self._database, key), topic)
            found, model = self._found, self._champion

            def read(watch: Watch = watch) -> None:
                with self._database.snapshot():
                    known = model or self._database.champion()
                    watch.patient = watch.reader.read(found.stream or "", known, False)

            await self._in_thread(read)
            watch = self.watches.setdefault(key, watch)
            await self._explain()
            self._version += 1
            self._publish_patient(watch, found.ward.now if found.ward else None)
        watch.wanted = time.monotonic()
        return watch

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
