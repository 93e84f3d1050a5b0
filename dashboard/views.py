"""Pages that are kept up to date while they are open."""

import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

from dashboard.alarms import rate_sentence, rule_sentence, ward_sentence
from dashboard.beds import bed_fields, bed_key, discharged_fields, threshold_notes
from dashboard.database import STAY_LIMIT, Database
from dashboard.formats import count
from dashboard.model_info import ModelInfo
from dashboard.patient import Patient, PatientReader, Why
from dashboard.patient_content import patient_content
from dashboard.rendering import Pages
from dashboard.rows import ModelKey, StayKey
from dashboard.stream_clock import StreamClock
from dashboard.topic import Fields, Renderer, Topic
from dashboard.ward import Ward, WardReader
from wire.vitals import Vital


class ViewKey(NamedTuple):
    """Identifies a page. stream: None for the current stream. stay: None for the ward page."""

    stream: str | None
    stay: StayKey | None


@dataclass(frozen=True)
class Round:
    """The context of a round: the champion, and for each stream its clock and the number of its
    pending predictions. at: the start of the round, in seconds of the poller's clock. seen: the
    time of the champion's last declaration or backfill.
    """

    at: float
    current: str | None
    clocks: dict[str, StreamClock]
    model: ModelKey | None
    seen: datetime | None
    pending: dict[str, int]

    def clock(self, stream: str | None) -> StreamClock | None:
        return self.clocks.get(stream or self.current or "")

    def waiting(self, stream: str | None) -> int:
        """The number of pending predictions of a stream."""
        return self.pending.get(stream or self.current or "", 0)


class View:
    """One page. readers: the number of open connections. wanted: the time of the last request.
    read_at: the time when the page's data was read, in seconds of the poller's clock.
    """

    def __init__(self, key: ViewKey, topic: Topic) -> None:
        self.key = key
        self.topic = topic
        self.readers = 0
        self.wanted = time.monotonic()
        self.clock: StreamClock | None = None
        self.read_at = 0.0
        # `Round.seen` and the number of pending predictions when the data was read.
        self._seen: datetime | None = None
        self._pending = 0

    def touch(self) -> None:
        """Keeps the page up to date for a while longer."""
        self.wanted = time.monotonic()

    @property
    def query(self) -> str:
        """The query string that selects the stream; empty for the current stream."""
        return f"?stream={self.key.stream}" if self.key.stream else ""

    @property
    def signs(self) -> list[Vital]:
        return []

    def read(self, current: Round) -> None:
        """Reads the page's data; runs in the database's thread."""
        clock, pending = current.clock(self.key.stream), current.waiting(self.key.stream)
        # Each page compares with its own last read, because it may have been opened between two
        # rounds, and because a round may fail.
        if current.seen != self._seen:
            self._forget()  # a backfill may have added predictions
        self._read(clock, current.model, max(pending, self._pending) > 0)
        self._seen, self._pending = current.seen, pending
        self.clock, self.read_at = clock, current.at

    def _forget(self) -> None:
        """Makes the next call of `_read` read everything."""
        raise NotImplementedError

    def _read(self, clock: StreamClock | None, model: ModelKey | None, answered: bool) -> None:
        """Reads the data up to this clock. answered: whether pending predictions may have been
        filled in since the last call."""
        raise NotImplementedError

    def publish(self, status: Fields, model: ModelInfo, version: int) -> None:
        """Updates the topic."""
        raise NotImplementedError


class WardView(View):
    """The ward of one stream."""

    def __init__(self, key: ViewKey, database: Database, pages: Pages) -> None:
        renderers: dict[str, Renderer] = {
            "ward": lambda key, fields: pages.entry(
                "bed", key, fields, signs=self.shown, model=self.model
            ),
            "gone": partial(pages.entry, "discharged"),
        }
        super().__init__(key, Topic(renderers))
        self._database = database
        self._reader = WardReader(database)
        self.ward: Ward | None = None
        # The columns and the model that the topic's fields refer to.
        self.shown: list[Vital] = []
        self.model: ModelInfo | None = None

    @property
    def signs(self) -> list[Vital]:
        return self.ward.signs if self.ward else []

    def _forget(self) -> None:
        self._reader = WardReader(self._database)

    def _read(self, clock: StreamClock | None, model: ModelKey | None, answered: bool) -> None:
        # A single assignment, because pages may be published at the same time.
        self.ward = self._reader.read(clock, model, answered) if clock else None

    def publish(self, status: Fields, model: ModelInfo, version: int) -> None:
        ward, signs = self.ward, self.signs
        content: dict[str, Fields] = {
            "page": status,
            "ward": _heading(ward, model, signs, self.query),
        }
        if ward is not None:
            for bed in ward.beds:
                content[bed_key(bed.stay.key)] = bed_fields(bed, ward, model, signs, self.query)
            for stay in ward.discharged:
                key = f"gone:{stay.key.pat_id}-{stay.key.admitted:%Y%m%d}"
                content[key] = discharged_fields(stay, self.query)
        self.shown, self.model = signs, model
        self.topic.update(content, version, self.read_at)


def _heading(ward: Ward | None, model: ModelInfo, signs: list[Vital], query: str) -> Fields:
    everybody = len(ward.ranked) if ward else 0
    shown = len(ward.beds) if ward else 0
    return {
        "count": count(everybody) + ("+" if ward and ward.full else ""),
        "shown": f"The {shown} with the highest {model.noun.lower()} are shown here."
        if shown < everybody
        else "",
        "all": f"/patients{query}",
        "model": model.sentence,
        "card": f"/models/{model.key.name}/{model.key.version}",
        "alarms": ward_sentence(ward.alarms) if ward else "",
        "rate": rate_sentence(ward.alarms) if ward else "",
        "rule": rule_sentence(ward.alarms.rule, model) if ward and ward.alarms.rule else "",
        "axis": model.axis,
        "thresholds": threshold_notes(signs),
    }


class PatientView(View):
    """One stay."""

    def __init__(self, key: ViewKey, database: Database, pages: Pages) -> None:
        assert key.stay is not None
        entries = ("vital", "feature", "rejected")
        super().__init__(key, Topic({name: partial(pages.entry, name) for name in entries}))
        self._database = database
        self._reader = PatientReader(database, key.stay)
        self.patient: Patient | None = None
        self.whys: dict[str, Why] = {}
        self._points: Fields = {}
        # Changes when a reading was withdrawn. The browser then drops all points of the curves.
        self._edition = secrets.token_hex(4)

    def _forget(self) -> None:
        self._reader = PatientReader(self._database, self._reader.key)

    def _read(self, clock: StreamClock | None, model: ModelKey | None, answered: bool) -> None:
        self.patient = self._reader.read(clock, model, answered) if clock else None

    def publish(self, status: Fields, model: ModelInfo, version: int) -> None:
        content: dict[str, Fields] = {"page": status}
        # One variable, because the data may be read at the same time.
        if (patient := self.patient) is not None:
            content |= patient_content(patient, model, self.whys)
            content["points"] = self._with_edition(content["points"], len(patient.readings))
        self.topic.update(content, version, self.read_at)

    def _with_edition(self, points: Fields, readings: int) -> Fields:
        gone = self._points.keys() - points.keys()
        if gone and readings >= STAY_LIMIT:
            # The limit drops the oldest points; the browser does so, too.
            oldest = min(point[0] for point in points.values())
            gone = {seq for seq in gone if self._points[seq][0] > oldest}
        if gone:
            self._edition = secrets.token_hex(4)
            self.topic.renew("points")
        self._points = points
        return {**points, "edition": self._edition}
