"""A receiver of the webhook for tests: an HTTP server that keeps all requests."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self


class Request(NamedTuple):
    """A request, and the status of its response."""

    key: str
    authorization: str | None
    alarm: dict[str, Any]
    status: int


class Receiver:
    """The server. answer: returns the status for the n-th request; 0 closes the connection without
    an answer.
    """

    def __init__(self, answer: Callable[[int], int] = lambda _: 204) -> None:
        self.requests: list[Request] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = answer(len(receiver.requests))
                key = self.headers["Idempotency-Key"]
                authorization = self.headers["Authorization"]
                receiver.requests.append(Request(key, authorization, json.loads(body), status))
                if status:
                    self.send_response(status)
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alarms"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """The accepted alarms, without repeats, in the order in which they were first accepted."""
        found: dict[str, dict[str, Any]] = {}
        for request in self.requests:
            if 200 <= request.status < 300:
                found.setdefault(request.key, request.alarm)
        return list(found.values())
