"""GET /metrics: any worker can answer, and it returns the sums over all workers."""

import os
from collections.abc import Iterator
from functools import lru_cache
from time import perf_counter

from flask import Blueprint, Flask, Response, current_app, g, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from modelapi.api_errors import ApiError
from modelapi.metrics import REQUEST_SECONDS, REQUESTS
from modelapi.registry import Registry

blueprint = Blueprint("metrics", __name__)


class Champion(Collector):
    """A metric whose labels name the champion; empty if there is no champion."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "icu_modelapi_champion_info",
            "The champion, named by the labels",
            labels=["model", "version"],
        )
        try:
            ref = self._registry.serving.champion.ref
            family.add_metric([ref.model, ref.version], 1)
        except ApiError:
            pass
        yield family


@blueprint.get("/metrics")
def metrics() -> Response:
    """All metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:  # a single process, for example `flask run` or a test
        registry.register(REGISTRY)
    registry.register(Champion(current_app.extensions["registry"]))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


@lru_cache(maxsize=256)
def _requests(endpoint: str, status: int) -> Counter:
    return REQUESTS.labels(endpoint, status)


def count(endpoint: str, response: Response, begun: float) -> None:
    """Counts an answered request. begun: when it began, by `perf_counter`."""
    _requests(endpoint, response.status_code).inc()
    REQUEST_SECONDS.observe(perf_counter() - begun)


def register(app: Flask) -> None:
    """Makes the application count all requests except those for /metrics, and serve the counts."""

    @app.before_request
    def begin() -> None:
        g.begun = perf_counter()

    @app.after_request
    def after(response: Response) -> Response:
        if request.endpoint != "metrics.metrics":
            count(request.endpoint or "none", response, g.begun)
        return response

    app.register_blueprint(blueprint)
