"""A second start reads its programs and traces none; what is damaged, or of other code, is compiled."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.engine.executor import (
    CompileWatch,
    KeptPrograms,
    Program,
    compile_all,
    compiling,
    model_spec,
    programs,
    use_persistent_cache,
)
from chorus_server.engine.executor import kept as kept_module
from chorus_server.engine.executor.cache_folder import distrusted
from chorus_server.engine.executor.kept import description
from chorus_server.engine.executor.testing import tiny_executor, tiny_model
from chorus_server.engine.ladder import build_ladder
from chorus_server.engine.plans import Admission, DecodePlan, PrefillPlan, ScorePlan
from chorus_server.engine.sampling import Sampling
from tests.places import ROOT

Struct: Any = jax.ShapeDtypeStruct
SMALL = build_ladder((16,), (4,), ((16, 8, 4),), ((4, 8),), rows_per_load=5)
"""Rows that no other test loads at once: JAX remembers programs of a function that stays the same."""
MADE = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")
"""What JAX reports when it makes a program: traced, lowered, compiled."""


@contextmanager
def events() -> Iterator[Counter[str]]:
    """JAX's own events, counted by the last part of their names."""
    seen: Counter[str] = Counter()

    def hear(event: str, duration_secs: float, **details: Any) -> None:
        seen[event.rsplit("/", 1)[-1]] += 1

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A persistent cache of JAX's that is empty, since what it hands out is not kept."""
    from jax.experimental.compilation_cache import compilation_cache

    bounds = ("min_compile_time_secs", "min_entry_size_bytes")
    names = ["jax_compilation_cache_dir", *(f"jax_persistent_cache_{name}" for name in bounds)]
    before = {name: getattr(jax.config, name) for name in names}
    compilation_cache.reset_cache()
    use_persistent_cache(str(tmp_path_factory.mktemp("cache")))
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def scaled(by: Any, x: Any) -> Any:
    return x * by + 1


def _program(size: int = 3, by: float = 2.0, name: str = "scaled") -> Program:
    vector: Any = Struct((size,), jnp.float32)
    return Program(name, partial(scaled, by), (vector,), vector)


def _answers(compiled: Any) -> list[Any]:
    """Everything that one step of each kind gives."""
    executor = tiny_executor(SMALL, compiled=compiled)
    admissions = (
        Admission(0, 0, (0,), Sampling(4)),
        Admission(1, 0, (1,), Sampling(4, seed=3, temperature=0.9)),
    )
    plans: list[Any] = [
        PrefillPlan(1, (4, 16), ((3, 5, 1), (4, 1)), admissions, ()),
        DecodePlan(2, 0, "plain", 4),
        ScorePlan(3, (4, 16), ((3, 1),), (((4, 1), (5, 1)),)),
    ]
    return [executor.collect(executor.dispatch(plan)) for plan in plans]


@pytest.mark.usefixtures("compiled_quickly")
def test_a_second_start_traces_and_compiles_nothing_and_answers_with_the_same_bits(tmp_path: Path) -> None:
    wanted = list(programs(model_spec(tiny_model(), 64, 8), SMALL))
    with events() as seen:
        first = compile_all(wanted, kept=KeptPrograms(tmp_path))
    assert all(seen[name] >= len(wanted) for name in MADE)
    answers = repr(_answers(first))

    jax.clear_caches()  # type: ignore[no-untyped-call]
    again = KeptPrograms(tmp_path)
    told: list[bool] = []
    with events() as seen, CompileWatch() as watch:
        second = compile_all(wanted, watch, lambda *program: told.append(program[-1]), again)
    assert told == [True] * len(wanted)
    assert again.found == len(wanted) == len(second.executables)
    assert not any(seen[name] for name in MADE) and watch.counts() == {}
    assert second.temporary_bytes == first.temporary_bytes
    assert repr(_answers(second)) == answers


def no_link(*names: object) -> None:
    raise OSError("this disk has no links")


@pytest.mark.parametrize("how", ["linked", "copied"])
def test_after_an_update_the_same_programs_are_traced_once_and_not_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """They are found by what they were lowered to. The controls are a program that the update did change, and
    other options of the compiler."""
    if how == "copied":
        monkeypatch.setattr(os, "link", no_link)
    compile_all([_program()], kept=KeptPrograms(tmp_path))
    for traced in (True, False):
        jax.clear_caches()  # type: ignore[no-untyped-call]
        updated = KeptPrograms(tmp_path, code="of another version")
        with events() as seen:
            compiled = compile_all([_program()], kept=updated)
        assert updated.found == 1 and not seen["backend_compile_duration"]
        assert bool(seen["jaxpr_trace_duration"]) == traced
        np.testing.assert_array_equal(compiled["scaled"](np.ones(3, np.float32)), np.full(3, 3.0))
    assert not list(tmp_path.glob("writing-*"))
    with monkeypatch.context() as patch, events() as seen:
        patch.setattr(compiling, "_options", lambda: {"xla_backend_optimization_level": 0})
        compile_all([_program(by=3.0), _program()], kept=KeptPrograms(tmp_path, code="of a third"))
    assert seen["backend_compile_duration"] == 2


def first_of(x: Any, y: Any) -> Any:
    return x + 1


def second_of(x: Any, y: Any) -> Any:
    return y + 1


def test_programs_that_use_other_arguments_have_different_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JAX lowers both to the same text, of one argument."""
    vector: Any = Struct((3,), jnp.float32)
    one, other = (Program("one", of, (vector, vector), vector) for of in (first_of, second_of))
    lowered = [each.jit().lower(*each.arguments) for each in (one, other)]
    texts = {each.as_text().replace("second_of", "first_of") for each in lowered}
    assert len(texts) == 1, "the control"
    monkeypatch.setattr(kept_module, "description", lambda program: program.name)
    monkeypatch.setattr(jax.stages.Lowered, "as_text", lambda self: "the same")
    kept = KeptPrograms(tmp_path)
    paths = {kept.second_name(one, each, None) for each in lowered}
    assert len(paths) == 2 and None not in paths


def test_what_jaxs_own_cache_hands_out_is_not_kept(tmp_path: Path) -> None:
    """Written once more, it lacks kernels: a start that read it would fail at its first step."""
    compile_all([_program()])
    jax.clear_caches()  # type: ignore[no-untyped-call]
    with CompileWatch() as watch:
        compile_all([_program(), _program(5, name="another")], watch, kept=KeptPrograms(tmp_path))
    assert watch.from_cache == 1
    assert KeptPrograms(tmp_path).load(_program()) is None
    assert KeptPrograms(tmp_path).load(_program(5, name="another")) is not None  # the control


@pytest.mark.parametrize("left", [0, 7, 40, -1])
def test_what_a_kill_left_half_written_is_compiled_anew_with_one_line(tmp_path: Path, left: int) -> None:
    compile_all([_program()], kept=KeptPrograms(tmp_path))
    (entry,) = tmp_path.glob("*.program")
    whole = entry.read_bytes()
    entry.write_bytes(whole[:left])
    told: list[str] = []
    kept = KeptPrograms(tmp_path, told.append)
    compiled = compile_all([_program()], kept=kept)
    np.testing.assert_array_equal(compiled["scaled"](np.ones(3, np.float32)), np.full(3, 3.0))
    assert kept.found == 0 and len(told) == 1
    assert told[0].startswith("compiling scaled anew: its entry in the compile cache is damaged")
    assert not entry.exists()  # so that it is told once; JAX's cache had the program, so it is not kept


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    compile_all([_program()], kept=KeptPrograms(tmp_path))
    (entry,) = tmp_path.glob("*.program")
    whole = bytearray(entry.read_bytes())
    whole[len(whole) // 2] ^= 1
    entry.write_bytes(whole)
    told: list[str] = []
    assert KeptPrograms(tmp_path, told.append).load(_program()) is None and len(told) == 1


def test_a_start_that_finds_only_programs_of_another_version_says_so_once(tmp_path: Path) -> None:
    told: list[str] = []
    wanted = [_program(), _program(5, name="another")]
    compile_all(wanted, kept=KeptPrograms(tmp_path, told.append))
    compile_all(wanted, kept=KeptPrograms(tmp_path, told.append))
    assert told == [], "control: an empty folder, and one that has them all"
    jax.clear_caches()  # type: ignore[no-untyped-call]
    changed = [_program(by=3.0), _program(5, 3.0, "another")]
    compile_all(changed, kept=KeptPrograms(tmp_path, told.append, code="of another version"))
    (line,) = told
    assert re.match(r"compiling anew: (scaled|another) is not among the 2 programs in ", line)


def test_a_folder_that_cannot_be_written_costs_only_the_next_start_and_is_told_once(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    told: list[str] = []
    wanted = [_program(), _program(5, name="another")]
    compiled = compile_all(wanted, kept=KeptPrograms(blocked / "programs", told.append))
    np.testing.assert_array_equal(compiled["scaled"](np.ones(3, np.float32)), np.full(3, 3.0))
    assert len(told) == 1 and told[0].startswith(
        f"compiled programs cannot be kept in {blocked / 'programs'} ("
    )
    jax.clear_caches()  # type: ignore[no-untyped-call]
    compile_all([_program(7, name="a third")], kept=KeptPrograms(tmp_path / "free", told.append))
    assert len(told) == 1 and len(list((tmp_path / "free").glob("*.program"))) == 1, "control"


def test_what_a_killed_writer_left_goes_and_what_one_writes_stays(tmp_path: Path) -> None:
    left, fresh = tmp_path / "writing-0123", tmp_path / "writing-4567"
    for each in (left, fresh):
        each.write_bytes(b"half")
    os.utime(left, (0, 0))
    compile_all([_program()], kept=KeptPrograms(tmp_path))
    assert not left.exists() and fresh.exists()
    os.utime(fresh, (0, 0))
    KeptPrograms(tmp_path).keep(_program(), object())  # which cannot be written down: nothing is swept
    assert fresh.exists()


@pytest.mark.parametrize("what", ["folder", "entry"])
def test_what_somebody_else_may_have_written_is_not_run(tmp_path: Path, what: str) -> None:
    """Entries are pickles: whoever writes one runs code here."""
    compile_all([_program()], kept=KeptPrograms(tmp_path))
    (entry,) = tmp_path.glob("*.program")
    path, told = {"folder": tmp_path, "entry": entry}[what], []
    mode = path.stat().st_mode
    path.chmod(mode | 0o002)
    kept = KeptPrograms(tmp_path, told.append)
    assert kept.load(_program()) is None and kept.trusted is (what == "entry")
    assert len(told) == 1 and f"{path} is not used, because everybody may write to it" in told[0]
    kept.keep(_program(5, name="another"), jax.jit(scaled).lower(1.0, 2.0).compile())
    assert len(list(tmp_path.glob("*.program"))) == (1 if what == "folder" else 2)
    path.chmod(mode)
    assert KeptPrograms(tmp_path, told.append).load(_program()) is not None and len(told) == 1, "control"


def test_whose_programs_are_trusted(tmp_path: Path) -> None:
    found = list(tmp_path.stat())
    mine, root, other = os.geteuid(), 0, os.geteuid() + 1
    for owner in (mine, root, other):
        said = distrusted(os.stat_result([*found[:4], owner, *found[5:]]))
        assert said == (f"it belongs to user {other}, and this is {mine}" if owner == other else None)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_umask_says_who_may_read_what_was_compiled(tmp_path: Path, mask: int, mode: int) -> None:
    """`chorus compile` in an image runs as root, and the server as another user."""
    before = os.umask(mask)
    try:
        compile_all([_program()], kept=KeptPrograms(tmp_path))
    finally:
        os.umask(before)
    (entry,) = tmp_path.glob("*.program")
    assert entry.stat().st_mode & 0o777 == mode


def test_no_two_programs_share_an_entry() -> None:
    spec = model_spec(tiny_model(), 64, 8)
    ours = list(programs(spec, SMALL))
    others = list(programs(model_spec(tiny_model(matrix_dtype="bfloat16"), 64, 8), SMALL))
    more = [_program(), _program(4), _program(by=3.0), _program(name="other")]
    described = [description(each) for each in (*ours, *others, *more)]
    pairs = zip(ours, others, strict=True)
    same = [one.name for one, other in pairs if description(one) == description(other)]
    assert same == ["load_rows"]  # it reads no matrix, so their type does not matter to it
    assert None not in described and len(set(described)) == len(described) - 1


def test_a_function_with_variables_of_its_own_is_not_kept(tmp_path: Path) -> None:
    by, thing, vector = 5.0, object(), Struct((3,), jnp.float32)
    functions: list[Any] = [lambda x: x + 1, lambda x: x * by, partial(scaled, thing)]
    for function in functions:
        program = Program("unknown", function, (vector,), vector)
        assert description(program) is None
        kept = KeptPrograms(tmp_path)
        if not isinstance(function, partial):
            compile_all([program], kept=kept)
        assert kept.load(program) is None
    assert list(tmp_path.iterdir()) == []


def test_how_jax_is_configured_is_part_of_the_question(tmp_path: Path) -> None:
    compile_all([_program()], kept=KeptPrograms(tmp_path))
    update: Any = jax.config.update
    config: Any = jax.config
    before = config.jax_default_matmul_precision
    update("jax_default_matmul_precision", "highest")
    try:
        assert KeptPrograms(tmp_path).load(_program()) is None
    finally:
        update("jax_default_matmul_precision", before)
    assert KeptPrograms(tmp_path).load(_program()) is not None


def test_every_process_asks_in_the_same_words() -> None:
    script = """
import hashlib
from chorus_server.engine.executor import model_spec, programs
from chorus_server.engine.executor.cache_folder import distrusted
from chorus_server.engine.executor.kept import description
from chorus_server.engine.executor.testing import tiny_model
from chorus_server.engine.ladder import tiny_ladder
said = [description(each) for each in programs(model_spec(tiny_model(), 64, 8), tiny_ladder())]
print(hashlib.sha256("".join(said).encode()).hexdigest())
"""
    seeds = ("1", "2")
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, text=True,
            env={"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
        )
        for seed in seeds
    ]  # fmt: skip
    said = [child.communicate()[0] for child in children]
    assert said[0] == said[1] and len(said[0].strip()) == 64
