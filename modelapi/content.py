"""Request and response bodies: media types, compression within limits, and JSON."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from modelapi.api_errors import BadInput, TooLarge, WrongMediaType
from modelapi.browsers import from_browser

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

# Level 1, because on localhost and in a data centre time costs more than bytes.
_LEVEL = 1
_WORTH_IT = 4096
_WINDOW = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class Decoder(Protocol):
    """A msgspec decoder."""

    def decode(self, content: bytes, /) -> Any: ...


def request_body(*media_types: str) -> bytes:
    """The unpacked body. Programs may omit Content-Type, browsers may not. Raises WrongMediaType,
    BadInput for a damaged body, RequestEntityTooLarge if the body as sent is too large, and
    TooLarge if the unpacked body is.
    """
    # The header is first compared unparsed, because parsing it takes longer than everything else.
    environ = request.environ
    if environ.get("CONTENT_TYPE") not in media_types and not _accepted(media_types):
        raise WrongMediaType(
            f"Content-Type must be {' or '.join(media_types)}, not {request.mimetype or 'missing'}."
        )
    body = _sent()
    encoding = environ.get("HTTP_CONTENT_ENCODING", "identity").lower()
    if encoding == "identity":
        return body
    if encoding not in _WINDOW:
        raise WrongMediaType(f"Content-Encoding must be gzip or deflate, not {encoding}.")
    return _unpacked(body, encoding, request.max_content_length or 0)


def _sent() -> bytes:
    """The body as it was sent. Raises RequestEntityTooLarge."""
    # Read in one piece: werkzeug's stream copies a body several times, and cuts off a longer body
    # that has no Content-Length.
    length, most = request.content_length, request.max_content_length or 0
    if length is None:
        length = most + 1 if "wsgi.input_terminated" in request.environ else 0
    elif length > most:
        raise RequestEntityTooLarge
    body: bytes = request.environ["wsgi.input"].read(length)
    if len(body) > most:
        raise RequestEntityTooLarge
    return body


def _accepted(media_types: tuple[str, ...]) -> bool:
    if request.mimetype == "":
        return not from_browser(request.environ)
    return request.mimetype in media_types


def _unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    unpacker = zlib.decompressobj(_WINDOW[encoding])
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadInput(f"The body is not {encoding}: {error}.") from None
    if len(unpacked) > limit:
        raise TooLarge(f"The body unpacks to more than {limit} bytes; send fewer rows per request.")
    if not unpacker.eof:
        raise BadInput(f"The body is not {encoding}: it ends too early.")
    if unpacker.unused_data:
        raise BadInput(f"The body is not {encoding}: there are data after its end.")
    return unpacked


def as_utf8(text: bytes) -> bytes:
    """Converts a JSON text to UTF-8; the text may be in UTF-16 or UTF-32, or begin with a byte
    order mark. Raises BadInput.

    >>> as_utf8('{"age": 63}'.encode("utf-16"))
    b'{"age": 63}'
    """
    encoding = json.detect_encoding(text)
    if encoding == "utf-8":
        return text
    try:
        return text.decode(encoding).encode()
    except UnicodeError:
        raise BadInput(f"The body is not JSON: it is not {encoding}.") from None


def decode(text: bytes, decoder: Decoder) -> Any:
    """The value of a JSON text in UTF-8.

    Raises BadInput for a text that is not JSON, and msgspec.ValidationError for a value of another
    type than the decoder's.
    """
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except RecursionError:
        raise BadInput("The body is not JSON: it is nested too deep.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"The body is not JSON: {error}") from None


def accepts_no_compression(environ: WSGIEnvironment) -> bool:
    """Whether the client accepts no compression, like most programs. Does not parse the header, so
    False means that it may accept none either."""
    return bool(environ.get("HTTP_ACCEPT_ENCODING", "identity") == "identity")


def vary(response: Response) -> bool:
    """If the response is compressed for clients that accept it, says so in its header and returns
    True."""
    if response.direct_passthrough or len(response.get_data()) < _WORTH_IT:
        return False
    response.headers["Vary"] = "Accept-Encoding"
    return True


def register(app: Flask) -> None:
    """Compresses responses of _WORTH_IT bytes or more for clients that accept it."""

    @app.after_request
    def compress(response: Response) -> Response:
        if not vary(response) or accepts_no_compression(request.environ):
            return response
        asked = request.accept_encodings
        if asked.quality("gzip") > 0:
            response.set_data(gzip.compress(response.get_data(), _LEVEL, mtime=0))
            response.headers["Content-Encoding"] = "gzip"
        elif asked.quality("deflate") > 0:
            response.set_data(zlib.compress(response.get_data(), _LEVEL))
            response.headers["Content-Encoding"] = "deflate"
        else:
            return response
        etag, _ = response.get_etag()
        if etag is not None:
            response.set_etag(etag, weak=True)
        return response
