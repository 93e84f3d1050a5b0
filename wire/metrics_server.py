"""Serves a program's metrics on a separate port."""

from collections.abc import Collection
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app, start_http_server

from wire.hosts import only_wsgi


def serve(
    host: str, port: int, names: Collection[str], registry: CollectorRegistry = REGISTRY
) -> tuple[WSGIServer, Thread]:
    """Starts a server that is reachable as localhost, by IP address and by the host names `names`.

    Returns the server and its thread. Raises OSError if it cannot listen on the port.
    """
    server, thread = start_http_server(port, host, registry)
    server.set_app(only_wsgi(make_wsgi_app(registry), {"localhost", *names}))
    return server, thread
