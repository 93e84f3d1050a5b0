"""A server in place of dashboard, model API and gateway. It answers with the path and the headers
of the request. A browser gets a page with the path and the user.
"""

import asyncio

from aiohttp import web


async def echo(request: web.Request) -> web.Response:
    if "text/html" in request.headers.get("Accept", ""):
        user = request.headers.get("X-User", "")
        page = f"<!DOCTYPE html><title>Ward</title><p id=user>{user}</p><p>{request.path_qs}</p>"
        form = '<form method="post" action="/logout"><button>Log out</button></form>'
        return web.Response(text=page + form, content_type="text/html")
    headers = {key.lower(): value for key, value in request.headers.items()}
    return web.json_response({"path": request.path_qs, "headers": headers})


async def main() -> None:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    for port in (5002, 8000, 8080):
        await web.TCPSite(runner, port=port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
