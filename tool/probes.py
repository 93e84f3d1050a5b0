"""Updates the metrics about Redis, the database, the tool's token and the backups."""

import base64
import json
import time
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tool import metrics
from tool.database import DatabaseError
from tool.database.session import Session
from wire.database import is_sqlite
from wire.keys import BACKUP

EVERY = 10.0  # seconds
CONNECTIONS = "SHOW GLOBAL STATUS LIKE 'Threads_connected'"
CONNECTIONS_MAX = "SHOW GLOBAL VARIABLES LIKE 'max_connections'"


class Probes:
    """The probes, which have their own connections. token_file: empty if there is no token."""

    def __init__(self, redis: Redis, session: Session, token_file: str) -> None:
        self._redis: Any = redis
        self._session = session
        self._token_file = token_file
        self._next = 0.0
        # 0 means unknown. It is set at once, so that every scrape contains these metrics.
        for gauge in (metrics.CONNECTIONS, metrics.CONNECTIONS_MAX, metrics.TOKEN_EXPIRES):
            gauge.set(0)

    def measure(self) -> None:
        """Updates the metrics, at most every 10 s. Does not raise if a server is down."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY
        for peer, probe in (("redis", self._probe_redis), ("database", self._probe_database)):
            try:
                probe()
                metrics.UP.labels(peer).set(1)
            except (RedisError, DatabaseError):
                metrics.UP.labels(peer).set(0)
        if self._token_file:
            metrics.TOKEN_EXPIRES.set(expiry(Path(self._token_file)))

    def _probe_redis(self) -> None:
        with self._redis.pipeline() as pipe:
            # If Redis has no time of a backup, the time of this probe is stored instead.
            now = int(time.time())
            pipe.info("memory").set(BACKUP, now, nx=True).get(BACKUP)
            memory, _, backup = pipe.execute()
        if not backup.isdigit():  # damaged
            self._redis.set(BACKUP, now)
            backup = now
        metrics.REDIS_MEMORY.set(memory["used_memory"])
        metrics.REDIS_MEMORY_MAX.set(memory["maxmemory"])
        metrics.BACKUP.set(int(backup))

    def _probe_database(self) -> None:
        with self._session.transaction() as cursor:
            if is_sqlite(self._session.url):
                cursor.execute("SELECT 1")
                cursor.fetchall()
                return
            for statement, gauge in (
                (CONNECTIONS, metrics.CONNECTIONS),
                (CONNECTIONS_MAX, metrics.CONNECTIONS_MAX),
            ):
                cursor.execute(statement)
                [(_, value)] = cursor.fetchall()
                gauge.set(int(value))


def expiry(file: Path) -> float:
    """The time at which the token in a file expires, in seconds since 1970; 0 if it cannot be
    read."""
    try:
        payload = file.read_text().strip().split(".")[1]
        padded = payload + "=" * (-len(payload) % 4)
        return float(json.loads(base64.urlsafe_b64decode(padded))["exp"])
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return 0.0
