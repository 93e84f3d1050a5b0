"""The models that this process serves, updated when the state changes."""

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from modelapi.api_errors import NotServing, UnknownModel
from modelapi.artifact import ArtifactError, Ref, manifest_digest, sha256
from modelapi.champion import State, StateError
from modelapi.repository import Model, Repository
from modelapi.states import States
from wire.alarms import Policy

log = logging.getLogger("modelapi")

RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class Serving:
    """The models in use. The object is immutable and replaced as a whole. declaration: the body of
    GET /api/model. etag: the declaration's fingerprint.
    """

    champion: Model
    shadows: tuple[Model, ...]
    declaration: bytes
    etag: str


def serving(change: int, champion: Model, shadows: tuple[Model, ...], state: State) -> Serving:
    """Makes a `Serving` of these models. change: the number of the last change."""
    body = msgspec.json.encode(
        {
            "change": change,
            "champion": declared(champion, state),
            "shadows": [declared(model, state) for model in shadows],
        }
    )
    return Serving(champion, shadows, body, sha256(body)[:32])


def alarm_of(model: Model, state: State | None) -> Policy | None:
    """The model's current alarm rule: the rule that was set last, or else the rule in the manifest;
    None if there is neither. Its `learned_hours` are those of the manifest.
    """
    rules = state.alarms if state else {}
    rule = rules.get(str(model.ref)) or model.manifest.alarm or None
    if rule is None:
        return None
    return msgspec.structs.replace(rule, learned_hours=model.manifest.learned_hours or None)


def declared(model: Model, state: State | None) -> dict[str, object]:
    """A model's declaration: name, features, alarm rule, reference for drift, and for a score its
    maximum."""
    return {
        "model": model.ref.model,
        "version": model.ref.version,
        "features": [feature.declaration() for feature in model.manifest.features],
        "alarm": alarm_of(model, state),
        "reference": model.manifest.reference or None,
        "maximum": model.maximum,
    }


class Registry:
    """The loaded models by name and version, and which of them are in use."""

    def __init__(self, repository: Repository, states: States) -> None:
        self.repository = repository
        self.states = states
        self._serving: Serving | None = None
        self._reason = "no model has been loaded yet"
        self._state: State | None = None
        self._change: int | None = None
        self._retry_at: float | None = None
        self._loaded: dict[Ref, Model] = {}
        self._failed: dict[Ref, tuple[str, float]] = {}
        self._lock = threading.RLock()
        self._refreshing = threading.Lock()
        self._unreadable = False

    @property
    def serving(self) -> Serving:
        """The models in use; raises NotServing."""
        if self._serving is None:
            raise NotServing(self._reason)
        return self._serving

    def declared(self, model: Model) -> dict[str, object]:
        """A model's declaration, as in GET /api/model."""
        return declared(model, self._state)

    def watch(self, seconds: float = 0.5) -> None:
        """Starts a thread that applies changes of the state until the process ends. seconds: the
        pause between two reads."""

        def forever() -> None:
            while True:
                time.sleep(seconds)
                try:
                    self.refresh()
                except Exception:
                    log.exception("the models in use could not be updated")

        threading.Thread(target=forever, name="watch-models", daemon=True).start()

    def refresh(self) -> None:
        """Applies a change of the state; on failure keeps the old models and logs the reason."""
        # Reading the state needs only this lock, so that a slow database does not delay requests,
        # which need the other lock.
        with self._refreshing:
            try:
                change, state = self.states.read()
            except StateError as error:
                # Only the first reason is logged, because it may differ from one attempt to the
                # next.
                if not self._unreadable:
                    self._keep(str(error))
                self._unreadable = True
                return
            if self._unreadable:
                self._unreadable, self._reason = False, ""
                log.info("the models in use can be read again")
            self._apply(change, state)

    def _apply(self, change: int, state: State) -> None:
        with self._lock:
            again = self._retry_at is not None and time.monotonic() >= self._retry_at
            if (change, state) == (self._change, self._state) and not again:
                return None
            self._change, self._state, self._retry_at = change, state, None
            self._failed.clear()
            self._reload(state)
            try:
                champion = self.load(state.champion)
            except ArtifactError as error:
                self._retry_at = time.monotonic() + RETRY_SECONDS
                return self._keep(f"champion {state.champion} cannot be served: {error}")
            shadows = []
            for ref in state.shadows:
                try:
                    shadows.append(self.load(ref))
                except ArtifactError as error:
                    self._retry_at = time.monotonic() + RETRY_SECONDS
                    log.error("shadow %s cannot be served: %s", ref, error)
            old, self._serving = self._serving, serving(change, champion, tuple(shadows), state)
            self._reason = ""
            if old is None or old.etag != self._serving.etag:
                names = ", ".join(str(model.ref) for model in shadows) or "none"
                log.info("champion %s, shadows %s", champion.ref, names)
            return None

    def find(self, name: str, version: str | None = None) -> Model:
        """Returns a model by name and version; loads it if necessary. Without a version, returns
        the version in use, or else the highest version. Raises UnknownModel, NotServing.
        """
        if version is None:
            if self._serving is not None:
                for model in (self._serving.champion, *self._serving.shadows):
                    if model.ref.model == name:
                        return model
            version = self.versions(name)[-1]
        ref = Ref(name, version)
        model_or_none = self._loaded.get(ref)
        if model_or_none is not None:
            return model_or_none
        if version not in self.versions(name):
            raise UnknownModel(f"There is no version {version!r} of model {name!r}.")
        # With the lock, the model cannot be unloaded between the check and the loading, after which
        # it would be served.
        with self._lock:
            if self._state is not None and name in self._state.unloaded:
                raise NotServing(f"Model {name} is unloaded.")
            try:
                return self.load(ref)
            except ArtifactError as error:
                raise NotServing(str(error)) from None

    def idle(self) -> list[Model]:
        """The models that are served, but not in use. Leaves out invalid ones."""
        found = []
        for ref in self.repository.refs():
            with self._lock, suppress(ArtifactError):
                state = self._state
                if state and ref not in state.active and ref.model not in state.unloaded:
                    found.append(self.load(ref))
        return found

    def versions(self, name: str) -> list[str]:
        """The versions of a model in ascending order. Raises UnknownModel."""
        versions = [ref.version for ref in self.repository.refs() if ref.model == name]
        if not versions:
            raise UnknownModel(f"There is no model {name!r}.")
        return versions

    def load(self, ref: Ref) -> Model:
        """Returns a verified model, from memory if possible. Raises ArtifactError. A failure is
        cached for a few seconds, so that requests for an invalid artifact cost little.
        """
        with self._lock:
            if ref in self._loaded:
                return self._loaded[ref]
            reason, until = self._failed.get(ref, ("", 0.0))
            if time.monotonic() < until:
                raise ArtifactError(reason)
            try:
                model = self.repository.load(ref)
            except ArtifactError as error:
                self._failed[ref] = (str(error), time.monotonic() + RETRY_SECONDS)
                raise
            self._loaded[ref] = model
            return model

    def _reload(self, state: State) -> None:
        """Drops models that were unloaded, and reloads models that were replaced on disk, if the
        new files are valid."""
        for ref, model in list(self._loaded.items()):
            if ref.model in state.unloaded:
                del self._loaded[ref]
                continue
            try:
                if manifest_digest(self.repository.folder(ref)) != model.digest:
                    self._loaded[ref] = self.repository.load(ref)
            except ArtifactError as error:
                log.error("%s: the previously loaded model stays in use: %s", ref, error)

    def _keep(self, reason: str) -> None:
        if reason == self._reason:
            return
        self._reason = reason
        old = self._serving
        kept = "no model is served" if old is None else f"{old.champion.ref} remains the champion"
        log.error("%s; %s", reason, kept)
