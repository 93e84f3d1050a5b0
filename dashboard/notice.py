"""The notice of every page: what is down, for how long, and what this means for the values."""

from dashboard.http_services import PREPARING
from dashboard.services import STUCK, Service

NAMES = {
    "hospital": "The source (hospital)",
    "gateway": "The source (gateway)",
    "redis": "The queue (redis)",
    "buffer": "The buffer",
    "tool": "The tool",
    "modelapi": "The model API",
}
WAITING = "new readings wait and are not shown yet"
MEANING = {
    "hospital": "no new readings arrive",
    "gateway": "no new readings arrive",
    "redis": WAITING,
    "buffer": WAITING,
    "tool": WAITING,
    "modelapi": "predictions are not updated",
}
OLD = "These are the last known values; they are not current."
SENTENCES = {
    "late": f"The dashboard has not updated for more than 5 seconds. {OLD}",
    "earlier": "This stream is not being sent now; these are its last stored values.",
    "quiet": "No new message is being stored, so these values are not current.",
    "ended": "The stream has ended; this is the ward at its last message.",
}
# Durations are coarse, because a screen reader reads the notice again when it changes.
DURATIONS = (
    (86_400, "over a day"),
    (14_400, "over 4 hours"),
    (3_600, "over an hour"),
    (900, "over 15 minutes"),
    (300, "over 5 minutes"),
    (60, "over a minute"),
)


def notice(state: str, services: list[Service], at: float) -> str:
    """The sentences for a stream in this state. at: seconds of the poller's clock."""
    down = {each.name: each for each in services if each.state == "down"}
    tool = next((each for each in services if each.name == "tool"), None)
    if tool and tool.note.startswith(STUCK):
        down["tool"] = tool
    sentences: list[str] = []
    if database := down.pop("database", None):
        sentences.append(f"The database {_since(database, at)}. {OLD}")
        down.pop("tool", None)
    elif state == "empty":
        sentences.append(_empty(services))
    elif state in SENTENCES:
        sentences.append(SENTENCES[state])
    for name, service in down.items():
        if service.note != PREPARING or state != "empty":
            meaning = f": {MEANING[name]}"
            if state in ("ended", "earlier") and MEANING[name] == WAITING:
                meaning = ""  # no reading of these streams waits
            sentences.append(f"{NAMES[name]} {_since(service, at)}{meaning}.")
    return " ".join(sentences)


def _since(service: Service, at: float) -> str:
    seconds = at - service.since
    duration = next((text for limit, text in DURATIONS if seconds > limit), "")
    note = "is preparing the stream" if service.note == PREPARING else service.note
    return note + (f" (for {duration})" if duration else "")


def _empty(services: list[Service]) -> str:
    if any(each.note == PREPARING for each in services):
        return "Hospital is preparing the stream; the first readings follow shortly."
    return "No reading is stored yet; the first ones will appear here automatically."
