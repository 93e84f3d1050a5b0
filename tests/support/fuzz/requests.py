"""Makes damaged requests, and limits the cost of one request."""

import gzip
import random
import resource
import time
import zlib
from collections.abc import Callable

from tests.support.fuzz.damage import damaged

MEGABYTES = 200
CPU_SECONDS = 2.0
# The dashboard answers 502 to the acknowledgement of an alarm, because no gateway runs here.
EXPECTED = {200, 201, 204, 206, 207, 302, 303, 304, 308, *range(400, 432), 502, 503}
HEADERS = (
    *("Content-Type: application/json", "Content-Type: text/plain", "Content-Encoding: gzip"),
    *("Content-Encoding: deflate", "Origin: http://example.org", "Sec-Fetch-Site: cross-site"),
    *("Host: example.org", "X-Forwarded-Host: a\u00fc", "Cookie: icu-session=x; a=\u00e9"),
    *("Inference-Header-Content-Length: 7", "Authorization: Bearer a.b.c", "Accept: text/html"),
    *("X-User: <b>", "X-Original-URI: //patients/%zz?", "X-Forwarded-For: 1, 2", "Expect: x"),
    *("Last-Event-ID: 9-9", "If-Modified-Since: never", "Range: bytes=9-", "Transfer-Encoding: x"),
    *("Idempotency-Key: \u00e9", "Content-Type: multipart/form-data; boundary=a", "Referer: x"),
)
# aiohttp answers 500 if Expect is not UTF-8.
NAMES = sorted({header.partition(":")[0] for header in HEADERS} - {"Expect"} | {"User-Agent"})
DEEP = (b"[" * 100_000, b'{"a":' * 10_000, b"[{}" + b",{}" * 100_000 + b"]")
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
BOMBS = {name: pack(b" " * 9_000_000) for name, pack in PACK.items()}


class Cost:
    """Fails if a request takes more than CPU_SECONDS, or if the process has grown by more than
    MEGABYTES since this object was created.
    """

    def __init__(self) -> None:
        self._memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def __enter__(self) -> None:
        self._begun = time.process_time()

    def __exit__(self, *_: object) -> None:
        assert time.process_time() - self._begun < CPU_SECONDS
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._memory) // 1024
        assert grown < MEGABYTES, f"{grown} MB"


def damaged_body(rng: random.Random, text: bytes) -> tuple[bytes, dict[str, str]]:
    """Damages, replaces or compresses a body at random; returns the body and its headers."""
    headers = {"Content-Type": "application/json"}
    if rng.random() < 0.8:
        text = damaged(rng, text, 2)
    chance = rng.random()
    if chance < 0.01:
        text = rng.choice(DEEP)
    if chance > 0.85:
        encoding = rng.choice(sorted(PACK))
        headers["Content-Encoding"] = encoding
        text = BOMBS[encoding] if chance > 0.99 else PACK[encoding](text)
        if rng.random() < 0.3:
            text = damaged(rng, text, 1)
    return text, headers
