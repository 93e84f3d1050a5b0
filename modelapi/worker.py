"""gunicorn's worker, except that a connection may stay in its thread after a request."""

import select
import threading
from typing import Any

from gunicorn import glogging
from gunicorn.workers.gthread import ThreadWorker

# How long a thread waits for the next request of its connection, in milliseconds. At 1,000 messages
# per second, a worker of the tool asks about every 30 ms.
WAIT = 50
# Half of the threads, so that the others are free for new connections.
WAITING = 2
# After so many requests, the connection goes back to the main thread, so that others get a turn.
REQUESTS = 20


class Logger(glogging.Logger):  # type: ignore[misc]
    """gunicorn's logger without the access log. With `logconfig_dict`, gunicorn makes a record of
    each request even if nothing writes it."""

    access_log_enabled = False


class Worker(ThreadWorker):  # type: ignore[misc]
    """Serves requests that follow each other closely in one thread. gunicorn's own worker hands the
    connection to its main thread after each request, and back to a thread for the next one, which
    takes as long as the request itself."""

    waiting = threading.BoundedSemaphore(WAITING)

    def handle(self, conn: Any) -> Any:
        kept = super().handle(conn)
        if kept is not True or not self.waiting.acquire(blocking=False):
            return kept
        try:
            poll = select.poll()
            poll.register(conn.sock, select.POLLIN)
            # Requests that were read ahead do not make the socket readable.
            for _ in range(REQUESTS):
                if kept is not True or not self.alive:
                    break
                if not conn.parser.unreader.buf.getvalue() and not poll.poll(WAIT):
                    break
                kept = super().handle(conn)
        finally:
            self.waiting.release()
        return kept
