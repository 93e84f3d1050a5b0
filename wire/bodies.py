"""Reads the bodies of requests."""

from urllib.parse import parse_qsl

from aiohttp import web

FIELDS_MAX = 20


async def read_body(request: web.Request) -> bytes:
    """Returns the decompressed body.

    Raises HTTPBadRequest if the body is not compressed as Content-Encoding says, and
    HTTPRequestEntityTooLarge if it is larger than the application's limit.
    """
    try:
        return await request.read()
    except web.RequestPayloadError:
        error = web.HTTPBadRequest(text="The body cannot be decompressed.\n")
        # The connection must be closed, because the rest of the body stays unread.
        error.force_close()
        raise error from None


async def read_form(request: web.Request) -> dict[str, str]:
    """Returns the fields of a URL-encoded form; the last value of a repeated field counts.

    Raises HTTPUnsupportedMediaType for another content type, such as that of a file upload. Raises
    HTTPBadRequest if the body is not UTF-8 or has more than FIELDS_MAX fields. Also raises the
    errors of `read_body`.
    """
    if request.content_type != "application/x-www-form-urlencoded":
        raise web.HTTPUnsupportedMediaType(
            text="Send the form as application/x-www-form-urlencoded.\n"
        )
    try:
        fields = parse_qsl(
            (await read_body(request)).decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise web.HTTPBadRequest(text="The form cannot be read.\n") from None
    return dict(fields)
