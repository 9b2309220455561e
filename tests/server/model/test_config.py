"""Sizes, parameter counts and the paper's Table 4."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from chorus_server.errors import InvalidModelError
from chorus_server.model.config import T5Config, named_config
from chorus_server.model.parameters import parameter_axes, parameter_count, parameter_shapes, prompt_table

PUBLISHED = {
    "small": 76_961_152,
    "base": 247_577_856,
    "large": 783_150_080,
    "xl": 2_849_757_184,
    "xxl": 11_135_332_352,
}


@pytest.mark.parametrize(("size", "count"), PUBLISHED.items())
def test_named_sizes_have_the_published_parameter_counts(size: str, count: int) -> None:
    assert parameter_count(named_config(size)) == count


def test_table_4_of_the_paper_for_small() -> None:
    table = prompt_table(named_config("small"))
    assert [row.length for row in table] == [1, 5, 20, 50, 100, 150]
    assert [row.prompt_parameters for row in table] == [512, 2560, 10240, 25600, 51200, 76800]
    assert table[0].total_parameters == 76_961_664
    assert f"{table[4].trainable_percent:.5f}" == "0.06648"


def test_t5_1_0_has_no_head_and_one_inner_matrix() -> None:
    config = dataclasses.replace(named_config("tiny"), tied=True, gated=False, activation="relu")
    names = parameter_shapes(config)
    assert "head" not in names
    assert names["encoder.layers.0.feed_forward.wi"] == (26, 37)
    assert not any("wi_0" in name for name in names)


def test_every_tensor_has_axis_names_of_its_rank() -> None:
    config = named_config("tiny")
    shapes, axes = parameter_shapes(config), parameter_axes(config)
    assert shapes.keys() == axes.keys()
    assert all(len(shapes[name]) == len(axes[name]) for name in shapes)


def test_config_is_hashable_and_equal_by_value() -> None:
    assert hash(named_config("base")) == hash(named_config("base"))
    assert named_config("base") != named_config("large")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"d_model": 0}, "d_model"),
        ({"padded_vocab_size": 10}, "padded_vocab_size"),
        ({"relative_buckets": 7}, "relative_buckets"),
        ({"relative_max_distance": 16}, "relative_max_distance"),
        ({"activation": "silu"}, "activation"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidModelError) as error:
        dataclasses.replace(named_config("tiny"), **change)  # type: ignore[arg-type]
    assert error.value.field == field


def test_unknown_size_lists_the_known_ones() -> None:
    with pytest.raises(InvalidModelError, match="tiny, small, base, large, xl, xxl"):
        named_config("huge")


def test_reading_a_config_imports_no_jax() -> None:
    code = "import sys, chorus_server.model.config; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_smallest_config_counts_by_hand() -> None:
    config = T5Config("hand", 5, 6, d_model=2, d_kv=3, d_ff=5, num_heads=1, num_encoder_layers=1,
                      num_decoder_layers=1, relative_buckets=4, relative_max_distance=8)  # fmt: skip
    attention, feed_forward, norm = 4 * 2 * 3, 3 * 2 * 5, 2
    encoder = attention + feed_forward + 2 * norm + norm + 4
    decoder = 2 * attention + feed_forward + 3 * norm + norm + 4
    assert parameter_count(config) == 2 * 6 * 2 + encoder + decoder
