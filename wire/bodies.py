"""Reads the bodies of requests."""

from urllib.parse import parse_qsl

from aiohttp import web

FIELDS_MAX = 20


async def read_body(request: web.Request) -> bytes:
    """The decompressed body. Raises HTTPBadRequest if its compression is not that of the header,
    and HTTPRequestEntityTooLarge.
    """
    try:
        return await request.read()
    except web.RequestPayloadError:
        error = web.HTTPBadRequest(text="The body cannot be unpacked.\n")
        # The rest of the body stays unread.
        error.force_close()
        raise error from None


async def read_form(request: web.Request) -> dict[str, str]:
    """The fields of a form; a repeated field has its last value. Raises HTTPUnsupportedMediaType
    for files and other bodies, and HTTPBadRequest for a body that is not UTF-8 or has too many
    fields.
    """
    if request.content_type != "application/x-www-form-urlencoded":
        raise web.HTTPUnsupportedMediaType(text="Send the form as our pages do.\n")
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
