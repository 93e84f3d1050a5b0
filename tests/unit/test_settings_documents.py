"""Checks that the settings in the documents, in compose and in the programs are the same."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

import buffer.settings
import dashboard.settings
import gateway.settings
import hospital.settings
import login.settings
import modelapi.settings
import tool.settings
from embedded.programs import ROOT
from wire.settings import SettingError, describe, read, variable

COMPOSE = (ROOT / "docker-compose.yml").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
PROGRAMS = {
    "hospital": hospital.settings.Settings,
    "buffer": buffer.settings.Settings,
    "tool": tool.settings.Settings,
    "modelapi": modelapi.settings.Settings,
    "dashboard": dashboard.settings.Settings,
    "gateway": gateway.settings.Settings,
    "login": login.settings.Settings,
}
NAME = r"[A-Z][A-Z0-9_]+"


def in_tables(document: str) -> set[str]:
    """The names of settings in the first columns of a document's tables."""
    cells = re.findall(r"^\| ([^|]*) \|", (ROOT / document).read_text(), re.MULTILINE)
    return {name for cell in cells for name in re.findall(rf"`({NAME})`", cell)}


DOCUMENTED = in_tables("docs/settings.md")
# Compose reads a setting from the environment at each `${NAME…}`, and for each variable of a
# service that has no value.
FROM_OUTSIDE = set(re.findall(rf"(?<!\$)\$\{{({NAME})", COMPOSE)) | {
    name
    for service in SERVICES.values()
    for name, value in service.get("environment", {}).items()
    if value is None
}
# These are only for `make run`, because a container has fixed ports and a database of its own.
WITHOUT_DOCKER = {
    *("DATABASE_URL", "DATABASE_PASSWORD_FILE", "FRONT_PORT", "HOSPITAL_PORT", "MODELAPI_PORT"),
    *("DASHBOARD_PORT", "BUFFER_METRICS_PORT", "TOOL_METRICS_PORT", "MODEL_URL"),
    "GATEWAY_PORT",
}
# These are only for several replicas of the model API; compose has one.
KUBERNETES_ONLY = {"MODEL_STATE_URL"}
# Compose does not pass these to the program. PATIENT_DATA is a mount, MLLP_PORT is a published
# port, and nginx checks ALLOWED_HOSTS. Only Prometheus sends requests to buffer and tool.
NOT_GIVEN = {
    "hospital": {"PATIENT_DATA", "ALLOWED_HOSTS"},
    "dashboard": {"ALLOWED_HOSTS"},
    "buffer": {"ALLOWED_HOSTS"},
    "tool": {"ALLOWED_HOSTS", "RETENTION_DAYS"},  # the service `migrate` gets RETENTION_DAYS
    "gateway": {"MLLP_PORT"},
}
# These are parameters of make's targets.
OF_TARGETS = set(re.findall(NAME, MAKEFILE))


def of_program(program: str) -> set[str]:
    return set(re.findall(rf"^  ({NAME})", describe(PROGRAMS[program]), re.MULTILINE))


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_number_among_the_settings_has_limits(program: str) -> None:
    kind = PROGRAMS[program]
    for field in msgspec.structs.fields(kind):
        if isinstance(field.default, int | float):
            for number in ("-1", "1" + "0" * 15):
                with pytest.raises(SettingError, match=rf"^{variable(field)}={number}: expected "):
                    read(kind, {variable(field): number})


def test_each_setting_of_compose_is_documented() -> None:
    assert set() == FROM_OUTSIDE - DOCUMENTED


def test_each_documented_setting_is_forwarded_by_compose() -> None:
    assert set() == DOCUMENTED - WITHOUT_DOCKER - FROM_OUTSIDE - KUBERNETES_ONLY


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_gets_each_documented_setting_that_it_has(program: str) -> None:
    given = set(SERVICES[program].get("environment", {}))
    missing = (of_program(program) & DOCUMENTED) - given - WITHOUT_DOCKER - KUBERNETES_ONLY
    assert missing - NOT_GIVEN.get(program, set()) == set()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_knows_each_setting_that_compose_passes_to_it(program: str) -> None:
    assert set(SERVICES[program].get("environment", {})) - of_program(program) == set()


def test_each_documented_setting_is_read_by_a_program() -> None:
    scripts = [COMPOSE, (ROOT / "nginx/start.sh").read_text()]
    scripts += [path.read_text() for path in Path(ROOT / "embedded").glob("*.py")]
    read = set.union(*map(of_program, PROGRAMS), *(set(re.findall(NAME, s)) for s in scripts))
    assert DOCUMENTED - read == set()


def test_each_setting_in_a_document_exists() -> None:
    known = set.union(*map(of_program, PROGRAMS)) | FROM_OUTSIDE | DOCUMENTED
    operating = ("operations", "kubernetes", "alerts", "gateway", "settings", "troubleshooting")
    documents = [ROOT / "docs" / f"{name}.md" for name in operating]
    for path in (ROOT / "SECURITY.md", ROOT / "README.md", *documents):
        assigned = set(re.findall(rf"\b({NAME})=", path.read_text()))
        assert assigned - known - OF_TARGETS == set(), path
