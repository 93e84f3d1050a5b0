"""What modelapi reads from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What a log line has as JSON (the arguments of python-json-logger's formatter).
JSON_LINES: dict[str, Any] = {
    "fmt": "{levelname}{name}{message}",
    "style": "{",
    "rename_fields": {"levelname": "level", "name": "logger"},
    "static_fields": {"service": "modelapi"},
    "timestamp": "time",
}
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class Settings:
    """Settings of the application; see `from_environment` for their keys."""

    models: Path = Path("models")
    model_state: Path = Path("var/models.sqlite")
    token_key_file: Path | None = None
    log_level: str = "INFO"
    log_format: str = "text"


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read MODELS, MODEL_STATE, MODEL_TOKEN_KEY_FILE, LOG_LEVEL and LOG_FORMAT.

    Raises ValueError naming the setting and its value.
    """
    models = Path(environ.get("MODELS") or Settings.models)
    if not models.is_dir():
        raise ValueError(f"MODELS={models}: no such folder")
    level = (environ.get("LOG_LEVEL") or Settings.log_level).upper()
    if level not in LOG_LEVELS:
        raise ValueError(f"LOG_LEVEL={level}: must be one of {', '.join(LOG_LEVELS)}")
    form = environ.get("LOG_FORMAT") or Settings.log_format
    if form not in ("text", "json"):
        raise ValueError(f"LOG_FORMAT={form}: must be text or json")
    key_file = environ.get("MODEL_TOKEN_KEY_FILE")
    if key_file and not Path(key_file).is_file():
        raise ValueError(f"MODEL_TOKEN_KEY_FILE={key_file}: no such file")
    return Settings(
        models=models,
        model_state=Path(environ.get("MODEL_STATE") or Settings.model_state),
        token_key_file=Path(key_file) if key_file else None,
        log_level=level,
        log_format=form,
    )


def number(environ: Mapping[str, str], key: str, default: int, low: int, high: int) -> int:
    """A whole number from the environment; ValueError names key, value and bounds."""
    text = environ.get(key) or str(default)
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ValueError(f"{key}={text}: must be a whole number from {low} to {high}")
    return int(text)
