"""A job's programs are compiled two at once, each counted with its cause; an interruption ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from chorus_server.engine.executor import CompileWatch
from chorus_server.engine.executor.programs import Program
from chorus_server.tuning.training import programs


class Lowered(Program):
    """A program whose compile does what a test says."""

    def jit(self) -> Any:
        return self

    def lower(self) -> Any:
        return self

    def compile(self) -> str:
        self.function()
        return self.name


def _named(count: int, function: Callable[[], Any]) -> dict[Any, Program]:
    return {n: Lowered(f"program {n}", function, (), None) for n in range(count)}


def test_two_programs_are_compiled_at_once() -> None:
    both = threading.Barrier(2)
    known: dict[Any, Any] = {}
    told: list[str] = []
    programs._compile(_named(4, lambda: both.wait(300)), known, lambda name, seconds: told.append(name))
    assert known == {n: f"program {n}" for n in range(4)}
    assert sorted(told) == sorted(known.values())


def test_an_interruption_starts_no_other_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = threading.Event()
    numbers = count()
    started: list[int] = []

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(False, cancel_futures=cancel_futures)
            given_up.set()
            super().shutdown(wait)

    def compile_one() -> None:
        number = next(numbers)  # one of its own, whoever begins at the same time
        started.append(number)
        if number:
            assert given_up.wait(300)

    def interrupt(name: str, seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(programs, "ThreadPoolExecutor", Pool)
    with pytest.raises(KeyboardInterrupt):
        programs._compile(_named(20, compile_one), {}, interrupt)
    assert len(started) <= 3, "the first, and what began before it was told"


def test_a_program_that_is_compiled_on_another_thread_keeps_its_cause() -> None:
    def odd(size: int) -> dict[Any, Program]:
        """One that nothing else compiles."""
        vector = jax.ShapeDtypeStruct((size,), jnp.float32)
        return {size: Program("odd", lambda x: x * size + 1, (vector,), vector)}

    with CompileWatch() as watch:
        watch.mark_ready()
        with watch.because("tuning"):
            programs._compile(odd(41), {}, None)
        assert watch.caused_by("tuning") == 1 and watch.caused_by("request") == 0
        programs._compile(odd(43), {}, None)
        assert watch.caused_by("request") == 1, "the control: nobody gave a cause"
