"""The keys of the application's parts."""

from aiohttp import web

from dashboard.acknowledger import Acknowledger
from dashboard.poller import Poller
from dashboard.rendering import Pages

POLLER = web.AppKey("poller", Poller)
ACKNOWLEDGER = web.AppKey("acknowledger", Acknowledger)
PAGES = web.AppKey("pages", Pages)
