"""The stack of `make run`: SQLite files in var/."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

from redis.exceptions import RedisError

from backup.archive import BLOCK, BackupError
from embedded.stack import environment, is_running
from wire import keys
from wire.database import is_sqlite, sqlite_path
from wire.dotenv import read_dotenv


class LocalStack:
    """The stack of this folder. Raises BackupError if the tables are not in SQLite."""

    kind = "sqlite"

    def __init__(self) -> None:
        read_dotenv()
        self._environ = environment(Path("var"))
        url = self._environ["DATABASE_URL"]
        if not is_sqlite(url):
            raise BackupError("DATABASE_URL is not an SQLite file: back up its server instead")
        self._files = {
            "tables": sqlite_path(url),
            "models": Path(self._environ["MODEL_STATE"]),
            "gateway": Path(self._environ["GATEWAY_LOG"]),
        }

    def exists(self, part: str) -> bool:
        # `make run` has no login service.
        return part in self._files and self._files[part].is_file()

    @contextmanager
    def read(self, part: str) -> Iterator[IO[bytes]]:
        source = f"{self._files[part].absolute().as_uri()}?mode=ro"
        with tempfile.TemporaryDirectory(dir=self._files[part].parent) as folder:
            copy = Path(folder, part)
            try:
                with closing(sqlite3.connect(source, uri=True, timeout=30)) as connection:
                    connection.execute("VACUUM INTO ?", (str(copy),))
            except sqlite3.Error as error:
                raise BackupError(f"{self._files[part]}: {error}") from None
            with copy.open("rb") as content:
                yield content

    def write(self, part: str, content: IO[bytes]) -> None:
        file = self._files[part]
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f"{file.name}.part")
        with new.open("wb") as output:
            shutil.copyfileobj(content, output, BLOCK)
            output.flush()
            os.fsync(output.fileno())
        for ending in ("-wal", "-shm"):
            file.with_name(file.name + ending).unlink(missing_ok=True)
        new.replace(file)

    def record(self, saved_at: int) -> None:
        with suppress(RedisError):
            keys.connection(self._environ["REDIS_URL"]).set(keys.BACKUP, saved_at)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        if is_running(self._environ):
            raise BackupError(
                "the pipeline is running: stop it first (Ctrl-C), and start it afterwards"
            )
        folder = Path(self._environ["REDIS_FOLDER"])
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        yield
