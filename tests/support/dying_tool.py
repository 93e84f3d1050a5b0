"""The tool, with a process that dies at each start. DYING names the function of `tool.processes`
that this process runs: `work` or `run_in_background`.
"""

import os
from collections.abc import Callable

from tool import processes
from tool.__main__ import main
from tool.settings import Settings


def die(started: Callable[[], None], settings: Settings, *_: object) -> None:
    os._exit(3)


if __name__ == "__main__":
    # The started process imports `die` by the name of its module, which must not be __main__.
    from tests.support.dying_tool import die as importable

    setattr(processes, os.environ["DYING"], importable)
    raise SystemExit(main())
