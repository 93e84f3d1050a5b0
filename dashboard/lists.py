"""The list of all patients, which has no live updates."""

from contextlib import suppress
from datetime import datetime

from aiohttp import web

from dashboard import formats
from dashboard.beds import discharged_fields, listed_fields
from dashboard.connection import DatabaseDown
from dashboard.database import Database
from dashboard.pages import patient_number, ready, render, stream_of, view_of
from dashboard.poller import Poller
from dashboard.rows import Stay, StayKey
from dashboard.topic import Fields
from dashboard.views import ViewKey, WardView
from dashboard.ward import Ranked, Ward

PAGE = 100
SHOWS = {
    "": "all patients in the ICU",
    "alarm": "with an alarm",
    "none": "with no risk computed",
    "old": "with a risk older than the newest reading",
}


async def patients(request: web.Request) -> web.Response:
    """Shows one page (?page=) of the patients in the ICU. ?show= selects a group of SHOWS, and ?q=
    the patients whose identifier or place contains this text; a patient without an identifier has
    the number as identifier. If the text is exactly one patient's identifier, redirects to the
    patient, who may be discharged.
    """
    poller = await ready(request)
    stream = stream_of(request, poller)
    view = await view_of(poller, ViewKey(stream, None))
    assert isinstance(view, WardView)
    # One ward for the whole page, because a round may replace it during the queries.
    ward = view.ward
    wanted = request.query.get("q", "").strip()[:64]
    show = request.query.get("show", "")
    others: list[Stay] = []
    if wanted:
        exact, others = await _search(poller, stream or poller.state.current or "", wanted, ward)
        if exact is not None:
            raise web.HTTPSeeOther(f"/patients/{exact}{view.query}")
    found = _listed(ward, wanted.casefold(), show)
    page = request.query.get("page", "1")
    at = int(page) if page.isascii() and page.isdecimal() and len(page) < 6 else 1
    shown = found[(at - 1) * PAGE : at * PAGE]
    status = 404 if wanted and not found and not others else 200
    return render(
        request,
        "patients",
        status=status,
        page=view.topic.content.get("page"),
        query=view.query,
        stream=view.key.stream,
        wanted=wanted,
        show=show if show in SHOWS else "",
        shows=SHOWS,
        model=poller.model,
        count=formats.count(len(found)),
        rows=await _rows(poller, ward, view.query, shown),
        others=[discharged_fields(stay, view.query) for stay in others],
        at=at,
        last=max(1, -(-len(found) // PAGE)),
    )


async def _rows(poller: Poller, ward: Ward | None, query: str, shown: list[Ranked]) -> list[Fields]:
    known: dict[StayKey, dict[str, datetime]] = {}
    if ward is None:
        return []
    keys = [each.stay.key for each in shown]
    # While the database is down, the page says so, and shows the last known values without a wait.
    if poller.judge.board.services["database"].state != "down":
        with suppress(DatabaseDown):
            known = await poller.query(lambda read: read.parameters_of(ward.clock.stream, keys))
    return [
        listed_fields(each, ward, poller.model, query, known.get(each.stay.key)) for each in shown
    ]


def _listed(ward: Ward | None, wanted: str, show: str) -> list[Ranked]:
    found = ward.ranked if ward else []
    if ward and show == "alarm":
        found = [each for each in found if each.stay.key in ward.alarms.on]
    elif show == "none":
        found = [each for each in found if each.risk is None]
    elif show == "old":
        found = [each for each in found if each.risk and each.risk.at != each.summary.last_at]
    return [each for each in found if _matches(each.stay, wanted)]


def _matches(stay: Stay, wanted: str) -> bool:
    return any(wanted in text.casefold() for text in (stay.name, stay.place or ""))


async def _search(
    poller: Poller, stream: str, wanted: str, ward: Ward | None
) -> tuple[int | None, list[Stay]]:
    """Searches all stays for the identifier `wanted`; a patient without an identifier has the
    number as identifier. Returns the number of the only match in the ICU, or else of the only match
    at all. If there is neither, returns None, the discharged stays with this identifier, and the
    latest discharged stays whose identifier or place contains it.
    """
    pat_id = patient_number(wanted)

    def search(database: Database) -> list[Stay]:
        found = database.named(stream, wanted)
        if pat_id is not None:
            stays = database.stays_of(stream, pat_id)
            found += [stay for stay in stays if stay.identifier is None]
        return found

    found = await poller.query(search)
    in_icu = {stay.key.pat_id for stay in found if stay.discharged is None}
    exact = in_icu if len(in_icu) == 1 else {stay.key.pat_id for stay in found}
    if len(exact) == 1:
        return exact.pop(), []
    latest = ward.discharged if ward else []
    similar = [stay for stay in latest if stay not in found and _matches(stay, wanted.casefold())]
    return None, [stay for stay in found if stay.discharged is not None] + similar
