"""What gunicorn serves: `gunicorn --config modelapi/gunicorn.conf.py modelapi.wsgi:app`."""

from modelapi.server import create_app, log_to_stderr
from modelapi.settings import from_environment
from modelapi.statistics import shared

settings = from_environment()
log_to_stderr(settings.log_level, settings.log_format)
app = create_app(settings, shared())
app.extensions["registry"].watch()
