"""The WSGI application for gunicorn."""

from modelapi.server import create_app
from modelapi.settings import Settings
from modelapi.statistics import shared
from wire import logs
from wire.settings import read

settings = read(Settings)
logs.set_up("modelapi", settings.log_level, settings.log_format)
app = create_app(settings, shared())
app.extensions["registry"].watch()
