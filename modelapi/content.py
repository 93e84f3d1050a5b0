"""Decompresses request bodies within limits, and compresses responses on request."""

import gzip
import zlib

from flask import Flask, Response, request

from modelapi.api_errors import BadInput, TooLarge, WrongMediaType
from modelapi.browsers import from_browser

# Level 1, because within a data centre time costs more than bytes.
_LEVEL = 1
_WORTH_IT = 4096
_WINDOW = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


def request_body(*media_types: str) -> bytes:
    """The decompressed body. Clients of the protocol may send no Content-Type; a browser must.

    Raises WrongMediaType, BadInput for a damaged body, and TooLarge (compressed or decompressed).
    """
    nameless = request.mimetype == "" and not from_browser()
    if not nameless and request.mimetype not in media_types:
        raise WrongMediaType(
            f"Content-Type must be {' or '.join(media_types)}, not {request.mimetype or 'missing'}."
        )
    body = request.get_data(cache=False)
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding == "identity":
        return body
    if encoding not in _WINDOW:
        raise WrongMediaType(f"Content-Encoding must be gzip or deflate, not {encoding}.")
    limit = request.max_content_length or 0
    unpacker = zlib.decompressobj(_WINDOW[encoding])
    try:
        unpacked = unpacker.decompress(body, limit)
    except zlib.error as error:
        raise BadInput(f"The body is not {encoding}: {error}.") from None
    if unpacker.unconsumed_tail:
        raise TooLarge(
            f"The decompressed body is larger than {limit} bytes; send fewer rows per request."
        )
    if not unpacker.eof:
        raise BadInput(f"The body is not valid {encoding}: it ends too early.")
    return unpacked


def register(app: Flask) -> None:
    """Compresses the application's responses if requested and worthwhile."""

    @app.after_request
    def compress(response: Response) -> Response:
        if response.direct_passthrough or len(response.get_data()) < _WORTH_IT:
            return response
        response.vary.add("Accept-Encoding")
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
