"""Asks hospital and the model API, which speak HTTP."""

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp

from dashboard.model_info import ModelInfo
from dashboard.rows import ModelKey

ERRORS = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True)
class Health:
    """The answer of a service to GET /health. `error` when it is not well."""

    error: str | None
    said: dict[str, Any]


@dataclass(frozen=True)
class Models:
    """The models in use. `error` when the model API did not say."""

    champion: ModelKey | None = None
    shadows: tuple[ModelKey, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Explanation:
    """What each feature contributed to one prediction; `base` is the value without any.

    `error` when there is no answer; the rest is then empty.
    """

    base: float | None = None
    contributions: dict[str, float] = field(default_factory=dict)
    method: str = ""
    scale: str = ""
    error: str | None = None


class Services:
    """Asks the services that speak HTTP; never raises for one that is down."""

    def __init__(self, session: aiohttp.ClientSession, hospital_url: str, model_url: str) -> None:
        self._session = session
        self._hospital_url = hospital_url
        self._model_url = model_url

    async def hospital(self) -> Health:
        return await self._health(self._hospital_url)

    async def model_api(self) -> Health:
        return await self._health(self._model_url)

    async def _health(self, url: str) -> Health:
        try:
            async with self._session.get(f"{url}/health") as response:
                said = _object(await response.read())
                if response.status == 200:
                    return Health(None, said)
                return Health(str(said.get("status", f"answers {response.status}")), said)
        except TimeoutError:
            return Health("does not answer in time", {})
        except (aiohttp.ClientError, OSError):
            return Health("does not answer", {})

    async def models(self) -> Models:
        """Champion and shadows."""
        try:
            async with self._session.get(f"{self._model_url}/api/model") as response:
                said = await response.json(content_type=None)
                if response.status != 200:
                    return Models(error=f"answers {response.status}")
                champion, *shadows = (
                    ModelKey(str(each["model"]), str(each["version"]))
                    for each in (said["champion"], *said["shadows"])
                )
                return Models(champion, tuple(shadows))
        except (*ERRORS, ValueError, KeyError, TypeError):
            return Models(error="does not answer")

    async def describe(self, model: ModelKey) -> ModelInfo | None:
        """What a model says about itself; None when the model API does not say."""
        try:
            async with self._session.get(self._address(model)) as response:
                said = await response.json(content_type=None)
                return ModelInfo.from_metadata(model, said) if response.status == 200 else None
        except (*ERRORS, ValueError, KeyError, TypeError, AttributeError):
            return None

    async def explain(self, model: ModelKey, features: dict[str, float | None]) -> Explanation:
        """What each feature contributed to a prediction, or the reason why that is not known."""
        inputs = [
            {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
            for name, value in features.items()
        ]
        try:
            async with self._session.post(
                f"{self._address(model)}/explain",
                json={"inputs": inputs},
                timeout=aiohttp.ClientTimeout(total=10),
            ) as response:
                said = await response.json(content_type=None)
                if response.status != 200:
                    return Explanation(error=f"the model API answers {response.status}")
                return _explanation(said)
        except ERRORS:
            return Explanation(error="the model API does not answer")
        except (ValueError, KeyError, TypeError, IndexError):
            return Explanation(error="the model API's answer is not understood")

    def _address(self, model: ModelKey) -> str:
        name, version = map(quote, model)
        return f"{self._model_url}/v2/models/{name}/versions/{version}"


def _object(text: bytes) -> dict[str, Any]:
    """The JSON object in `text`; an empty one for anything else."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _explanation(said: dict[str, Any]) -> Explanation:
    """From the answer's tensors for one row: features, contributions and base."""
    data = {output["name"]: output["data"] for output in said["outputs"]}
    return Explanation(
        float(data["base"][0]),
        dict(zip(data["features"], map(float, data["contributions"]), strict=True)),
        str(said["parameters"]["method"]),
        str(said["parameters"]["scale"]),
    )
