"""Replays a folder of CSVs through the pipeline, into a separate database."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedded import replay as embedded
from embedded.programs import Programs
from embedded.stack import environment, free_ports, make_private, prepare, remove
from modelapi.artifact import Ref
from modelapi.champion import State
from modelapi.states import StateFile

FOLDER = Path("var/backtest")
# Settings of the live pipeline that would connect the replay with the outside: alarms would be sent
# to people, or another stream, model or database would be used.
OUTSIDE = (
    *("ALARM_WEBHOOK", "ALARM_WEBHOOK_TOKEN_FILE", "ACKNOWLEDGE_URL", "ACKNOWLEDGE_TOKEN_FILE"),
    *("MODELS", "MODEL_URL", "MODEL_TOKEN_FILE", "MODEL_TOKEN_KEY_FILE"),
    *("MODEL_STATE_URL", "MODEL_STATE_PASSWORD_FILE", "DATABASE_PASSWORD_FILE"),
    *("STREAM_URL", "HOSPITAL_URL", "LOGIN_URL", "GATEWAY_LOG", "DERIVED_DATA"),
    *("REDIS_URL", "REDIS_PASSWORD_FILE", "REDIS_FOLDER"),
)


def replay(data: Path, versions: Sequence[Ref]) -> tuple[str, dict[str, Any]]:
    """Replays the CSVs in `data` once at full speed; the first version is the champion, the others
    are shadows. The settings in OUTSIDE are ignored.

    Returns the address of the database, and the figures of the run. Raises CannotRun.
    """
    make_private(Path("var"))
    url = f"sqlite:///{(FOLDER / 'icu.sqlite').resolve()}"
    own = {
        **dict.fromkeys(OUTSIDE, ""),
        "PATIENT_DATA": str(data),
        "DATABASE_URL": url,
        "MODEL_STATE": str((FOLDER / "models.sqlite").resolve()),
        "REPLAY_RATE": "0",
        "REPLAY_MODE": "live",
        **free_ports(),
    }
    environ = environment(FOLDER, {**os.environ, **own})
    remove(FOLDER, environ)
    prepare(FOLDER, environ)
    champion, *shadows = dict.fromkeys(versions)
    states = StateFile(Path(own["MODEL_STATE"]), Path("models/default.json"))
    states.change("promote", str(champion), "backtest", lambda _: State(champion, tuple(shadows)))
    with Programs(FOLDER, environ) as programs:
        return url, embedded.run(programs)
