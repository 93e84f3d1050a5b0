"""How RQ's own command line reaches the queues: `docker compose exec tool rq info`."""

from pathlib import Path
from urllib.parse import quote

from tool.settings import Settings

_settings = Settings.from_environment()
_file = _settings.redis_password_file
_password = f":{quote(Path(_file).read_text().strip())}@" if _file else ""
REDIS_URL = _settings.redis_url.replace("://", f"://{_password}", 1)
