"""Which models are in use, and how to change them."""

from dataclasses import dataclass, field, replace

from modelapi.artifact import Ref
from wire.alarms import Policy


class StateError(Exception):
    """A change is not possible, or the state cannot be read; the message is one line."""


@dataclass(frozen=True)
class State:
    """The models in use. champion: the model whose predictions the pages show. shadows: models that
    also predict at every reading. unloaded: names of models that are not served. alarms: the rules
    that replace those of the manifests, by `model/version`.
    """

    champion: Ref
    shadows: tuple[Ref, ...] = ()
    unloaded: tuple[str, ...] = ()
    alarms: dict[str, Policy] = field(default_factory=dict)

    @property
    def active(self) -> tuple[Ref, ...]:
        return (self.champion, *self.shadows)


@dataclass(frozen=True)
class Change:
    """A row of the audit log. state: the state after the change."""

    id: int
    at: str
    actor: str
    action: str
    model: str
    state: State


def promote(state: State, ref: Ref) -> State:
    """Makes a version the champion. The previous champion becomes a shadow, so that the two can be
    compared.
    """
    rest = [other for other in state.active if other != ref]
    return replace(state, champion=ref, shadows=tuple(rest), unloaded=_less(state, ref.model))


def shadow(state: State, ref: Ref) -> State:
    """Runs a version as a shadow; other versions of the same model may be in use too. Raises
    StateError for the champion."""
    if ref == state.champion:
        raise StateError(f"{ref} is the champion")
    rest = [other for other in state.shadows if other != ref]
    return replace(state, shadows=(*rest, ref), unloaded=_less(state, ref.model))


def unshadow(state: State, model: str) -> State:
    """Ends one shadow (NAME/VERSION), or all shadows of a model (NAME). Raises StateError if there
    is none."""
    rest = tuple(other for other in state.shadows if model not in (other.model, str(other)))
    if rest == state.shadows:
        raise StateError(f"{model} is not a shadow")
    return replace(state, shadows=rest)


def load(state: State, model: str) -> State:
    """Serves a model again."""
    return replace(state, unloaded=_less(state, model))


def unload(state: State, model: str) -> State:
    """Stops serving a model. Raises StateError for a model that is in use."""
    if model in [ref.model for ref in state.active]:
        raise StateError(f"{model} is in use; first promote another model, or end its shadow")
    return replace(state, unloaded=(*_less(state, model), model))


def set_alarm(state: State, ref: Ref, policy: Policy) -> State:
    """Replaces the alarm rule of a version."""
    return replace(state, alarms={**state.alarms, str(ref): policy})


def _less(state: State, model: str) -> tuple[str, ...]:
    return tuple(name for name in state.unloaded if name != model)
