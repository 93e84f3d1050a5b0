"""Tests the dashboard as a client of a model API that requires tokens."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from dashboard.http_services import Explanation, Models, Services
from dashboard.model_info import ModelInfo
from dashboard.rows import ModelKey
from modelapi.server import create_app
from modelapi.settings import Settings
from tests.support.modelapi_server import ROW, copy_models, in_thread
from wire.settings import SecretFile
from wire.tokens import make_token

SECRET = "a secret of at least thirty-two bytes"  # noqa: S105
FORMULA = ModelKey("formula", "1")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("modelapi")
    (folder / "key").write_text(SECRET)
    models = copy_models(folder / "models", "formula")
    app = create_app(Settings(models, folder / "s.sqlite", token_key_file=folder / "key"))
    with in_thread(app) as url:
        yield url


Answers = tuple[Models, ModelInfo | None, Explanation]


def ask(url: str, token: SecretFile) -> Answers:
    async def answers() -> Answers:
        async with aiohttp.ClientSession() as session:
            services = Services(session, url, url, token)
            return (
                await services.models(),
                await services.describe(FORMULA),
                await services.explain(FORMULA, dict(ROW)),
            )

    return asyncio.run(answers())


def test_the_dashboard_sends_its_token(url: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("expired\n")
    models, info, explanation = ask(url, SecretFile(str(path)))
    assert (models.champion, info, explanation.base) == (None, None, None)
    # A new token in the same file is used without a restart.
    path.write_text(make_token(SECRET.encode(), "HS256", "dashboard", 60))
    models, info, explanation = ask(url, SecretFile(str(path)))
    assert models == Models(FORMULA)
    assert info is not None
    assert explanation.base == -5.0


def test_without_a_token_the_dashboard_reports_the_error(url: str) -> None:
    models, info, explanation = ask(url, SecretFile())
    assert (models.champion, info, explanation.base) == (None, None, None)
    assert models.error
    assert explanation.error


def test_a_missing_token_file_leaves_the_model_unknown(url: str, tmp_path: Path) -> None:
    models, info, explanation = ask(url, SecretFile(str(tmp_path / "gone")))
    assert (models.champion, info, explanation.base) == (None, None, None)
