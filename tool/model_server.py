"""Persistent connections to the model API."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import urllib3

from tool import metrics
from tool.inference import Body
from wire.settings import bearer

# A server without the Open Inference Protocol answers with one of these statuses. The client then
# sends JSON objects.
NO_BINARY = (404, 405, 415, 501)
# The statuses of a request with invalid rows. A 404 can be temporary, for example while models/ is
# being copied.
INVALID = (400, 422)

T = TypeVar("T")
Headers = Mapping[str, str]


class ModelUnavailable(Exception):
    """The model API gave no valid answer; a later request may succeed."""


class InvalidRows(Exception):
    """The model API rejected these rows."""


class NoAnswer(ModelUnavailable):
    """The server did not answer in time, the connection broke, or the token cannot be read."""


class Unsupported(ModelUnavailable):
    """The server does not know this path or format."""


class TooLarge(Exception):
    """The request has too many rows."""


class ModelServer:
    """The server at `url`. timeout: seconds to wait for an answer. token_file: a file with a token,
    which is read for each request; empty if the server needs none."""

    def __init__(self, url: str, timeout: float, token_file: str) -> None:
        self.url = url
        self._timeout = urllib3.Timeout(connect=min(timeout, 1.0), read=timeout)
        # A pool of one host, because PoolManager parses the URL of each request.
        self._pool = urllib3.connection_from_url(url, retries=False)
        self._prefix = (urllib3.util.parse_url(url).path or "").rstrip("/")
        self._token_file = token_file

    def exchange(
        self, path: str, request: Body, longest: int, read: Callable[[bytes, Headers], T]
    ) -> T:
        """Sends a request of up to `longest` rows per model, and reads the answer. Raises
        Unsupported, TooLarge, InvalidRows or ModelUnavailable."""
        with metrics.MODEL_SECONDS.time():
            response = self.ask("POST", path, *request)
        if response.status == 413 and longest > 1:
            raise TooLarge
        if response.status in INVALID:
            raise InvalidRows(response.data.decode("utf-8", "replace")[:200])
        if response.status != 200:
            text = f"{self.url} answered {response.status}"
            raise (Unsupported if response.status in NO_BINARY else ModelUnavailable)(text)
        try:
            return read(response.data, response.headers)
        except (ValueError, RecursionError) as error:
            raise ModelUnavailable(f"{self.url} sent invalid predictions: {error}") from None

    def ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> urllib3.BaseHTTPResponse:
        """Sends a request. Raises NoAnswer."""
        try:
            return self._pool.urlopen(
                method,
                self._prefix + path,
                body=body or None,
                headers=headers | bearer(self._token_file),
                timeout=self._timeout,
            )
        # A token that cannot be sent is not the fault of the rows, which must be stored.
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise NoAnswer(f"{self.url}: {error}") from None
