"""Fuzzes requests to the model API, through WSGI and without sockets."""

import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from modelapi.server import create_app
from modelapi.settings import Settings
from tests.support.fuzz.damage import damaged
from tests.support.fuzz.requests import EXPECTED, HEADERS, Cost, damaged_body
from tests.support.modelapi_server import ROW, add_linear, copy_models
from wire.settings import read

_tensor = {"name": "age", "shape": [1], "datatype": "FP64", "data": [50.0]}
MODEL_BODIES: dict[str, Any] = {
    "/api/model": ROW,
    "/api/model?model=plain": [{"age": 50}, {"age": 61.5}],
    "/v2/models/plain/infer": {
        "id": "1",
        "inputs": [_tensor],
        "outputs": [{"name": "probability"}],
    },
    "/v2/models/plain/versions/1/explain": {"inputs": [_tensor]},
    "/v2/repository/index": {"ready": True},
    "/v2/repository/models/plain/load": {"parameters": {}},
    "/v2/repository/models/plain/unload": {},
    "/api/model?model=qsofa&version=1": [],
    "/v2/models/formula/ready": {},
    "/docs": {},
    "/metrics": {},
}

# Requests that change the models are rare, because each change is written to the disk.
WEIGHTS = [1 if "repository/models" in path else 20 for path in MODEL_BODIES]


def model_api(rng: random.Random, inputs: int) -> Counter[str]:
    """Checks that each answer is a result or a problem document."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        models = copy_models(Path(name), "formula", "qsofa")
        add_linear(models, "plain", "1", -1.0)
        paths = {"MODELS": str(models), "MODEL_STATE": str(Path(name, "state.sqlite"))}
        settings = read(Settings, paths)
        client = create_app(settings).test_client()
        cost = Cost()
        for _ in range(inputs):
            path, document = rng.choices(list(MODEL_BODIES.items()), WEIGHTS)[0]
            body, headers = damaged_body(rng, json.dumps(document).encode())
            if rng.random() < 0.1:
                path = damaged(rng, path.encode(), 1).decode("latin-1")
            if rng.random() < 0.3:
                key, _, value = rng.choice(HEADERS).encode().decode("latin-1").partition(": ")
                headers[key] = value
            other = not document or rng.random() < 0.05
            with cost:
                answer = client.open(
                    path,
                    method=rng.choice(("GET", "PUT")) if other else "POST",
                    data=body,
                    headers=headers,
                )
            assert answer.status_code in EXPECTED, (path, headers, body, answer.text)
            if answer.status_code >= 400 and answer.status_code != 503:
                assert answer.content_type == "application/problem+json", (path, answer.text)
            counts[str(answer.status_code)] += 1
    return counts
