"""A proxy in front of the model API that can give wrong answers.

`python -m chaos.model_proxy` reads PROXY_UPSTREAM, PROXY_PORT and PROXY_FAULT. The latter names a
file with one of FAULTS; while the file is missing or empty, requests are forwarded unchanged.
"""

import os
import struct
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import nan
from pathlib import Path

FAULTS = ("slow", "500", "413", "garbage", "nan", "half")
LENGTH = "Inference-Header-Content-Length"
FORWARDED = ("Content-Type", "If-None-Match", "Authorization", LENGTH)


class Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], upstream: str, fault: Path) -> None:
        super().__init__(address, Handler)
        self.upstream = upstream
        self.fault = fault

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores connection errors, because some faults disconnect clients."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault.read_text().strip() if self.server.fault.exists() else ""
        if fault == "slow":
            time.sleep(5)
        if fault.isdecimal():
            self._send(int(fault), {}, b'{"title": "on purpose"}')
            return
        status, headers, answer = self._forward(body)
        if fault == "garbage":
            answer = os.urandom(200)
        elif fault == "nan" and self.command == "POST":
            answer = answer[:-8] + struct.pack("<d", nan)
        self._send(status, headers, answer, half=fault == "half")

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name: self.headers[name] for name in FORWARDED if name in self.headers}
        request = urllib.request.Request(  # noqa: S310
            self.server.upstream + self.path, body or None, headers, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, _passed_on(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _passed_on(error.headers), error.read()
        except OSError:
            return 502, {}, b""

    def _send(self, status: int, headers: dict[str, str], body: bytes, half: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if half else body)
        self.close_connection = half

    def log_message(self, format: str, *args: object) -> None:
        """Logs no requests."""


def _passed_on(headers: object) -> dict[str, str]:
    get = getattr(headers, "get")  # noqa: B009
    return {name: get(name) for name in ("Content-Type", "ETag", LENGTH) if get(name)}


if __name__ == "__main__":
    Proxy(
        ("0.0.0.0", int(os.environ["PROXY_PORT"])),  # noqa: S104
        os.environ["PROXY_UPSTREAM"],
        Path(os.environ["PROXY_FAULT"]),
    ).serve_forever()
