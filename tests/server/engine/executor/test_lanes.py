"""Lanes start programs on threads of their own, so that on a CPU they run at the same time."""

from __future__ import annotations

import gc
import threading
from queue import SimpleQueue

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.engine.executor.lanes import Lanes, run_apart
from chorus_server.engine.executor.places import Places
from chorus_server.engine.executor.testing import tiny_executor
from chorus_server.model.mesh import device_mesh


def _threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"chorus-lane-{name}"]


def test_a_lane_starts_its_programs_in_order_on_one_thread() -> None:
    lanes = Lanes(["first", "second"], apart=True)
    seen = [(lane, lanes.start(lane, threading.get_ident)) for lane in ("first", "second", "first", "second")]
    threads = {lane: {ident for other, ident in seen if other == lane} for lane in ("first", "second")}
    assert all(len(idents) == 1 for idents in threads.values())
    assert threads["first"] != threads["second"] and threading.get_ident() not in threads["first"]


def test_without_threads_the_caller_starts_everything() -> None:
    assert Lanes(["only"], apart=False).start("only", threading.get_ident) == threading.get_ident()
    assert not _threads("only")


@pytest.mark.parametrize("apart", [True, False])
def test_what_starting_raises_reaches_the_caller_and_the_lane_goes_on(apart: bool) -> None:
    lanes = Lanes(["lane"], apart)
    with pytest.raises(ZeroDivisionError):
        lanes.start("lane", lambda: 1 // 0)
    assert lanes.start("lane", lambda x: x + 1, 1) == 2


def test_threads_end_with_their_lanes() -> None:
    lanes = Lanes(["short-lived"], apart=True)
    (thread,) = _threads("short-lived")
    del lanes
    gc.collect()
    thread.join(timeout=300)
    assert not thread.is_alive()


def test_programs_of_two_lanes_run_at_the_same_time() -> None:
    """Each waits inside its program until the other is there: one after another they would never end."""
    met = threading.Barrier(2, timeout=300)

    def meet(x: np.ndarray) -> np.ndarray:
        met.wait()
        return x

    @jax.jit
    def program(x: jax.Array) -> jax.Array:
        return jax.pure_callback(meet, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    x = jnp.arange(4.0)
    compiled = program.lower(x).compile()
    lanes, results = Lanes("ab", apart=True), SimpleQueue[jax.Array]()
    starters = [
        threading.Thread(target=lambda lane=lane: results.put(lanes.start(lane, compiled, x)))
        for lane in "ab"
    ]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    for _ in starters:
        np.testing.assert_array_equal(results.get(), x)


def test_only_one_cpu_runs_lanes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_apart(Places())
    assert not run_apart(Places(device_mesh(1, 1)))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not run_apart(Places())


def test_an_executor_has_a_lane_for_encoding_and_for_each_block() -> None:
    before = set(threading.enumerate())  # those of earlier executors among them, which may end meanwhile
    executor = tiny_executor(without=("encode", "admit", "decode", "score"))  # lanes need none to be there
    found = [thread.name for thread in threading.enumerate() if thread not in before]
    lanes = ["encoding", *range(len(executor.ladder.blocks))]
    assert sorted(name for name in found if name.startswith("chorus-lane-")) == sorted(
        f"chorus-lane-{lane}" for lane in lanes
    )
