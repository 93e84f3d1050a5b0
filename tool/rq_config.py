"""Connection settings of RQ's command line: `docker compose exec tool rq info`."""

from urllib.parse import quote

from tool.settings import Settings
from wire.settings import read

_settings = read(Settings)
_password = quote(_settings.redis_password_file.secret, safe="")
REDIS_URL = _settings.redis_url.replace("://", f"://:{_password}@" if _password else "://", 1)
