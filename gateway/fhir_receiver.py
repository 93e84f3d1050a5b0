"""Receives FHIR R4 over HTTP: Bundles, single resources and the notifications of rest-hook
subscriptions.
"""

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import web

from gateway import metrics
from gateway.codes import Codes
from gateway.facts import Fact
from gateway.fhir_facts import FhirReader, Invalid, Keys, patient_keys
from gateway.fhir_types import TYPES, Bundle, Entry, Observation, Patient, Resource, kind_of
from gateway.inbox import DiskFailed, Inbox, Item, digest
from gateway.log import Received
from gateway.tokens import sender_of
from wire.bodies import read_body

JSON = "application/fhir+json"
# Maximum number of entries of a Bundle, because other senders wait while it is stored.
ENTRIES_MAX = 1_000

_resource: "msgspec.json.Decoder[Resource]" = msgspec.json.Decoder(Resource)
_bundle = msgspec.json.Decoder(Bundle)


class InvalidRequest(Exception):
    """The request cannot be stored. status: the HTTP status of the answer. code: the FHIR issue
    type."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


class FhirReceiver:
    """Stores the resources that it receives. Reading and searching are not supported."""

    def __init__(self, inbox: Inbox, codes: Codes, zone: ZoneInfo) -> None:
        self._inbox = inbox
        self._reader = FhirReader(codes, zone)

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/fhir/metadata", metadata)
        app.router.add_post("/fhir", self.bundle)
        app.router.add_post("/fhir/", self.bundle)
        app.router.add_post("/fhir/{type}", self.resource)
        app.router.add_put("/fhir/{type}/{id}", self.resource)
        app.router.add_route("*", "/fhir/{rest:.*}", unknown)

    async def bundle(self, request: web.Request) -> web.Response:
        """Stores a Bundle as a whole or not at all, even if it is a batch."""
        await self._inbox.room()
        body = await read_body(request)
        if not body.strip():  # a rest-hook notification without a payload
            return _outcome(200, "information", "informational", "nothing to store")
        try:
            bundle = _bundle_of(body)
            resources = [_used(entry, f"entry[{n}]") for n, entry in enumerate(bundle.entry)]
            await self._store(
                self._item(body, sender_of(request, "fhir"), self._all_facts(bundle, resources))
            )
        except InvalidRequest as error:
            return _failed(error)
        kind = "batch-response" if bundle.type == "batch" else "transaction-response"
        results = [{"response": _entry_response(resource)} for resource in resources]
        return _json(200, {"resourceType": "Bundle", "type": kind, "entry": results})

    async def resource(self, request: web.Request) -> web.Response:
        """Stores one resource. POST creates it, if necessary with an id (see `_with_id`); PUT
        creates or replaces it."""
        await self._inbox.room()
        kind, id = request.match_info["type"], request.match_info.get("id", "")
        body = await read_body(request)
        try:
            if kind not in TYPES:
                raise InvalidRequest(404, "not-supported", f"{kind} is not supported")
            resource, answer = _decode(body), _document(body)
            if type(resource).__name__ != kind:
                raise InvalidRequest(400, "invalid", f"resourceType is not {kind}")
            if id and resource.id != id:
                raise InvalidRequest(400, "invalid", f"{kind}.id differs from the id in the URL")
            resource = _with_id(resource, body)
            facts = self._facts(resource, self._reader, kind)
            known = await self._store(self._item(body, sender_of(request, "fhir"), facts))
        except InvalidRequest as error:
            return _failed(error)
        status = 200 if id and known else 201
        place = f"/fhir/{kind}/{quote(resource.id, errors='replace')}"
        return _json(status, answer | {"id": resource.id}, {"Location": place})

    def _all_facts(self, bundle: Bundle, resources: list[Resource | None]) -> list[Fact]:
        """The facts in the resources. resources: one per entry of the Bundle; None for an entry
        whose type is not used.
        """
        keys: dict[str, Keys] = {
            entry.full_url: patient_keys(found)
            for entry, found in zip(bundle.entry, resources, strict=True)
            if entry.full_url and isinstance(found, Patient)
        }
        reader = self._reader._replace(entries=keys)
        # Patients come first, because the other resources refer to them.
        used = [found for found in resources if found is not None]
        used.sort(key=lambda found: not isinstance(found, Patient))
        return [fact for found in used for fact in self._facts(found, reader, "Bundle")]

    def _facts(self, resource: Resource, reader: FhirReader, path: str) -> list[Fact]:
        try:
            return list(reader.facts(resource))
        except Invalid as error:
            raise InvalidRequest(422, "required", str(error)) from None
        except Exception as error:
            metrics.FAULTS.inc()
            raise InvalidRequest(422, "processing", f"{path}: {type(error).__name__}") from None

    def _item(self, body: bytes, sender: str, facts: list[Fact]) -> Item:
        received = Received(digest(b"fhir", body), time.time(), sender, "fhir", body)
        return Item(received, facts)

    async def _store(self, item: Item) -> bool:
        """Stores the item; returns whether the same bytes were stored before.

        Raises InvalidRequest if the disk fails.
        """
        try:
            return (await self._inbox.put(item)).known is not None
        except DiskFailed:
            raise InvalidRequest(
                503, "transient", "the resource could not be stored; send it again"
            ) from None


def _bundle_of(body: bytes) -> Bundle:
    try:
        bundle = _bundle.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(400, "structure", str(error)) from None
    if bundle.resource_type != "Bundle":
        raise InvalidRequest(400, "invalid", "resourceType is not Bundle")
    if bundle.type not in ("transaction", "batch", "message", "collection", "history"):
        text = f"Bundle.type {bundle.type[:20]!r} is not supported"
        raise InvalidRequest(422, "not-supported", text)
    if len(bundle.entry) > ENTRIES_MAX:
        text = f"the Bundle has more than {ENTRIES_MAX} entries"
        raise InvalidRequest(413, "too-costly", text)
    return bundle


def _used(entry: Entry, path: str) -> Resource | None:
    """The resource of an entry; None if it is of a type that is not used, such as Practitioner.

    Raises InvalidRequest for a deletion, and if there is no resource.
    """
    if entry.request is not None and entry.request.method in ("DELETE", "PATCH"):
        text = f"{path}: {entry.request.method} is not supported; use the status entered-in-error"
        raise InvalidRequest(422, "not-supported", text)
    raw = bytes(entry.resource)
    kind = kind_of(raw)
    if not kind:
        raise InvalidRequest(
            400, "structure", f"{path}: a resource with a resourceType is required"
        )
    return _with_id(_decode(raw, path), raw) if kind in TYPES else None


def _entry_response(resource: Resource | None) -> dict[str, Any]:
    if resource is None:
        return {"status": "200 OK", "outcome": _issue("information", "informational", "not used")}
    return {"status": "201 Created", "location": f"{type(resource).__name__}/{resource.id}"}


def _decode(body: bytes, path: str = "body") -> Resource:
    try:
        return _resource.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(400, "structure", f"{path}: {error}") from None


def _document(body: bytes) -> dict[str, Any]:
    """Parses the whole resource, because the typed decoder skips unknown fields without a check."""
    try:
        found: dict[str, Any] = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(400, "structure", f"body: {error}") from None
    return found


def _with_id(resource: Resource, body: bytes) -> Resource:
    """Gives a resource without an id its digest as the id, so that a repeat has the same id. A
    Patient, and an Observation with an identifier, need no id."""
    if resource.id:
        return resource
    if isinstance(resource, Observation) and any(i.value for i in resource.identifier):
        return resource
    if isinstance(resource, Patient):
        return resource
    return msgspec.structs.replace(resource, id=digest(body).hex()[:32])


def _failed(error: InvalidRequest) -> web.Response:
    metrics.NACKS.labels(str(error.status)).inc()
    return _outcome(error.status, "error", error.code, str(error))


def _outcome(status: int, severity: str, code: str, text: str) -> web.Response:
    return _json(status, _issue(severity, code, text))


def _issue(severity: str, code: str, text: str) -> dict[str, Any]:
    """An OperationOutcome."""
    issue = {"severity": severity, "code": code, "diagnostics": text}
    return {"resourceType": "OperationOutcome", "id": secrets.token_hex(8), "issue": [issue]}


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers=headers, content_type=JSON)


async def unknown(request: web.Request) -> web.Response:
    return _outcome(404, "error", "not-supported", "resources can only be stored, not read")


BUNDLES = [{"code": "transaction"}, {"code": "batch"}]


def _interactions() -> Iterator[dict[str, Any]]:
    for kind in TYPES:
        codes = [{"code": "create"}, {"code": "update"}]
        yield {"type": kind, "interaction": codes, "updateCreate": True}


async def metadata(request: web.Request) -> web.Response:
    """The CapabilityStatement."""
    return _json(
        200,
        {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": "2026-11-27",
            "kind": "instance",
            "software": {"name": "ICU Stream gateway"},
            "implementation": {"description": "Accepts observations, encounters and patients"},
            "fhirVersion": "4.0.1",
            "format": ["json"],
            "rest": [{"mode": "server", "resource": list(_interactions()), "interaction": BUNDLES}],
        },
    )
