"""The wiring: which programs a server compiles, and what the engine is told."""

from __future__ import annotations

import gc
import time
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from chorus_server.api.lifecycle import spare_collections
from chorus_server.api.services import Compiled
from chorus_server.app import (
    MAX_COMPILE_SECONDS,
    build_app,
    check_compile_time,
    check_slots,
    close_app,
    engine_config,
    ladder_of,
    load,
    mesh_of,
)
from chorus_server.cli import importing
from chorus_server.engine.config import EngineConfig
from chorus_server.engine.executor.build import model_spec
from chorus_server.engine.executor.programs import programs
from chorus_server.engine.executor.testing import tiny_model
from chorus_server.engine.ladder import MAX_PROGRAMS, PRESETS, build_ladder, program_count
from chorus_server.errors import InvalidInputError, NotReadyError
from chorus_server.model.mesh import abstract_mesh
from chorus_server.settings import Settings
from chorus_server.settings.values import ShapeChoice

LADDERS: list[dict[str, Any]] = [
    {},
    {"input_lengths": (48,), "batch_rows": (1, 4), "blocks": ((48, 8, 4),), "score_buckets": ((2, 16),)},
    {
        "input_lengths": (8, 16),
        "blocks": ((16, 4, 2), (16, 4, 2), (8, 4, 2)),
        "score_buckets": ((1, 4), (2, 4), (1, 16)),
    },
]


@pytest.mark.parametrize("ladder", LADDERS)
def test_programs_are_counted_before_there_is_a_model(ladder: dict[str, Any]) -> None:
    shapes = ladder_of(Settings(model="x", shapes=ShapeChoice(**ladder)))
    names = [program.name for program in programs(model_spec(tiny_model(), 64), shapes)]
    assert program_count(shapes) == len(names) == len(set(names))


def _check_slots(**given: Any) -> None:
    settings = Settings(model="x", **given)
    check_slots(settings, mesh_of(settings))


def test_devices_are_checked_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mesh_of(Settings(model="x")) is None
    with pytest.raises(InvalidInputError, match="needs 64 devices") as caught:
        mesh_of(Settings(model="x", model_devices=64))
    assert caught.value.field == "model_devices"
    monkeypatch.setattr("chorus_server.model.mesh.device_mesh", abstract_mesh)
    found = mesh_of(Settings(model="x", model_devices=4, data_devices=2))
    assert found is not None and (found.data, found.model) == (2, 4)
    with pytest.raises(
        InvalidInputError, match=r"data axis of 3 devices .* 16 slots of block 128x64x16"
    ) as caught:
        _check_slots(data_devices=3, shapes={"blocks": ((512, 64, 3), (128, 64, 16))})
    assert caught.value.field == "shapes.blocks"


def test_a_ladder_of_too_many_programs_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    lengths, data = tuple(range(2, 514, 2)), tmp_path / "data"
    with pytest.raises(InvalidInputError) as caught:
        build_app(Settings(model="x", shapes=ShapeChoice(input_lengths=lengths), data_dir=data))
    assert caught.value.field == "shapes" and not data.exists()
    count = program_count(build_ladder(lengths))
    for words in (f"{count} compiled", f"{len(lengths)} input_lengths", "2 batch_rows", "blocks", "buckets"):
        assert words in caught.value.message
    counts = [program_count(build_ladder(lengths[: n + 1])) for n in range(len(lengths))]
    most = sum(count <= MAX_PROGRAMS for count in counts)
    ladder_of(Settings(model="x", shapes=ShapeChoice(input_lengths=lengths[:most])))
    with pytest.raises(InvalidInputError):
        ladder_of(Settings(model="x", shapes=ShapeChoice(input_lengths=lengths[: most + 1])))


def test_a_start_that_compiles_for_too_long_gives_up() -> None:
    with pytest.raises(NotReadyError, match="3 of 45 programs took 3601 s"):
        check_compile_time(Compiled(45, 0, MAX_COMPILE_SECONDS + 1), 3)
    check_compile_time(Compiled(45, 0, MAX_COMPILE_SECONDS), 3)
    check_compile_time(Compiled(45, 0, MAX_COMPILE_SECONDS + 1), 45)


def test_shapes_are_those_of_the_preset_but_for_the_lists_that_are_given() -> None:
    assert ladder_of(Settings(model="x")) == build_ladder()
    for name, preset in PRESETS.items():
        assert ladder_of(Settings(shapes=ShapeChoice(preset=name))) == build_ladder(*preset), name
    few = Settings(shapes=ShapeChoice(preset="large", batch_rows=(2,), score_buckets=((3, 16),)))
    large = PRESETS["large"]
    assert ladder_of(few) == build_ladder(large.input_lengths, (2,), large.blocks, ((3, 16),))
    assert set(get_args(ShapeChoice.model_fields["preset"].annotation)) == {"auto", *PRESETS}


def test_score_buckets_of_labels_and_tokens_are_refused_with_their_new_meaning() -> None:
    with pytest.raises(InvalidInputError, match=r"INPUTSxNODES.*no longer LABELSxTOKENS") as caught:
        ladder_of(Settings(shapes=ShapeChoice(score_buckets=((8, 8),))))
    assert caught.value.field == "shapes.score_buckets"
    assert ladder_of(Settings(shapes=ShapeChoice(score_buckets=((8, 8), (1, 16))))).tree_sizes == (8, 16)


def test_every_compiled_pass_may_run() -> None:
    assert engine_config(Settings(), 1).prefill_token_budget == EngineConfig().prefill_token_budget == 4096
    assert engine_config(Settings(shapes=ShapeChoice(preset="small")), 1).prefill_token_budget == 4096
    assert engine_config(Settings(shapes=ShapeChoice(preset="large")), 1).prefill_token_budget == 32 * 512


def test_the_engine_gets_its_settings() -> None:
    told: dict[str, Any] = {
        "max_queued_requests": 7,
        "step_timeout_seconds": 1.5,
        "batch_invariant": True,
    }
    shapes = ShapeChoice(decode_tokens_per_dispatch=6)
    given = Settings(model="x", compute_dtype="f32", shapes=shapes, max_deadline_seconds=4.5, **told)
    config = engine_config(given, eos_id=3)
    told |= {"decode_tokens_per_dispatch": 6, "default_deadline_seconds": 4.5}
    assert {name: getattr(config, name) for name in told} == told
    assert config.eos_id == 3
    assert engine_config(Settings(model="x", step_timeout_seconds=0), 1).step_timeout_seconds is None


def test_the_settings_defaults_are_the_engines() -> None:
    config, default = engine_config(Settings(model="x"), 1), EngineConfig()
    for name in (
        "prefill_token_budget",
        "decode_tokens_per_dispatch",
        "step_timeout_seconds",
    ):
        assert getattr(config, name) == getattr(default, name), name


def test_slots_are_checked_before_loading_only_where_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chorus_server.model.mesh.device_mesh", abstract_mesh)
    with pytest.raises(InvalidInputError, match="does not divide the"):
        _check_slots(data_devices=3)  # a CPU: the slots are those of `medium`
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    _check_slots(data_devices=3)  # `auto` will choose multiples of 3
    with pytest.raises(InvalidInputError, match="does not divide the"):
        _check_slots(data_devices=3, shapes="medium")


def test_a_model_too_large_for_its_device_is_refused_before_it_is_read() -> None:
    said: list[str] = []
    with pytest.raises(InvalidInputError, match=r"The weights of .* take") as caught:
        load(Settings(memory_limit_bytes=1_000_000), said.append)
    assert caught.value.code == "memory_plan"
    assert not [line for line in said if "MiB" in line]  # nothing was read


def test_the_ready_line_tells_what_compiling_cost() -> None:
    assert str(Compiled(45, 0, 12.34)) == "45 programs in 12.3 s"
    assert str(Compiled(45, 44, 0.96)) == "45 programs in 1.0 s, 44 of them from the compile cache"


def test_an_app_closes_before_it_was_brought_up(tmp_path: Path) -> None:
    close_app(build_app(Settings(model="x", data_dir=tmp_path)))


def test_what_is_imported_is_excluded_from_collections() -> None:
    before = gc.get_freeze_count()
    with importing():
        made = [[] for _ in range(1000)]
        assert not gc.isenabled()
        assert gc.get_freeze_count() == before  # the control
    assert gc.isenabled() and gc.get_freeze_count() - before > len(made)


def test_what_is_alive_when_the_server_is_ready_costs_no_collection_anything() -> None:
    def collecting() -> float:
        started = time.thread_time()
        gc.collect()
        return time.thread_time() - started

    alive = [[] for _ in range(300_000)]
    control = collecting()
    spare_collections()
    assert min(collecting() for _ in range(5)) < control / 10  # the least: a busy machine adds to some
    assert len(alive) == 300_000


def test_a_full_queue_is_gone_through_once() -> None:
    """2,048 requests that wait are half a million objects. To go through them again and again costs a tenth
    of the time, and stops every refusal for as long as it takes; so does going through many at once."""
    generations: Counter[int] = Counter()

    def seen(phase: str, told: dict[str, int]) -> None:
        if phase == "start":
            generations[told["generation"]] += 1

    def fill() -> Counter[int]:
        generations.clear()
        gc.callbacks.append(seen)
        waiting = [[[] for _ in range(256)] for _ in range(2048)]
        gc.callbacks.remove(seen)
        assert len(waiting) == 2048
        return generations.copy()

    thresholds = gc.get_threshold()
    try:
        spare_collections()
        filled = fill()
        gc.set_threshold(5_000, 10)  # the control: what is waiting is gone through again
        assert set(fill()) > {0}
    finally:
        gc.set_threshold(*thresholds)
    assert set(filled) == {0}
    assert 500 <= filled[0] <= 600, "a thousand at a time"
