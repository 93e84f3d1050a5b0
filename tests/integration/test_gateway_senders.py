"""Tests a real gateway with unmodified public clients; see also
tests/support/gateway_senders.mjs.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from fhirpy import AsyncFHIRClient

from tests.support.gateway import events, gateway, oru
from tests.support.hl7_corpus import obx


def test_mllp_send_gets_an_answer_with_its_control_id(tmp_path: Path) -> None:
    message = tmp_path / "one.hl7"
    message.write_bytes(oru(obx(), control="C17"))

    async def run() -> bytes:
        async with gateway(tmp_path / "log") as running:
            mllp_send = await asyncio.create_subprocess_exec(
                *(Path(sys.executable).parent / "mllp_send", "--loose", "--port"),
                *(str(running.mllp), "--file", message, "127.0.0.1"),
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await mllp_send.communicate()
            return output

    assert b"MSA|AA|C17" in asyncio.run(run())
    assert [event["type"] for event in events(tmp_path / "log")] == ["admission", "reading"]


def test_fhirpy_stores_a_bundle_once_and_corrects_an_observation(tmp_path: Path) -> None:
    def observation(value: float, status: str = "final") -> dict[str, Any]:
        return {
            "resourceType": "Observation",
            "id": "o1",
            "status": status,
            "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
            "subject": {"reference": "Patient/p1"},
            "effectiveDateTime": "2026-11-27T09:00:00Z",
            "valueQuantity": {"value": value, "unit": "/min"},
        }

    async def run() -> None:
        async with gateway(tmp_path / "log", ICU_UNITS="") as running:
            client = AsyncFHIRClient(f"{running.url}/fhir")
            entries = [
                {
                    "resource": {"resourceType": "Patient", "id": "p1", "birthDate": "1960-02-03"},
                    "request": {"method": "PUT", "url": "/Patient/p1"},
                },
                {
                    "resource": observation(80),
                    "request": {"method": "PUT", "url": "/Observation/o1"},
                },
            ]
            for _ in range(2):
                await client.resource("Bundle", type="transaction", entry=entries).save()
            await client.resource(**_named(observation(85, "corrected"))).save()

    asyncio.run(run())
    found = [(event["type"], event.get("value")) for event in events(tmp_path / "log")]
    assert found == [
        *(("admission", None), ("reading", 80), ("withdrawal", None), ("reading", 85)),
    ]


def _named(resource: dict[str, Any]) -> dict[str, Any]:
    return {"resource_type" if key == "resourceType" else key: v for key, v in resource.items()}
