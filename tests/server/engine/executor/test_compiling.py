"""Programs are counted, compiled with progress and never at a request; the watch sees any that is."""

from __future__ import annotations

import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.engine.executor import (
    CompileWatch,
    compile_all,
    model_spec,
    programs,
    use_persistent_cache,
)
from chorus_server.engine.executor.programs import MODES, Program
from chorus_server.engine.executor.testing import MemoryPrompts, tiny_executor
from chorus_server.engine.ladder import PRESETS, build_ladder
from chorus_server.engine.plans import Admission, DecodePlan, Ladder, PrefillPlan, RowLoad, ScorePlan
from chorus_server.engine.sampling import Sampling
from chorus_server.model.config import named_config
from chorus_server.model.t5 import build

# The programs of test_executor_plans: compiled once for both.
SMALL = build_ladder((16,), (4,), ((16, 8, 4),), ((2, 3),), rows_per_load=4)


def _program(name: str, size: int) -> Program:
    """A program that no other test compiles."""
    vector = jax.ShapeDtypeStruct((size,), jnp.float32)
    return Program(name, lambda x: x * size + 1, (vector,), vector)


def _count(ladder: Ladder) -> int:
    shapes = set(ladder.blocks)
    encoding = sum(len(ladder.token_counts(bucket)) for bucket in ladder.input_buckets)
    scoring = sum(len(ladder.score_lengths(bucket)) for bucket in ladder.score_buckets)
    return 2 + encoding + scoring + len(shapes) * (1 + len(MODES))


@pytest.mark.parametrize(
    ("ladder", "expected"),
    [
        (SMALL, 8),
        (build_ladder(), 36),
        (build_ladder((64,), (8,), ((64, 16, 8),) * 3, ()), 7),  # equal blocks share programs
    ],
)
def test_the_number_of_programs_is_known_and_bounded(ladder: Ladder, expected: int) -> None:
    listed = list(programs(model_spec(build(named_config("tiny")), 8), ladder))
    assert len(listed) == _count(ladder) == expected
    assert len({program.name for program in listed}) == expected


def test_the_default_ladder_has_a_block_for_every_length() -> None:
    ladder = build_ladder()
    assert ladder.max_input_tokens == 512 and ladder.max_new_tokens == 256
    assert len(ladder.blocks) == len(PRESETS["medium"].blocks)


def test_progress_names_every_program_and_the_watch_counts_it() -> None:
    seen: list[tuple[int, int, str, bool]] = []
    with CompileWatch() as watch:
        compiled = compile_all(
            [_program("one", 3), _program("two", 5)],
            watch,
            lambda done, total, name, seconds, cached: seen.append((done, total, name, cached)),
        )
        assert watch.counts() == {("one", "startup"): 1, ("two", "startup"): 1}
        assert watch.seconds > 0
    assert [line[:2] for line in seen] == [(1, 2), (2, 2)]
    assert {line[2:] for line in seen} == {("one", False), ("two", False)}
    np.testing.assert_array_equal(compiled["one"](np.ones(3, np.float32)), np.full(3, 4.0))
    assert set(compiled.seconds) == set(compiled.temporary_bytes) == {"one", "two"}


def test_what_progress_raises_ends_the_compilation() -> None:
    seen: list[int] = []

    def give_up(done: int, total: int, name: str, seconds: float, cached: bool) -> None:
        seen.append(done)
        raise TimeoutError("long enough")

    with pytest.raises(TimeoutError):
        compile_all([_program(f"given up {size}", size) for size in range(31, 51)], None, give_up)
    assert seen == [1]


def test_no_plan_compiles_after_readiness_and_a_stray_compile_is_seen() -> None:
    prompts = MemoryPrompts({"p": np.ones((6, 26), np.float32)})
    with CompileWatch() as watch:
        executor = tiny_executor(SMALL, prompts, watch=watch)
        startup = watch.caused_by("startup")
        assert startup >= 8
        watch.mark_ready()
        V = executor.padded_vocab_size
        loads = (RowLoad("p", (5, 1, 2, 3, 4, 0)),)
        admissions = (
            Admission(0, 0, (1,), Sampling(4, temperature=0.5, top_k=3, top_p=0.5, seed=2**32 - 1)),
            Admission(1, 0, (0, 2), Sampling(3, num_beams=2)),
        )
        pending = [
            executor.dispatch(PrefillPlan(1, (4, 16), ((V, V + 5, 3, 1), (4, 1)), admissions, loads)),
            executor.dispatch(DecodePlan(2, 0, "grouped", 3)),
            executor.dispatch(DecodePlan(3, 0, "grouped", 3, release=(1,))),
            executor.dispatch(DecodePlan(4, 0, "plain", 2)),
            executor.dispatch(ScorePlan(5, (4, 16), ((3, 1),), (((4, 1), (5, 1), (6, 1)),))),
        ]
        for step in pending:
            executor.collect(step)
        assert watch.caused_by("request") == 0 and watch.caused_by("startup") == startup
        jax.jit(lambda x: x * 11 - 3)(np.ones(7, np.float32))  # the control
        assert watch.caused_by("request") == 1


def test_a_thread_may_name_its_own_cause() -> None:
    with CompileWatch() as watch:
        watch.mark_ready()

        def train() -> None:
            with watch.because("training", "train_step"):
                jax.jit(lambda x: x * 13 - 4)(np.ones(9, np.float32))

        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        assert watch.counts().get(("train_step", "training"), 0) >= 1 and watch.caused_by("request") == 0


def test_a_closed_watch_hears_nothing() -> None:
    with CompileWatch() as watch:
        pass
    compile_all([_program("late", 21)])
    assert watch.counts() == {}


def test_the_persistent_cache_answers_a_second_start(tmp_path: Path) -> None:
    before = {
        name: getattr(jax.config, name)
        for name in (
            "jax_compilation_cache_dir",
            "jax_persistent_cache_min_compile_time_secs",
            "jax_persistent_cache_min_entry_size_bytes",
        )
    }
    try:
        use_persistent_cache(str(tmp_path))
        with CompileWatch() as first:
            compile_all([_program("kept", 33)], first)
        jax.clear_caches()
        with CompileWatch() as second:
            compile_all([_program("kept", 33)], second)
        assert first.from_cache == 0 and second.from_cache == 1
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        from jax.experimental.compilation_cache import compilation_cache

        compilation_cache.reset_cache()
