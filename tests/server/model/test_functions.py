"""The pure functions: one path agrees with another, and nothing is read beyond a length."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.errors import InvalidModelError
from chorus_server.model.config import T5Config, named_config
from chorus_server.model.decoding import greedy_tokens
from chorus_server.model.functions import TARGET_CHUNK, Functions
from chorus_server.model.layout import LAYOUTS, Layout
from chorus_server.model.parameters import is_matrix
from chorus_server.model.t5 import Model, assemble, build, random_tensors, tensors_of

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CONFIG = named_config("tiny")
V = CONFIG.padded_vocab_size
OLD = dataclasses.replace(CONFIG, tied=True, gated=False, activation="relu")


@cache
def _model(layout: Layout = "unrolled", config: T5Config = CONFIG, dtype: str = "float32") -> Model:
    return assemble(config, layout, dtype, random_tensors(config, 3))


@cache
def _jitted(functions: Functions, name: str) -> Any:
    """Compiled once for all tests of a model."""
    return jax.jit(getattr(functions, name))


def _inputs(B: int = 3, L: int = 11) -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((9, CONFIG.d_model)).astype(np.float32)
    ids = generator.integers(0, V + 9, (B, L)).astype(np.int32)
    return rows, ids, generator.integers(2, L + 1, B).astype(np.int32)


@pytest.mark.parametrize("config", [CONFIG, OLD], ids=["t5_1_1", "t5_1_0"])
def test_both_layouts_give_the_same_numbers(config: T5Config) -> None:
    rows, ids, lengths = _inputs()
    targets = np.array([[[5, 9, 1, 0], [4, 1, 0, 0]]] * 3, np.int32)
    target_lengths = np.array([[3, 2]] * 3, np.int32)
    found = []
    for layout in LAYOUTS:
        model = _model(layout, config)
        encoded = _jitted(model.functions, "encode")(model.params, rows, ids, lengths)
        found.append(
            _jitted(model.functions, "decode_targets")(
                model.params, encoded, lengths, targets, target_lengths
            )
        )
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", [CONFIG, OLD], ids=["t5_1_1", "t5_1_0"])
def test_steps_give_the_logits_of_teacher_forcing(layout: Layout, config: T5Config) -> None:
    model = _model(layout, config)
    functions = model.functions
    rows, ids, lengths = _inputs()
    T = 140
    targets = np.random.default_rng(2).integers(0, V, (3, 1, T)).astype(np.int32)
    encoded = _jitted(functions, "encode")(model.params, rows, ids, lengths)
    whole = np.full((3, 1), T, np.int32)
    forced = np.asarray(_jitted(functions, "decode_targets")(model.params, encoded, lengths, targets, whole))[
        :, 0
    ]

    def body(carry: tuple[Any, Any], position: Any) -> tuple[tuple[Any, Any], Any]:
        cache, tokens = carry
        logits, cache = functions.decode_step(
            model.params, cache, memory, jnp.asarray(lengths), tokens, jnp.full(3, position)
        )
        return (cache, targets_by_position[position]), logits

    memory = _jitted(functions, "encoder_memory")(model.params, encoded, lengths)
    targets_by_position = jnp.asarray(targets[:, 0].T)
    start = (functions.init_cache(3, T), jnp.zeros(3, jnp.int32))
    stepped = jax.jit(lambda: jax.lax.scan(body, start, jnp.arange(T))[1])()
    np.testing.assert_allclose(np.asarray(stepped).transpose(1, 0, 2), forced, rtol=1e-4, atol=1e-5)


def test_slots_at_different_positions_share_a_step() -> None:
    model = _model()
    functions = model.functions
    rows, ids, lengths = _inputs()
    encoded = _jitted(functions, "encode")(model.params, rows, ids, lengths)
    memory = _jitted(functions, "encoder_memory")(model.params, encoded, lengths)
    expected = greedy_tokens(model, encoded, jnp.asarray(lengths), 6)
    step = _jitted(functions, "decode_step")
    cache = functions.init_cache(3, 6)
    late = [0, 2, 3]  # slot s starts this many steps late
    tokens, said = np.zeros(3, np.int32), [[] for _ in range(3)]  # type: ignore[var-annotated]
    for clock in range(9):
        positions = np.clip(clock - np.array(late), 0, 5).astype(np.int32)
        logits, cache = step(model.params, cache, memory, lengths, tokens, positions)
        for slot in range(3):
            if late[slot] <= clock < late[slot] + 6:
                tokens[slot] = int(logits[slot].argmax())
                said[slot].append(int(tokens[slot]))
    assert [row[: len(known)] for row, known in zip(said, expected, strict=True)] == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_memory_index_reads_another_slots_memory(layout: Layout) -> None:
    model = _model(layout)
    functions = model.functions
    rows, ids, lengths = _inputs()
    encoded = _jitted(functions, "encode")(model.params, rows, ids, lengths)
    memory = _jitted(functions, "encoder_memory")(model.params, encoded, lengths)
    tokens, positions = np.array([4, 4, 4], np.int32), np.zeros(3, np.int32)
    cache = functions.init_cache(3, 2)
    index = np.array([2, 0, 2], np.int32)
    plain, _ = _jitted(functions, "decode_step")(model.params, cache, memory, lengths, tokens, positions)
    shared, _ = _jitted(functions, "decode_step")(
        model.params, cache, memory, lengths, tokens, positions, index
    )
    np.testing.assert_allclose(shared, np.asarray(plain)[index], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_axes_of_memory_and_cache(layout: Layout) -> None:
    functions = _model(layout).functions
    for leaf in jax.tree.leaves(functions.init_memory(5, 13)):
        assert leaf.shape[functions.slot_axis] == 5
        assert leaf.shape[functions.memory_length_axis] == 13
    model = _model(layout)
    encoded = jnp.ones((5, 13, CONFIG.d_model))
    memory = _jitted(functions, "encoder_memory")(model.params, encoded, jnp.array([1, 2, 13, 0, 4]))
    assert jax.tree.structure(memory) == jax.tree.structure(functions.init_memory(5, 13))
    leaf = jnp.moveaxis(jax.tree.leaves(memory)[0], functions.slot_axis, 0)
    assert not jnp.any(leaf[3])
    assert jnp.any(leaf[4])


def test_log_probabilities_are_those_of_the_logits_across_chunks() -> None:
    model = _model()
    rows, ids, lengths = _inputs()
    B, C, T = 3, 11, 9
    assert B * C * T > TARGET_CHUNK
    generator = np.random.default_rng(5)
    targets = generator.integers(0, V, (B, C, T)).astype(np.int32)
    target_lengths = generator.integers(0, T + 1, (B, C)).astype(np.int32)
    target_lengths[0, 0] = 0
    encoded = _jitted(model.functions, "encode")(model.params, rows, ids, lengths)
    arguments = (model.params, encoded, lengths, targets, target_lengths)
    logits = np.asarray(_jitted(model.functions, "decode_targets")(*arguments), np.float64)
    found = np.asarray(_jitted(model.functions, "target_log_probabilities")(*arguments))
    for b in range(B):
        for c in range(C):
            each = [
                logits[b, c, t, targets[b, c, t]] - np.log(np.exp(logits[b, c, t]).sum())
                for t in range(target_lengths[b, c])
            ]
            assert found[b, c] == pytest.approx(sum(each), rel=1e-5, abs=1e-5)
    assert found[0, 0] == 0


def test_masks_come_from_lengths_never_from_ids() -> None:
    """A padding id inside a text is an ordinary token: moving the length past it changes the answer."""
    model = _model()
    ids = np.array([[7, 0, 0, 0]], np.int32)
    rows = np.zeros((1, CONFIG.d_model), np.float32)
    encode = _jitted(model.functions, "encode")
    short, long = (np.asarray(encode(model.params, rows, ids, np.array([n], np.int32))) for n in (1, 3))
    assert not np.any(short[0, 1:])
    assert np.any(long[0, 2])
    assert not np.allclose(short[0, 0], long[0, 0])


def test_prompt_rows_may_stand_anywhere_and_leave_no_hole() -> None:
    """A prompt given as rows of the table equals the same vectors given as embedding rows."""
    model = _model()
    embedding = np.asarray(model.params["embedding"])
    rows = embedding[[20, 21, 22]]
    as_text = np.array([[20, 5, 6, 22, 21]], np.int32)
    as_prompt = np.array([[V + 0, 5, 6, V + 2, V + 1]], np.int32)
    length = np.array([5], np.int32)
    encode = _jitted(model.functions, "encode")
    np.testing.assert_array_equal(
        encode(model.params, rows, as_text, length), encode(model.params, rows, as_prompt, length)
    )


def test_an_empty_row_is_zero_and_finite() -> None:
    model = _model()
    rows, ids, _ = _inputs()
    encoded = _jitted(model.functions, "encode")(model.params, rows, ids, np.array([0, 3, 0], np.int32))
    assert not np.any(np.asarray(encoded)[[0, 2]])
    assert np.isfinite(np.asarray(encoded)).all()


def test_numbers_are_in_the_compute_dtype_and_logits_in_f32() -> None:
    model = _model(dtype="bfloat16")
    rows, ids, lengths = _inputs()
    encoded = _jitted(model.functions, "encode")(model.params, rows, ids, lengths)
    assert encoded.dtype == jnp.bfloat16
    memory = _jitted(model.functions, "encoder_memory")(model.params, encoded, lengths)
    zeros = np.zeros(3, np.int32)
    logits, cache = _jitted(model.functions, "decode_step")(
        model.params, model.functions.init_cache(3, 2), memory, lengths, zeros, zeros
    )
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((cache, memory))} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", [CONFIG, OLD], ids=["t5_1_1", "t5_1_0"])
def test_matrices_in_bf16_leave_everything_else_in_f32(layout: Layout, config: T5Config) -> None:
    exact = _model(layout, config)
    model = assemble(config, layout, "float32", random_tensors(config, 3), matrix_dtype="bfloat16")
    dtypes = {name: array.dtype for name, array in tensors_of(model)}
    assert {dtype for name, dtype in dtypes.items() if is_matrix(name)} == {jnp.dtype(jnp.bfloat16)}
    others = {name.rsplit(".", 1)[-1]: dtype for name, dtype in dtypes.items() if not is_matrix(name)}
    assert {name for name in others if not name.endswith("norm")} == {"embedding", "relative_bias"}
    assert {*others.values()} == {jnp.dtype(jnp.float32)}
    structs = build(config, layout, "float32", matrix_dtype="bfloat16").params
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), model.params)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), structs) == shapes

    rows, ids, lengths = _inputs()
    targets = np.array([[[5, 9, 1, 0], [4, 1, 0, 0]]] * 3, np.int32)
    counts = np.array([[3, 2]] * 3, np.int32)
    found = []
    for each in (exact, model):
        encoded = _jitted(each.functions, "encode")(each.params, rows, ids, lengths)
        memory = _jitted(each.functions, "encoder_memory")(each.params, encoded, lengths)
        logits = _jitted(each.functions, "decode_targets")(each.params, encoded, lengths, targets, counts)
        assert {leaf.dtype for leaf in jax.tree.leaves((encoded, memory, logits))} == {jnp.dtype("float32")}
        found.append(np.asarray(logits))
    error = np.linalg.norm(found[1] - found[0]) / np.linalg.norm(found[0])
    assert 1e-5 < error < 0.02


def test_gradients_of_prompt_rows_pass_matrices_in_bf16() -> None:
    rows, ids, lengths = _inputs()
    ids[:, :2] = V + np.arange(6).reshape(3, 2)
    gradients = []
    for dtype in ("float32", "bfloat16"):
        model = assemble(CONFIG, "unrolled", "float32", random_tensors(CONFIG, 3), matrix_dtype=dtype)

        def loss(rows: Any, model: Model = model) -> Any:
            encoded = model.functions.encode(model.params, rows, jnp.asarray(ids), jnp.asarray(lengths))
            return (encoded**3).sum()

        gradients.append(np.asarray(jax.jit(jax.grad(loss))(rows)))
    assert gradients[1].dtype == np.float32
    error = np.linalg.norm(gradients[1] - gradients[0]) / np.linalg.norm(gradients[0])
    assert 1e-5 < error < 0.03


def test_another_dtype_of_matrices_is_refused() -> None:
    with pytest.raises(InvalidModelError, match="matrix_dtype must be float32 or bfloat16, got float16"):
        build(CONFIG, matrix_dtype="float16")


def test_a_donated_cache_is_updated_in_place_inside_a_loop() -> None:
    """No second copy of the cache among XLA's temporaries; without donation there is one."""
    model = _model()
    functions = model.functions
    S, T = 8, 512

    def loop(params: Any, cache: Any, memory: Any) -> Any:
        def body(state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            position, cache, tokens = state
            positions = jnp.full(S, position)
            logits, cache = functions.decode_step(params, cache, memory, jnp.full(S, 4), tokens, positions)
            return position + 1, cache, logits.argmax(1).astype(jnp.int32)

        state = (jnp.int32(0), cache, jnp.zeros(S, jnp.int32))
        return jax.lax.while_loop(lambda state: state[0] < T, body, state)

    cache, memory = functions.init_cache(S, T), functions.init_memory(S, 4)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(cache))
    donated = jax.jit(loop, donate_argnums=1).lower(model.params, cache, memory).compile().memory_analysis()
    kept = jax.jit(loop).lower(model.params, cache, memory).compile().memory_analysis()
    assert donated.alias_size_in_bytes >= size
    assert kept.alias_size_in_bytes < size
    assert donated.temp_size_in_bytes < size


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_reach_the_prompt_rows(layout: Layout) -> None:
    model = _model(layout)
    rows, ids, lengths = _inputs()
    ids[:, 0] = V + 2
    targets, target_lengths = jnp.array([[[5, 1]]] * 3, jnp.int32), jnp.array([[2]] * 3, jnp.int32)
    inputs = jnp.asarray(ids), jnp.asarray(lengths)

    def loss(rows: Any) -> Any:
        encoded = model.functions.encode(model.params, rows, *inputs)
        each = model.functions.target_log_probabilities(
            model.params, encoded, inputs[1], targets, target_lengths
        )
        return -each.sum()

    both = jax.jit(jax.value_and_grad(loss))
    gradient = np.asarray(both(rows)[1])
    step = np.zeros_like(rows)
    step[2] = 1e-2
    slope = (both(rows + step)[0] - both(rows - step)[0]) / 2e-2
    assert float(slope) == pytest.approx(float(gradient[2].sum()), rel=2e-2)
    unused = sorted(
        set(range(9)) - {int(i) - V for row, n in zip(ids, lengths, strict=True) for i in row[:n]}
    )
    assert unused
    assert not gradient[unused].any()
