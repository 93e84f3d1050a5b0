"""What the rest of the pipeline says about itself: the queues in Redis, and health by HTTP."""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import RedisError

# A job holds its messages' raw text; the newest is at the end.
_NEWEST_TIME = re.compile(rb'"day":"(\d{4}-\d\d-\d\d)","hour":(\d{1,2})[,}]')
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class QueueState:
    """Redis as seen at one moment. `error` when it did not answer; the rest is then empty."""

    error: str | None = None
    run_id: str | None = None
    stream: str | None = None
    taken: int | None = None
    ended: bool = False
    parts: dict[int, int] = field(default_factory=dict)
    newest: datetime | None = None
    jobs: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    buffer: str | None = None
    workers: frozenset[str] = frozenset()


class Queues:
    """Reads the keys that buffer, tool and RQ keep in Redis."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def read(self) -> QueueState:
        """Never raises for a Redis that is away."""
        try:
            return await self._read()
        except (RedisError, OSError, TimeoutError) as error:
            return QueueState(error=str(error) or type(error).__name__)

    async def _read(self) -> QueueState:
        pipe = self._redis.pipeline(transaction=False)
        pipe.info("server")
        pipe.get("icu:position")
        pipe.get("icu:buffer")
        pipe.smembers("rq:queues")
        pipe.smembers("rq:workers")
        info, position, buffer, queues, workers = await pipe.execute()
        known = _object(position or b"")
        stream, parts = known.get("stream"), known.get("parts", {})
        tools = sorted(name for name in queues if name.startswith(b"rq:queue:tool-"))
        pipe = self._redis.pipeline(transaction=False)
        pipe.hgetall(f"icu:latency:{stream}")
        pipe.getrange(_newest_batch(stream, parts), -_TAIL_BYTES, -1)
        for name in tools:
            pipe.llen(name)
        for name in workers:
            pipe.hmget(name, "birth", "death")
        latency, tail, *rest = await pipe.execute()
        lives = zip(workers, rest[len(tools) :], strict=True)
        return QueueState(
            run_id=str(info["run_id"]),
            stream=stream,
            taken=known.get("seq"),
            ended=bool(known.get("ended")),
            parts={int(part): int(seq) for part, seq in parts.items()},
            newest=_newest_time(tail),
            jobs=sum(rest[: len(tools)]),
            latency={int(bucket): int(n) for bucket, n in latency.items()},
            buffer=buffer.decode() if buffer else None,
            workers=frozenset(
                f"{name.decode()} {birth.decode()}"
                for name, (birth, death) in lives
                if birth and not death
            ),
        )


def _object(text: bytes) -> dict[str, Any]:
    """The JSON object that `text` is; an empty one where it is anything else."""
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _newest_batch(stream: str | None, parts: dict[str, int]) -> str:
    if not parts:
        return "icu:batch:none"
    part = max(parts, key=lambda name: parts[name])
    return f"icu:batch:{stream}-{part}-{parts[part]}"


def _newest_time(batch: bytes) -> datetime | None:
    """The time of the last reading in a batch's raw text; None when it says none that can be.

    >>> _newest_time(b'..."day":"2019-02-03","hour":7,...')
    datetime.datetime(2019, 2, 3, 7, 0)
    >>> _newest_time(b'..."day":"2019-02-30","hour":7,...')
    >>> _newest_time(b'..."day":"9999-12-31","hour":99,...')
    """
    found = _NEWEST_TIME.findall(batch)
    if not found:
        return None
    day, hour = found[-1]
    try:
        return datetime.fromisoformat(day.decode()) + timedelta(hours=int(hour))
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class Health:
    """What a service answered on /health. `error` when it is not well."""

    error: str | None
    said: dict[str, Any]


@dataclass(frozen=True)
class Explanation:
    """What each feature contributed to one prediction; `base` is what there is without any.

    `error` when nobody says; the rest is then empty.
    """

    base: float | None = None
    contributions: dict[str, float] = field(default_factory=dict)
    method: str = ""
    scale: str = ""
    error: str | None = None


class Services:
    """Asks the services that speak HTTP."""

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
        except ValueError:
            return Health("answers with something else than JSON", {})

    async def explain(
        self, model: str, version: str, features: dict[str, float | None]
    ) -> "Explanation":
        """What each feature contributed to a prediction; the reason when nobody says."""
        url = f"{self._model_url}/v2/models/{quote(model)}/versions/{quote(version)}/explain"
        inputs = [
            {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
            for name, value in features.items()
        ]
        try:
            async with self._session.post(url, json={"inputs": inputs}) as response:
                said = await response.json(content_type=None)
                if response.status != 200:
                    return Explanation(error=f"it answers {response.status}")
                return _explanation(said)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return Explanation(error="it does not answer")
        except (ValueError, KeyError, TypeError, IndexError):
            return Explanation(error="its answer is not understood")

    async def champion(self) -> str | None:
        """The name of the model whose predictions are the patient's; None when nobody says."""
        try:
            async with self._session.get(f"{self._model_url}/api/model") as response:
                said = await response.json(content_type=None)
                return str(said["champion"]["model"]) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError):
            return None


def _explanation(said: dict[str, Any]) -> Explanation:
    """From the answer's tensors, for one row: features, contributions and base."""
    data = {output["name"]: output["data"] for output in said["outputs"]}
    return Explanation(
        float(data["base"][0]),
        dict(zip(data["features"], map(float, data["contributions"]), strict=True)),
        str(said["parameters"]["method"]),
        str(said["parameters"]["scale"]),
    )
