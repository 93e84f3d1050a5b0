"""The keys of the application's parts."""

from aiohttp import web

from dashboard.poller import Poller
from dashboard.rendering import Pages

POLLER = web.AppKey("poller", Poller)
PAGES = web.AppKey("pages", Pages)
