"""Reads one stay: its readings, its latest prediction, and the patient's rejected messages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dashboard.database import Database
from dashboard.http_services import Explanation
from dashboard.rows import (
    Alarm,
    AlarmEvent,
    Latest,
    ModelKey,
    Prediction,
    Reading,
    Rejected,
    Stay,
    StayKey,
)
from dashboard.stay_readings import Point, StayReadings, with_later
from dashboard.stream_clock import StreamClock
from wire.alarms import Policy


@dataclass(frozen=True)
class Patient:
    """The data of a patient page. latest: the newest prediction with a probability, or else the
    newest prediction. alarm: the active alarm. alarms: the events of all alarms. raised: the
    prediction that raised the last alarm.
    """

    clock: StreamClock
    stay: Stay
    vitals: dict[str, Latest]
    readings: list[Reading]
    points: dict[str, Point]
    latest: Prediction | None
    rejected: list[Rejected]
    rule: Policy | None = None
    alarm: Alarm | None = None
    alarms: Sequence[AlarmEvent] = ()
    raised: Prediction | None = None

    @property
    def now(self) -> datetime:
        """The time to which the ages of the values are relative. `vitals` includes readings after
        the partition's time. A reading that is dated ahead of the stream does not count.
        """
        reached = self.clock.of(self.stay.key.pat_id)
        if not self.readings:
            return reached
        return max(reached, min(self.readings[-1].at, self.clock.now))

    @property
    def explained(self) -> dict[str, Prediction]:
        """The predictions whose reasons the page shows, by name."""
        shown = {"latest": self.latest, "alarm": self.raised}
        return {name: each for name, each in shown.items() if each and each.probability is not None}


class PatientReader:
    """Reads one stay."""

    def __init__(self, database: Database, key: StayKey) -> None:
        self._database = database
        self.key = key
        self._readings = StayReadings(database, key)

    def read(
        self, clock: StreamClock, model: ModelKey | None, model_answered: bool
    ) -> Patient | None:
        """Reads the stay, with the predictions of `model`; None if the stream has no such stay.
        model_answered: whether pending predictions may have been filled in since the last call.
        """
        stream = clock.stream
        stays = self._database.stays_of(stream, self.key.pat_id)
        stay = next((stay for stay in stays if stay.key == self.key), None)
        if stay is None:
            return None
        vitals = self._database.vitals_of(stream, self.key)
        readings = self._readings
        readings.update(stream, model, model_answered)
        vitals = with_later(vitals, readings.all)
        rejected = self._database.rejected_of(stream, self.key.pat_id)
        latest = self._latest(stream, model)
        patient = Patient(clock, stay, vitals, readings.all, readings.points, latest, rejected)
        return self._with_alarms(patient, model) if model else patient

    def _with_alarms(self, patient: Patient, model: ModelKey) -> Patient:
        stream = patient.clock.stream
        events = self._database.alarm_events(stream, self.key, model)
        raised = [event.seq for event in events if event.kind == "raise"]
        return replace(
            patient,
            rule=self._database.alarm_rule(model),
            alarm=self._database.alarm_of(stream, self.key, model),
            alarms=events,
            raised=self._database.prediction(stream, raised[-1], model) if raised else None,
        )

    def _latest(self, stream: str, model: ModelKey | None) -> Prediction | None:
        asked = [reading for reading in self._readings.all if reading.predicted]
        answered = [reading for reading in asked if reading.probability is not None]
        if not asked or model is None:
            return None
        newest = max(answered or asked, key=lambda reading: reading.seq)
        return self._database.prediction(stream, newest.seq, model)


@dataclass(frozen=True)
class Why:
    """The last explanation of a stay, and the prediction that it explains. error: the reason why
    there is no newer explanation.
    """

    prediction: Prediction
    explanation: Explanation | None = None
    error: str = ""
