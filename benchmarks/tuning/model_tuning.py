"""Model tuning of the same base, the paper's other end of Figure 1: every weight trained, no prompt.

Adafactor with T5's own settings for fine-tuning (constant rate 0.001, scaled by parameter), the same rows,
order, batch and dropout as prompt tuning. A run is short: killed, it starts anew. Not in the server, which
never changes a weight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.tuning.base import Base
from benchmarks.tuning.measuring import answers_on, measure_prompts
from benchmarks.tuning.prompts import SEED
from benchmarks.tuning.results import DATA
from benchmarks.tuning.rows import load_rows
from benchmarks.tuning.transfer import transferred
from chorus_server.model.dropout import Dropout
from chorus_server.model.functions import Functions
from chorus_server.tuning.data.examples import Example, make_examples
from chorus_server.tuning.data.order import batch_indices
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training.packing import pack_training_targets, row_key

DROPOUT, Z_LOSS = 0.1, 1e-4


def run_model(base: Base, run: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Train all weights, keep the best by the selection split, measure them.

    Args:
        run: `task`, `steps`, `batch_size`, `learning_rate`, `evaluate_every_steps`, `index` (the prompt
            whose order of examples this follows), `transfer` (tasks to measure on beside its own).
    """
    rows = load_rows(run["task"], DATA)
    wall, cpu = time.perf_counter(), time.process_time()
    # The recipe only for its lengths: room for the text is what a prompt of one row leaves.
    recipe = Recipe(prompt_length=1, max_input_tokens=rows.task.text_tokens + 2, max_target_tokens=16)
    train, _ = make_examples(rows.train.rows, base.vocabulary, recipe)
    optimiser = optax.adafactor(run["learning_rate"], multiply_by_parameter_scale=True)
    params = jax.tree.map(jnp.array, base.params)  # copies: they are donated, the base is not
    moments = optimiser.init(params)
    step = jax.jit(partial(_step, base.functions, optimiser), donate_argnums=(0, 1))
    best, best_metric, chosen, losses, curve = params, -1.0, 0, [], []
    for number in range(run["steps"]):
        picked = batch_indices(SEED, run["index"], number, run["batch_size"], len(train))
        batch = _batch(rows.task.text_tokens + 1, run["index"], number, picked, train)
        params, moments, loss = step(params, moments, batch)
        losses.append(float(loss))
        if (number + 1) % run["evaluate_every_steps"] == 0 or number + 1 == run["steps"]:
            report = _selection(base, rows, params)
            curve.append([number + 1, round(report, 4)])
            say(f"  step {number + 1}: loss {np.mean(losses[-10:]):.3f}, selection {report:.3f}")
            if report > best_metric:
                best, best_metric, chosen = jax.tree.map(np.asarray, params), report, number + 1
    answers = measure_prompts(base, rows, None, best)
    return {
        "base": base.name,
        "fingerprint": base.fingerprint,
        "data": rows.digests,
        "rows": {"train": len(rows.train.rows), "selection": len(rows.selection.rows)},
        "losses_each_10_steps": [
            [round(float(np.mean(losses[n : n + 10])), 4)] for n in range(0, len(losses), 10)
        ],
        "selection": [curve],
        "chosen_step": [chosen],
        **answers.document(),
        "transfer": {name: transferred(base, rows, name, None, best) for name in run.get("transfer", [])},
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def _selection(base: Base, rows: Any, params: Any) -> float:
    found = answers_on(base, rows, rows.selection.rows, params=params, longest=rows.task.text_tokens)
    report = found.document()["report"][0]
    return float(np.mean([report[name] for name in rows.task.metrics]))


Batch = tuple[Any, Any, Any, Any, Any]
"""ids [B, L], lengths [B], targets [B, T], target_lengths [B], keys [B, 2]."""


def _batch(L: int, index: int, step: int, picked: Sequence[int], train: Sequence[Example]) -> Batch:
    some = [train[n] for n in picked]
    ids = np.zeros((len(some), L), np.int32)
    for row, example in enumerate(some):
        ids[row, : len(example.input_ids)] = example.input_ids
    longest = max(len(example.target_ids) for example in train)
    targets = pack_training_targets([example.target_ids for example in some], longest)
    keys = np.stack([row_key(SEED, index, step, n) for n in picked])
    return ids, np.array([len(example.input_ids) for example in some], np.int32), *targets, keys


def _step(
    functions: Functions, optimiser: Any, params: Any, moments: Any, batch: Batch
) -> tuple[Any, Any, Any]:
    loss, gradients = jax.value_and_grad(partial(_loss, functions))(params, batch)
    updates, moments = optimiser.update(gradients, moments, params)
    return optax.apply_updates(params, updates), moments, loss


def _loss(functions: Functions, params: Any, batch: Batch) -> Any:
    """Mean over target tokens of the cross-entropy and the z-loss: `objective`'s, of the weights."""
    ids, lengths, targets, target_lengths, keys = batch
    dropout = Dropout(jax.random.wrap_key_data(keys, impl="threefry2x32"), jnp.float32(DROPOUT))
    table = jnp.zeros((1, functions.config.d_model))
    encoded = functions.encode(params, table, ids, lengths, dropout)
    wanted = targets[:, None, :], target_lengths[:, None]
    logits = functions.decode_targets(params, encoded, lengths, *wanted, dropout)[:, 0]
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[:, :, None], axis=-1, mode="clip")[:, :, 0]
    real = jnp.arange(targets.shape[1])[None, :] < target_lengths[:, None]
    each = normaliser - chosen + Z_LOSS * normaliser * normaliser
    return jnp.where(real, each, 0).sum() / target_lengths.sum()
