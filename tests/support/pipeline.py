"""The embedded pipeline for tests. Its programs are started, killed and paused by name."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

from redis.exceptions import RedisError

from embedded.programs import COMMANDS, ROOT, Programs
from embedded.programs import PIPELINE as PROGRAMS
from embedded.stack import environment, free_ports
from tests.support import servers
from tests.support.oracle import at_rest
from tests.support.waiting import wait_until
from wire.keys import DECLARATION

__all__ = ["COMMANDS", "PROGRAMS", "Pipeline", "synthetic"]


class Pipeline(Programs):
    """The pipeline in a folder of its own, at full speed unless `settings` change that.

    The model API has one worker instead of two, because each takes seconds to load scikit-learn.
    """

    def __init__(self, folder: Path, patient_data: Path, **settings: str) -> None:
        keys = ("PATH", "HOME", "CI", "SSL_CERT_FILE", "PYTHON_DOTENV_DISABLED", "PYTHONPATH")
        inherited = {key: os.environ[key] for key in keys if key in os.environ}
        chosen = {"PATIENT_DATA": str(patient_data), "REPLAY_RATE": "0", "MODELAPI_WORKERS": "1"}
        super().__init__(folder, environment(folder, inherited | free_ports() | chosen | settings))
        self.database_url = self.environ["DATABASE_URL"]

    def __enter__(self) -> Self:
        servers.redis_program()
        try:
            # The buffer starts last, so that the stream does not end while other programs still
            # start.
            self.start(*(name for name in PROGRAMS if name != "buffer"))
            self.wait(self._declared)
            self.start("buffer")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _declared(self) -> bool:
        try:
            return bool(self.redis.exists(DECLARATION))
        except RedisError:
            return False

    def wait(self, reached: Callable[[], bool], seconds: float = 120) -> None:
        wait_until(reached, str(reached), seconds, lambda: self.logs(PROGRAMS))

    def settled(self) -> bool:
        """Whether the stream has ended, and its rows and predictions are stored."""
        return self.done() and at_rest(self.database_url)


def synthetic(folder: Path, *arguments: str) -> Path:
    """Writes the CSVs of a synthetic ward to a folder."""
    subprocess.run(
        [sys.executable, "-m", "hospital.synthetic", "--to", str(folder), *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return folder
