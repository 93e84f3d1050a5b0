"""Replays a folder of CSVs through the pipeline, into a separate database."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backtest.history import Version
from embedded import replay as embedded
from embedded.programs import Programs
from embedded.stack import environment, free_ports, make_private, prepare
from modelapi.artifact import Ref
from modelapi.champion import State
from modelapi.states import StateFile

FOLDER = Path("var/backtest")


def replay(data: Path, versions: Sequence[Version]) -> tuple[str, dict[str, Any]]:
    """Replays the CSVs in `data` once at full speed; the first version is the champion, the others
    are shadows.

    Returns the address of the database, and the figures of the run. Raises CannotRun.
    """
    make_private(Path("var"))
    shutil.rmtree(FOLDER, ignore_errors=True)
    url = f"sqlite:///{(FOLDER / 'icu.sqlite').resolve()}"
    own = {
        "PATIENT_DATA": str(data),
        "DATABASE_URL": url,
        "MODEL_STATE": str((FOLDER / "models.sqlite").resolve()),
        "REPLAY_RATE": "0",
        "REPLAY_MODE": "live",
        **free_ports(),
    }
    environ = environment(FOLDER, {**os.environ, **own})
    prepare(FOLDER, environ)
    champion, *shadows = (Ref(*version) for version in dict.fromkeys(versions))
    states = StateFile(Path(own["MODEL_STATE"]), Path("models/default.json"))
    states.change("promote", str(champion), "backtest", lambda _: State(champion, tuple(shadows)))
    with Programs(FOLDER, environ) as programs:
        return url, embedded.run(programs)
