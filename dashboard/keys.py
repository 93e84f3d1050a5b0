"""The keys of the application's parts."""

from aiohttp import web

from dashboard.acknowledger import Acknowledger
from dashboard.poller import Poller
from dashboard.rendering import Pages
from dashboard.sessions import Login

POLLER = web.AppKey("poller", Poller)
ACKNOWLEDGER = web.AppKey("acknowledger", Acknowledger)
LOGIN = web.AppKey("login", Login)
PAGES = web.AppKey("pages", Pages)
