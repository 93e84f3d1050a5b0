"""POST /patients/N/acknowledge: sends an acknowledgement to the gateway as a message of the stream.

This requires ACKNOWLEDGE_URL; without it the pages are read-only.
"""

import msgspec
from aiohttp import web

from dashboard.acknowledger import NotSent
from dashboard.keys import ACKNOWLEDGER, POLLER
from dashboard.pages import number
from dashboard.rows import StayKey, day
from dashboard.topic import Fields
from wire.bodies import read_form
from wire.messages import Rejected, decode


async def acknowledge(request: web.Request) -> web.Response:
    """Sends the acknowledgement in a patient page's form, and redirects to the page."""
    acknowledger = request.app.get(ACKNOWLEDGER)
    if acknowledger is None:
        raise web.HTTPNotFound(text="Acknowledging is not enabled on this server.")
    message = _message(request, await read_form(request))
    try:
        decode(msgspec.json.encode(message))
        await acknowledger.send(message)
    except Rejected as error:
        raise web.HTTPBadRequest(text=f"The acknowledgement is invalid: {error}.") from None
    except NotSent as error:
        raise web.HTTPBadGateway(text=f"The acknowledgement was not sent: {error}.") from None
    page = f"/patients/{message['pat_id']}?stay={message['date_admission']}"
    raise web.HTTPSeeOther(page)


async def patient_of_form(request: web.Request) -> web.Response:
    """Redirects to the patient page. A browser that reloads the answer to the form sends a GET."""
    raise web.HTTPSeeOther(f"/patients/{request.match_info['pat_id']}")


def _message(request: web.Request, form: dict[str, str]) -> Fields:
    """Makes the message, with the current time of the stream that the source sends. Raises
    HTTPNotFound, HTTPConflict or HTTPBadRequest."""
    state = request.app[POLLER].state
    clock, champion = state.clock, state.models.champion
    # The page may have been opened before the source began another stream, in which the same number
    # is another patient.
    if form.get("stream") != state.current:
        raise web.HTTPConflict(
            text="The page belongs to another stream than the one that is sent now, so nothing was"
            " acknowledged. Please open the patient again from the ward page."
        )
    if clock is None or champion is None:
        raise web.HTTPNotFound(text="No reading is stored yet, or no model is known.")
    pat_id = number(request.match_info["pat_id"])
    try:
        stay = StayKey(pat_id, day(form.get("stay", "")))
        snooze = float(form.get("snooze", "0"))
    except ValueError:
        raise web.HTTPBadRequest(text="The form needs stay=YYYY-MM-DD and snooze=HOURS.") from None
    at = clock.of(pat_id)
    # A user who has logged in acknowledges in no other name. nginx sets this header.
    author = request.headers.get("X-User", "")[:64] or form.get("author", "")
    return {
        "type": "acknowledgement",
        "pat_id": pat_id,
        "date_admission": stay.admitted.isoformat(),
        "author": author.strip(),
        "day": at.date().isoformat(),
        "hour": at.hour,
        "minute": at.minute,
        "second": at.second,
        "model": champion.name,
        "snooze_hours": snooze,
    }
