"""Tests that the description of the API is valid, matches the API, and can be read offline."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from modelapi.server import create_app
from modelapi.settings import Settings
from tests.support.modelapi_server import MODELS, copy_models, in_thread


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = copy_models(tmp_path_factory.mktemp("models"), "formula", "qsofa")
    app = create_app(Settings(models, models / "state.sqlite"))
    with in_thread(app) as url:
        yield url


# JSON Schema counts 2.0 as an integer; the API rejects such a shape.
CONFIGURATION = """
[[operations]]
include-name = "POST /v2/infer"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400]
"""


@pytest.mark.timeout(300)
def test_the_api_matches_its_description(url: str, tmp_path: Path) -> None:
    """schemathesis must find no answer that violates the description."""
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
    limits = ["--max-examples", "3", "--generation-database", "none", "--seed", "1"]
    done = subprocess.run(
        [*command, *limits], cwd=tmp_path, capture_output=True, text=True, timeout=290
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("served", [True, False])
def test_the_description_is_valid_with_and_without_a_champion(tmp_path: Path, served: bool) -> None:
    models = MODELS if served else tmp_path
    client = create_app(Settings(models, tmp_path / "s.sqlite")).test_client()
    document = client.get("/openapi.json").json
    assert document is not None
    validate(document)
    row = document["components"]["schemas"]["Row"]
    assert ("properties" in row) == served
    assert client.get("/docs").status_code == 200


def test_every_route_is_described(tmp_path: Path) -> None:
    models = copy_models(tmp_path, "formula")
    app = create_app(Settings(models, tmp_path / "s.sqlite"))
    document = app.test_client().get("/openapi.json").json
    assert document is not None
    # Inference is described for each model, with the model's features.
    routes = {
        (str(rule).replace("<name>", "formula").replace("<version>", "1"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    } - {("/metrics", "get")}  # only for Prometheus, within the network of the services
    described = {
        (path.format(model="formula", version="1"), method)
        for path, item in document["paths"].items()
        for method in item.keys() - {"parameters"}
    }
    assert described == routes


def test_the_documentation_page_is_self_contained(tmp_path: Path) -> None:
    models = copy_models(tmp_path, "formula")
    client = create_app(Settings(models, tmp_path / "s.sqlite")).test_client()
    page = client.get("/docs").text
    assert "src=" not in page
    assert 'rel="stylesheet"' not in page
    for words in ("POST /api/model", "last_blood_pressure", "ExpiredSignatureError", "curl"):
        assert words in page
