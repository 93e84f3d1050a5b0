"""The faults, and what a stack must be able to do to itself for them."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from chaos.model_proxy import FAULTS as MODEL_FAULTS


class Stack(Protocol):
    """A running pipeline that can be harmed."""

    programs: tuple[str, ...]

    def kill(self, program: str) -> None:
        """kill -9 of the program and its children; it is started again by itself."""

    def kill_worker(self, program: str, number: int) -> None:
        """kill -9 of one of the program's children."""

    def pause(self, program: str) -> None: ...
    def resume(self, program: str) -> None: ...

    def redis_command(self, *command: str) -> str: ...

    def lose_last_second(self) -> None:
        """Redis dies, and its append-only file ends a second earlier."""

    def break_model(self, fault: str) -> None:
        """One of model_proxy.FAULTS, or nothing."""

    def own_faults(self, rng: random.Random) -> "list[Fault]":
        """Those that only this kind of stack can have."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong for `seconds`; `apply` begins it on entry and ends it on exit."""

    name: str
    seconds: float
    apply: Callable[[], AbstractContextManager[None]]


def at_once(name: str, act: Callable[[], object]) -> Fault:
    """A fault that is over when it has happened: what died is started again by itself."""

    @contextmanager
    def apply() -> Iterator[None]:
        act()
        yield

    return Fault(name, 0.0, apply)


def held(
    name: str, seconds: float, begin: Callable[[], object], end: Callable[[], object]
) -> Fault:
    """A fault that lasts."""

    @contextmanager
    def apply() -> Iterator[None]:
        begin()
        try:
            yield
        finally:
            end()

    return Fault(name, seconds, apply)


PAUSE = 20.0


def all_faults(stack: Stack, rng: random.Random, pause: float = PAUSE) -> list[Fault]:
    """Every fault of this stack, once."""
    faults = [
        at_once(f"kill -9 {program}", partial(stack.kill, program)) for program in stack.programs
    ]
    for program in ("modelapi", "tool"):
        number = rng.randrange(100)
        faults.append(
            at_once(
                f"kill -9 one worker of {program}",
                partial(stack.kill_worker, program, number),
            )
        )
    faults += [
        held(
            f"stop {program} for {pause:g} s",
            pause,
            partial(stack.pause, program),
            partial(stack.resume, program),
        )
        for program in stack.programs
    ]
    faults += [
        held(
            f"model: {fault}",
            10.0 if fault == "slow" else 5.0,
            partial(stack.break_model, fault),
            partial(stack.break_model, ""),
        )
        for fault in MODEL_FAULTS
    ]
    faults.append(at_once("redis: FLUSHALL", lambda: stack.redis_command("FLUSHALL")))
    faults.append(at_once("redis: last second of the AOF lost", stack.lose_last_second))
    faults.append(out_of_memory(stack))
    return faults + stack.own_faults(rng)


def out_of_memory(stack: Stack) -> Fault:
    before: list[str] = []

    def begin() -> None:
        before.append(stack.redis_command("CONFIG", "GET", "maxmemory").split()[-1])
        stack.redis_command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        stack.redis_command("CONFIG", "SET", "maxmemory", "1mb")

    return held(
        "redis: out of memory",
        8.0,
        begin,
        lambda: stack.redis_command("CONFIG", "SET", "maxmemory", before.pop()),
    )


def schedule(
    faults: list[Fault], rng: random.Random, seconds: float | None = None
) -> list[tuple[float, Fault]]:
    """(pause before it, fault) in random order; of all faults, as many as fit in `seconds`."""
    order = rng.sample(faults, len(faults))
    planned: list[tuple[float, Fault]] = []
    total = 0.0
    for fault in order:
        gap = rng.uniform(1.0, 3.0)
        cost = gap + fault.seconds + 5.0
        if seconds is not None and total + cost > seconds:
            continue
        total += cost
        planned.append((gap, fault))
    return planned
