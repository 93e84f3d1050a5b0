"""The tool, whose worker or background process (DYING) dies at each start."""

import os
from collections.abc import Callable

from tool import processes
from tool.__main__ import main
from tool.settings import Settings


def die(started: Callable[[], None], settings: Settings, *_: object) -> None:
    os._exit(3)


if __name__ == "__main__":
    # Imported from the module and not from __main__, because the process imports it by name.
    from tests.support.dying_tool import die as importable

    setattr(processes, os.environ["DYING"], importable)
    raise SystemExit(main())
