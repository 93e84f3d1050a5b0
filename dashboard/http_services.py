"""Queries hospital and the model API over HTTP."""

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp

from dashboard.model_info import ModelInfo
from dashboard.rows import ModelKey
from wire.settings import SecretFile, bearer

# The status that hospital answers while it reads its files.
PREPARING = "preparing"
ERRORS = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True)
class Health:
    """The answer of a service to GET /health. error: the reason if the service is not healthy."""

    error: str | None
    answer: dict[str, Any]


@dataclass(frozen=True)
class Models:
    """The models in use. error: the reason why the model API did not return them."""

    champion: ModelKey | None = None
    shadows: tuple[ModelKey, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Explanation:
    """The contribution of each feature to one prediction. base: the value without the
    contributions. If `error` is set, there is no answer and all other members are empty.
    """

    base: float | None = None
    contributions: dict[str, float] = field(default_factory=dict)
    method: str = ""
    scale: str = ""
    error: str | None = None


class Services:
    """Queries the HTTP services; never raises when one is down."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        hospital_url: str,
        model_url: str,
        model_token: SecretFile,
    ) -> None:
        self._session = session
        self._hospital_url = hospital_url
        self._model_url = model_url
        self._model_token = model_token

    async def hospital(self) -> Health:
        return await self._health(self._hospital_url)

    async def model_api(self) -> Health:
        return await self._health(self._model_url)

    async def _health(self, url: str) -> Health:
        try:
            async with self._session.get(f"{url}/health") as response:
                answer = _object(await response.read())
                if response.status == 200:
                    return Health(None, answer)
                preparing = answer.get("status") == PREPARING
                return Health(PREPARING if preparing else _refusal(response.status), answer)
        except TimeoutError:
            return Health("does not answer in time", {})
        except (aiohttp.ClientError, OSError):
            return Health("does not answer", {})

    async def models(self) -> Models:
        """Requests the champion and the shadows; returns them, or the error."""
        try:
            async with self._session.get(
                f"{self._model_url}/api/model", headers=bearer(self._model_token)
            ) as response:
                answer = await response.json(content_type=None)
                if response.status != 200:
                    return Models(error=_refusal(response.status))
                champion, *shadows = (
                    ModelKey(str(each["model"]), str(each["version"]))
                    for each in (answer["champion"], *answer["shadows"])
                )
                return Models(champion, tuple(shadows))
        except (*ERRORS, ValueError, KeyError, TypeError):
            return Models(error="does not answer")

    async def describe(self, model: ModelKey) -> ModelInfo | None:
        """The description of a model; None if the model API does not return it."""
        try:
            async with self._session.get(
                self._address(model), headers=bearer(self._model_token)
            ) as response:
                answer = await response.json(content_type=None)
                return ModelInfo.from_metadata(model, answer) if response.status == 200 else None
        except (*ERRORS, ValueError, KeyError, TypeError, AttributeError):
            return None

    async def explain(self, model: ModelKey, features: dict[str, float | None]) -> Explanation:
        """Requests the contributions of the features to a prediction; returns them or the error."""
        inputs = [
            {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
            for name, value in features.items()
        ]
        try:
            async with self._session.post(
                f"{self._address(model)}/explain",
                json={"inputs": inputs},
                headers=bearer(self._model_token),
                timeout=aiohttp.ClientTimeout(total=10),
            ) as response:
                answer = await response.json(content_type=None)
                if response.status != 200:
                    return Explanation(error=f"the model API {_refusal(response.status)}")
                return _explanation(answer)
        except ERRORS:
            return Explanation(error="the model API does not answer")
        except (ValueError, KeyError, TypeError, IndexError):
            return Explanation(error="the model API's answer is invalid")

    def _address(self, model: ModelKey) -> str:
        name, version = (quote(part, safe="") for part in model)
        return f"{self._model_url}/v2/models/{name}/versions/{version}"


def _refusal(status: int) -> str:
    return (
        "refuses the dashboard's token" if status in (401, 403) else f"reports a fault ({status})"
    )


def _object(text: bytes) -> dict[str, Any]:
    """The JSON object in `text`; an empty object if there is none."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _explanation(answer: dict[str, Any]) -> Explanation:
    """Reads the explanation of one row from the tensors of the answer."""
    data = {output["name"]: output["data"] for output in answer["outputs"]}
    return Explanation(
        float(data["base"][0]),
        dict(zip(data["features"], map(float, data["contributions"]), strict=True)),
        str(answer["parameters"]["method"]),
        str(answer["parameters"]["scale"]),
    )
