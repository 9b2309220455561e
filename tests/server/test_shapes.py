"""What `shapes = auto` chooses by platform, memory and model: by hand, within bounds, and on simulated
devices."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from chorus_server.app import engine_config, ladder_of
from chorus_server.engine.ladder import PRESETS, build_ladder, program_count
from chorus_server.engine.limits import Limits
from chorus_server.errors import InvalidInputError
from chorus_server.model.config import named_config
from chorus_server.model.mesh import abstract_mesh
from chorus_server.settings import Settings
from chorus_server.settings.values import ShapeChoice
from chorus_server.shapes import Deployment, Shapes, cost_table, shape_costs, shapes_of
from tests.places import IMPORTS, python_module
from tests.server.engine.executor.test_mesh import FLAGS

CARD_80, CARD_141 = 60.0, 105.75
"""GB that JAX finds on cards of 80 and 141 GB: three quarters, unless it is told otherwise."""


def _on(
    size: str, platform: str, gigabytes: float, data: int = 1, model: int = 1, dtype: str = "bfloat16"
) -> Deployment:
    mesh = abstract_mesh(data, model) if data * model > 1 else None
    return Deployment(named_config(size), platform, int(gigabytes * 0.9e9), dtype, dtype, mesh)


def test_a_cpu_gets_what_it_got_before_there_was_a_choice() -> None:
    for deployment in (_on("tiny", "cpu", 1), _on("xxl", "cpu", 500), _on("base", "cpu", 64, 2, 2)):
        found = shapes_of(Settings(), deployment)
        assert found.lists == PRESETS["medium"]
        assert (found.prompt_rows, found.decode_tokens_per_dispatch) == (8192, 4)
        assert program_count(found.ladder) == 36
    assert shapes_of(Settings(), _on("xxl", "another", 500)).lists == PRESETS["medium"]


@pytest.mark.parametrize(
    ("deployment", "batch_rows", "blocks", "prompt_rows", "tokens"),
    [
        (_on("xxl", "gpu", CARD_80), (1, 8), ((256, 64, 48), (512, 256, 24)), 65_536, 4),
        (_on("xxl", "gpu", CARD_141), (1, 8), ((256, 64, 120), (512, 256, 56)), 131_072, 4),
        (_on("xl", "gpu", CARD_80), (1, 8, 32), ((256, 64, 144), (512, 256, 72)), 131_072, 4),
        (
            _on("large", "gpu", CARD_80),
            (1, 16, 64),
            ((128, 64, 256), (256, 64, 256), (512, 256, 128)),
            262_144,
            4,
        ),
        (
            _on("small", "gpu", CARD_80),
            (1, 16, 64),
            ((128, 64, 256), (256, 64, 256), (512, 256, 128)),
            262_144,
            16,
        ),
        (_on("xxl", "tpu", 16, 1, 4), (1, 8), ((256, 64, 56), (512, 256, 24)), 65_536, 4),
        (_on("xxl", "tpu", 16, 1, 8), (1, 4, 16), ((256, 64, 152), (512, 256, 72)), 131_072, 4),
        (_on("xxl", "tpu", 16, 2, 4), (1, 8), ((256, 64, 112), (512, 256, 48)), 65_536, 4),
        (_on("large", "tpu", 16), (1, 4, 16), ((256, 64, 80), (512, 256, 40)), 65_536, 4),
    ],
)
def test_the_table_of_the_decision(
    deployment: Deployment, batch_rows: Any, blocks: Any, prompt_rows: int, tokens: int
) -> None:
    found = shapes_of(Settings(), deployment)
    assert found.lists == PRESETS["medium"]._replace(batch_rows=batch_rows, blocks=blocks)
    assert (found.prompt_rows, found.decode_tokens_per_dispatch) == (prompt_rows, tokens)


def test_slots_of_xxl_by_hand() -> None:
    """Half of what weights, prompts and a prefill step leave, in steps of 8 slots."""
    deployment = _on("xxl", "gpu", CARD_80)
    plan = deployment.plan(shapes_of(Settings(), deployment).ladder, 65_536)
    position = 24 * 2 * 64 * 64 * 2  # keys and values of 24 layers, 64 heads of 64, two bytes
    left = plan.limit - plan.weights - plan.prompt_rows - plan.tokens - plan.activations
    pair = 2 * (256 + 64) + (512 + 256)  # positions of two slots of the shorter block, one of the longer
    assert left / 2 // (pair / 2 * position) // 8 * 8 == 48
    assert plan.encoder_memory + plan.slots < left / 2
    # A prefill step is long enough to be bound by products, and short enough to be waited for.
    encoder = 24 * (4 * 4096**2 + 3 * 4096 * 10240)
    assert 2 * 8 * 512 * encoder < 40e12 < 2 * 16 * 512 * encoder


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
@pytest.mark.parametrize("size", ["small", "base", "large", "xl", "xxl"])
def test_whatever_is_chosen_fits_and_promises_the_same(platform: str, size: str) -> None:
    promised, slots = Limits(ladder_of(Settings())), 0
    for gigabytes in (6, 8, 12, 16, 24, 40, 48, 60, 80, 106, 141, 192):
        deployment = _on(size, platform, gigabytes)
        found = shapes_of(Settings(), deployment)
        plan, limits = deployment.plan(found.ladder, found.prompt_rows), Limits(found.ladder)
        assert limits.max_input_tokens == promised.max_input_tokens == 512
        assert limits.max_target_tokens == promised.max_target_tokens
        assert found.ladder.max_new_tokens == 256 and found.prompt_rows >= 8192
        assert program_count(found.ladder) <= 50
        least = found.lists.batch_rows == (1,) and {block[2] for block in found.lists.blocks} == {8}
        assert plan.total <= plan.limit or least
        if plan.total > plan.limit:
            with pytest.raises(InvalidInputError) as caught:
                plan.check()
            assert caught.value.code == "memory_plan"
        # More memory never means fewer slots, for as many prompts.
        most = (
            shapes_of(Settings(prompt_rows=8192, shapes=ShapeChoice(batch_rows=(1, 8))), deployment)
            .ladder.blocks[-1]
            .slots
        )
        assert most >= slots
        slots = most


def test_what_is_given_wins_and_the_rest_is_fitted_around_it() -> None:
    deployment = _on("xxl", "gpu", CARD_80)
    alone = shapes_of(Settings(), deployment)
    rows = shapes_of(Settings(shapes=ShapeChoice(batch_rows=(1, 32))), deployment)
    assert rows.lists.batch_rows == (1, 32)
    assert rows.lists.blocks[0][2] < alone.lists.blocks[0][2]  # longer prefill steps leave less
    blocks = ((512, 256, 96),)
    tight = shapes_of(Settings(shapes=ShapeChoice(blocks=blocks)), deployment)
    assert tight.lists.blocks == blocks and tight.lists.batch_rows == (1,)
    own = ShapeChoice(decode_tokens_per_dispatch=2, score_buckets=((3, 16),))
    given = Settings(prompt_rows=100, shapes=own)
    found = shapes_of(given, deployment)
    assert (found.prompt_rows, found.decode_tokens_per_dispatch) == (100, 2)
    assert found.lists.score_buckets == ((3, 16),)
    lengths = shapes_of(
        Settings(shapes=ShapeChoice(input_lengths=(64, 320))), _on("small", "gpu", CARD_80)
    ).lists.blocks
    assert [block[0] for block in lengths] == [128, 512]  # no input needs one of 256
    for name, preset in PRESETS.items():
        assert shapes_of(Settings(shapes=ShapeChoice(preset=name)), deployment).lists == preset  # type: ignore[arg-type]


def test_matrices_count_in_their_own_type() -> None:
    narrow = Deployment(named_config("xl"), "gpu", int(24e9), "float32", "bfloat16")
    wide = Deployment(named_config("xl"), "gpu", int(24e9), "float32", "float32")
    slots = [shapes_of(Settings(), each).ladder.blocks[0].slots for each in (narrow, wide)]
    assert slots[0] > slots[1]


def test_weights_that_do_not_fit_are_refused_by_arithmetic() -> None:
    for deployment in (_on("xxl", "gpu", 24), _on("xxl", "tpu", 16)):
        with pytest.raises(
            InvalidInputError, match=r"weights of t5-1.1-xxl take 20.7 GiB .* model_devices"
        ) as e:
            deployment.check_weights()
        assert e.value.code == "memory_plan" and e.value.field == "model_devices"
    _on("xxl", "tpu", 16, 1, 2).check_weights()


def test_the_settings_of_a_choice_ask_for_it_again() -> None:
    deployment = _on("large", "tpu", 16, 8, 1)
    found = shapes_of(Settings(), deployment)
    given = Settings(**found.settings)
    again = shapes_of(given, deployment)
    assert isinstance(again, Shapes)
    assert (again.lists, again.prompt_rows) == (found.lists, found.prompt_rows)
    assert ladder_of(given) == found.ladder == build_ladder(*found.lists)
    assert engine_config(given, 1).decode_tokens_per_dispatch == found.decode_tokens_per_dispatch


def test_the_costs_are_the_plans_and_the_programs() -> None:
    deployment = _on("xxl", "gpu", CARD_80)
    found = shapes_of(Settings(), deployment)
    plan = deployment.plan(found.ladder, found.prompt_rows)
    costs = shape_costs(found, plan)
    assert sum(each.bytes for each in costs) == plan.total - plan.weights
    assert sum(each.programs for each in costs) == program_count(found.ladder) == 32
    table = cost_table(found, plan)
    for words in (
        "auto, chosen for gpu with 50.3 GiB",
        "256x64x48,512x256x24",
        "12,674.6",
        "to compile",
        "32",
    ):
        assert words in table


def test_a_start_says_what_was_given_in_place_of_a_presets_lists() -> None:
    cpu, gpu = _on("small", "cpu", CARD_80), _on("small", "gpu", CARD_80)
    rows = {"batch_rows": (1, 4)}
    for deployment, given, words in (
        (cpu, ShapeChoice(preset="small", **rows), "small batch_rows=1,4"),
        (cpu, ShapeChoice(**rows), "medium batch_rows=1,4, chosen for cpu"),
        (gpu, ShapeChoice(**rows), "auto batch_rows=1,4, chosen for gpu with"),
    ):
        assert shapes_of(Settings(shapes=given), deployment).chosen.startswith(words)


def test_a_choice_is_what_simulated_devices_allocate() -> None:
    done = subprocess.run(
        python_module("tests.server.shapes_child"),
        env={**os.environ, **IMPORTS, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["held"] == [found["planned"]] * 8
    assert found["total"] <= found["limit"] and found["rows"] == [1, 8]
    assert {block[2] % 16 for block in found["blocks"]} == {0}
