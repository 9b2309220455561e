"""The memory plan equals what is allocated, and refuses what does not fit."""

from __future__ import annotations

from typing import Any

import jax
import pytest

from chorus_server.engine.executor import build_executor
from chorus_server.engine.executor.lanes import run_apart, temporaries_at_once
from chorus_server.engine.executor.places import Places
from chorus_server.engine.executor.testing import MemoryPrompts, tiny_model
from chorus_server.engine.ladder import build_ladder
from chorus_server.engine.memory_plan import device_limit, plan_memory
from chorus_server.errors import InvalidInputError
from chorus_server.model.config import named_config

LADDER = build_ladder((8,), (2,), ((8, 4, 4), (8, 8, 2)), (), rows_per_load=4)


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("matrix_dtype", [None, "bfloat16"])
def test_the_plan_is_what_the_executor_allocates(matrix_dtype: str | None) -> None:
    model = tiny_model(matrix_dtype=matrix_dtype)
    executor, plan = build_executor(model, LADDER, 16, MemoryPrompts())
    blocks = [block.state for block in executor._blocks]
    assert plan.weights == _bytes(model.params)
    assert plan.prompt_rows == executor._table.nbytes
    assert plan.encoder_memory == sum(_bytes(block.memory) for block in blocks)
    assert plan.tokens == _bytes(executor._tokens)
    slots = [(block.cache, block.beams, block.slots, block.memory_lengths) for block in blocks]
    assert plan.slots == _bytes(slots)
    needed = executor.compiled.temporary_bytes
    assert plan.temporaries == temporaries_at_once(executor.compiled, LADDER, run_apart(Places()))
    # Both blocks and the encoder at once, each with its largest program.
    own = [max(size for name, size in needed.items() if f"{n}x" in name) for n in ("8x4", "8x8")]
    encoder = max(size for name, size in needed.items() if name.startswith(("encode", "load", "empty")))
    assert plan.temporaries == sum(own) + encoder > max(needed.values())
    assert temporaries_at_once(executor.compiled, LADDER, apart=False) == max(needed.values())
    assert plan.total <= plan.limit and plan.limit == device_limit()


def test_a_plan_that_does_not_fit_is_refused_before_anything_is_compiled() -> None:
    class Abstract:
        """Fails when anything but arithmetic touches the model."""

        config, dtype, matrix_dtype = named_config("xxl"), "bfloat16", "bfloat16"
        params, functions, mesh = None, None, None

    with pytest.raises(
        InvalidInputError, match=r"needs .* MiB of memory and may use .* change compute_dtype"
    ) as caught:
        build_executor(Abstract(), build_ladder(), 4096, MemoryPrompts(), memory_limit_bytes=2**34)
    assert caught.value.code == "memory_plan" and caught.value.field == "compute_dtype"


def test_temporaries_count_once_they_are_known() -> None:
    plan = plan_memory(named_config("tiny"), LADDER, 16, "float32", limit=1_000_000)
    plan.check()
    with pytest.raises(InvalidInputError, match="XLA temporaries") as caught:
        plan.with_temporaries(2_000_000).check()
    assert caught.value.field == "input_lengths"


def test_the_table_names_every_use_and_the_sum() -> None:
    plan = plan_memory(named_config("xl"), build_ladder(), 10_000, "bfloat16", limit=2**40)
    table = plan.table()
    for use in (
        "weights",
        "prompt rows",
        "encoder memory",
        "tokens",
        "slots",
        "activations",
        "temporaries",
        "total",
        "limit",
    ):
        assert use in table
    assert plan.weights == 2 * 2_849_757_184
    assert plan.prompt_rows == 10_000 * 2048 * 2
    # 24 layers, keys and values, 32 heads of 64, two bytes.
    assert plan.encoder_memory == (128 * 16 + 256 * 16 + 512 * 8) * 24 * 2 * 32 * 64 * 2


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"input_lengths": ()}, "input_lengths"),
        ({"batch_rows": (0,)}, "batch_rows"),
        ({"blocks": ((8, 4),)}, "blocks.0"),
        ({"blocks": ((8, 4, -1),)}, "blocks.0"),
        ({"input_lengths": (64, 1024)}, "blocks"),
        ({"score_buckets": ((1, 2, 3),)}, "score_buckets.0"),
        ({"score_buckets": ((1, 2),)}, "score_buckets"),
        ({"rows_per_load": 0}, "rows_per_load"),
    ],
)
def test_a_bad_ladder_is_refused_by_setting(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        build_ladder(**settings)
    assert caught.value.field == field
