"""The faults, and the methods that a stack must have for their injection."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from chaos.model_proxy import FAULTS as MODEL_FAULTS


class Stack(Protocol):
    """A running pipeline into which faults can be injected."""

    programs: tuple[str, ...]

    def kill(self, program: str) -> None:
        """Sends SIGKILL to the program and its children; the stack restarts it."""

    def kill_worker(self, program: str, number: int) -> None:
        """Sends SIGKILL to one of the program's children."""

    def pause(self, program: str) -> None: ...
    def resume(self, program: str) -> None: ...

    def redis_command(self, *command: str) -> str: ...

    def lose_last_second(self) -> None:
        """Kills Redis, and removes the writes of the last second from its append-only file."""

    def break_model(self, fault: str) -> None:
        """Starts one of model_proxy.FAULTS; an empty text ends the fault."""

    def own_faults(self, rng: random.Random) -> "list[Fault]":
        """The faults that only this kind of stack has."""


# Seconds within which the pipeline must recover from a fault.
BOUND = 15.0


@dataclass(frozen=True)
class Fault:
    """A fault that lasts `seconds`. The context manager of `apply` begins and ends it. The pipeline
    must recover within `bound` seconds after the end.
    """

    name: str
    seconds: float
    apply: Callable[[], AbstractContextManager[None]]
    bound: float = BOUND


def at_once(name: str, act: Callable[[], object], bound: float = BOUND) -> Fault:
    """Returns a fault that ends at once. If it kills a program, the stack restarts the program."""

    @contextmanager
    def apply() -> Iterator[None]:
        act()
        yield

    return Fault(name, 0.0, apply, bound)


def held(
    name: str,
    seconds: float,
    begin: Callable[[], object],
    end: Callable[[], object],
    bound: float = BOUND,
) -> Fault:
    """Returns a fault that `begin` starts and that `end` ends after `seconds`."""

    @contextmanager
    def apply() -> Iterator[None]:
        begin()
        try:
            yield
        finally:
            end()

    return Fault(name, seconds, apply, bound)


PAUSE = 20.0


def all_faults(stack: Stack, rng: random.Random, pause: float = PAUSE) -> list[Fault]:
    """Returns all faults of a stack."""
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
    """Returns faults in random order, each with the pause before it, as many as fit into
    `seconds`."""
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
