"""What is cut and what is not, and what is said where nothing divides."""

from __future__ import annotations

from dataclasses import replace

import jax
import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.model.config import named_config
from chorus_server.model.mesh import abstract_mesh, check_division, device_mesh
from chorus_server.model.parameters import parameter_axes, parameter_shapes
from chorus_server.model.t5 import build


def test_one_axis_of_every_matrix_is_cut_and_norms_are_whole() -> None:
    config, mesh = named_config("base"), abstract_mesh(2, 4)
    axes = parameter_axes(config)
    for name, shape in parameter_shapes(config).items():
        part = mesh.weight(axes[name]).shard_shape(shape)
        cut = [whole // own for whole, own in zip(shape, part, strict=True)]
        assert sorted(cut) == ([1] if name.endswith("norm") else [1, 4]), name
    assert mesh.weight(axes["embedding"]).shard_shape((32128, 768)) == (32128, 192)  # a lookup needs no other
    assert mesh.weight(axes["head"]).shard_shape((768, 32128)) == (768, 8032)
    assert (mesh.size, mesh.data, mesh.model) == (8, 2, 4)


def test_a_batch_that_does_not_divide_is_whole_on_every_part_of_the_data_axis() -> None:
    mesh = abstract_mesh(2, 4)
    assert mesh.rows(8, 1).shard_shape((8, 64)) == (4, 64)
    assert mesh.rows(1, 1).shard_shape((1, 64)) == (1, 64)


@pytest.mark.parametrize(
    ("change", "model", "words"),
    [
        ({}, 4, "num_heads 6 .* one of 1, 2, and"),
        ({"num_heads": 8, "d_ff": 1026}, 4, "d_ff 1026"),
        ({"num_heads": 8, "padded_vocab_size": 32130}, 4, "padded_vocab_size 32130"),
        ({"num_heads": 8, "d_model": 514}, 4, "d_model 514"),
    ],
)
def test_an_axis_that_does_not_divide_is_named_with_the_setting(
    change: dict[str, int], model: int, words: str
) -> None:
    config = replace(named_config("small"), **change)
    with pytest.raises(
        InvalidInputError, match=f"{model} devices of the model axis do not divide {words}"
    ) as e:
        build(config, mesh=abstract_mesh(1, model))
    assert e.value.field == "model_devices"
    check_division(config, 2)


def test_more_devices_than_there_are_is_an_error_that_names_the_settings() -> None:
    have = len(jax.devices())
    with pytest.raises(InvalidInputError, match=f"data_devices 2 x model_devices {have} needs {2 * have}"):
        device_mesh(2, have)
