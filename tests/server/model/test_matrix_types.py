from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.engine.executor.build import model_spec
from chorus_server.engine.executor.programs import programs
from chorus_server.engine.executor.testing import tiny_model
from chorus_server.engine.ladder import tiny_ladder
from chorus_server.model import layers, matrix_types
from chorus_server.model.matrix_types import choose_matrix_dtype, processor_flags

CPUINFO = Path(__file__).parent / "cpuinfo"
"""Flags of one core, by Linux's names: those of a machine (epyc_genoa), and what other processors have."""


@pytest.mark.parametrize(
    ("processor", "dtype", "because"),
    [
        ("sapphire_rapids", "bfloat16", "AMX-BF16"),
        ("epyc_genoa", "bfloat16", "AVX-512 BF16"),
        ("skylake_server", "float32", "not known"),
        ("epyc_rome", "float32", "not known"),
        ("graviton_3", "float32", "not known"),
    ],
)
def test_auto_is_bf16_where_the_processor_multiplies_it(processor: str, dtype: str, because: str) -> None:
    flags = processor_flags((CPUINFO / f"{processor}.txt").read_text())
    found, why = choose_matrix_dtype("auto", "float32", "cpu", flags)
    assert found == dtype and because in why
    assert f"matrix_dtype={'f32' if dtype == 'bfloat16' else 'bf16'}" in why


def test_what_is_asked_for_is_taken() -> None:
    for flags in (frozenset[str](), frozenset({"amx_bf16"})):
        assert choose_matrix_dtype("f32", "float32", "cpu", flags) == ("float32", "asked for")
        assert choose_matrix_dtype("bf16", "float32", "cpu", flags) == ("bfloat16", "asked for")
        assert choose_matrix_dtype("f32", "bfloat16", "gpu", flags)[0] == "float32"


def test_elsewhere_auto_is_the_compute_type() -> None:
    """A card does not care what the processor beside it can do."""
    for platform in ("gpu", "tpu"):
        assert choose_matrix_dtype("auto", "bfloat16", platform, {"amx_bf16"})[0] == "bfloat16"
        assert choose_matrix_dtype("auto", "float32", platform, {"amx_bf16"})[0] == "float32"
    assert choose_matrix_dtype("auto", "bfloat16", "cpu", ())[0] == "bfloat16"


def test_every_core_must_have_it() -> None:
    flags = processor_flags("flags\t\t: fpu avx512_bf16 amx_bf16\n\nflags\t\t: fpu avx512_bf16\n")
    assert flags == {"fpu", "avx512_bf16"}


def test_a_machine_that_tells_nothing_has_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(matrix_types, "_CPU_INFO", tmp_path / "absent")
    assert processor_flags() == frozenset()
    assert choose_matrix_dtype("auto", "float32", "cpu", processor_flags())[0] == "float32"


def _products(text: str) -> list[tuple[str, str, str]]:
    """(left, right, result) types of the products in StableHLO."""
    found = re.findall(
        r"stablehlo\.dot_general.*: \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>", text
    )
    return [
        (left.split("x")[-1], right.split("x")[-1], result.split("x")[-1]) for left, right, result in found
    ]


def _lowered() -> dict[str, str]:
    """The executor's programs with matrices in bf16, before XLA's passes: the same on every processor."""
    model = tiny_model(matrix_dtype="bfloat16")
    every = list(programs(model_spec(model, 64), tiny_ladder()))
    names = ("encode", "decode", "score")  # admission only copies
    first = {name: next(each for each in every if each.name.startswith(name)) for name in names}
    return {name: each.jit().lower(*each.arguments).as_text() for name, each in first.items()}


def _faults(lowered: dict[str, str]) -> list[str]:
    """Programs with a product of bf16 that does not add in f32, or with a matrix converted to f32."""
    faults = [
        name
        for name, text in lowered.items()
        for left, right, result in _products(text)
        if "bf16" in (left, right) and (left, right, result) != ("bf16", "bf16", "f32")
    ]
    widened = r"stablehlo\.convert .*: \(tensor<[\dx]*xbf16>\) -> tensor<[\dx]*xf32>"
    return faults + [name for name, text in lowered.items() if re.search(widened, text)]


def test_products_of_bf16_add_in_f32_and_no_weight_is_widened() -> None:
    """XLA would otherwise convert whole matrices at each step, and be no faster than in f32."""
    lowered = _lowered()
    for name, text in lowered.items():
        assert ("bf16", "bf16", "f32") in _products(text), name
    assert _faults(lowered) == []


def _summed_in_bf16(x: Any, weight: Any, dtype: Any) -> Any:
    matrix = weight[...]
    return jnp.matmul(x.astype(matrix.dtype), matrix).astype(dtype)


def _widened(x: Any, weight: Any, dtype: Any) -> Any:
    return jnp.matmul(x, weight[...].astype(dtype))


@pytest.mark.parametrize("careless", [_summed_in_bf16, _widened])
def test_control_products_of_another_kind_are_caught(monkeypatch: pytest.MonkeyPatch, careless: Any) -> None:
    monkeypatch.setattr(layers, "multiply", careless)
    assert set(_faults(_lowered())) >= {"encode", "decode", "score"}


def test_a_product_of_bf16_is_that_of_its_rounded_operands() -> None:
    random = np.random.default_rng(0)
    left, right = (random.normal(size=shape).astype(np.float32) for shape in ((5, 64), (64, 7)))
    rounded = [np.asarray(jnp.asarray(each, jnp.bfloat16), np.float64) for each in (left, right)]
    product = jax.lax.dot(
        jnp.asarray(left, jnp.bfloat16), jnp.asarray(right, jnp.bfloat16), preferred_element_type=jnp.float32
    )
    assert np.abs(np.asarray(product) - rounded[0] @ rounded[1]).max() < 1e-4
