"""Each row's gradient reaches only its own prompt; N prompts together are N alone; weights never change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.model.fingerprint import tensor_digest
from chorus_server.model.t5 import tensors_of
from chorus_server.tuning.data.examples import TextRow, make_examples
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.objective import LossConfig, TuningBatch, TuningSums
from chorus_server.tuning.training.packing import pack_batch, pack_training_inputs, row_key
from chorus_server.tuning.training.programs import empty_sums
from chorus_server.tuning.training.run import TrainingRun
from tests.server.tuning.tuning_tools import LABELS, RECIPE, VOCABULARY, model, programs, task

TASKS = (task(0), task(2, RECIPE.changed(learning_rate=0.05, parameter_scaling=True)))
JOB = TrainingRun(3, TASKS)
PROMPTS = np.stack([each.initial for each in TASKS])
LOSS = LossConfig(np.float32(0.1), np.float32(1e-4))


def _batch(chosen: list[list[int]], step: int = 0) -> TuningBatch:
    built = programs(JOB)
    return pack_batch(built.vocab_rows, built.shapes, JOB, step, chosen)


def _sums(prompts: Any, batch: TuningBatch) -> TuningSums:
    built = programs(JOB)
    sums = built.accumulate[24](built.params, prompts, empty_sums(built.shapes), batch, LOSS)
    return jax.tree.map(np.asarray, sums)


def _run(job: TrainingRun) -> TuningLoop:
    loop = TuningLoop(job, programs(job), VOCABULARY.decode)
    while not loop.done:
        loop.run_slice(50)
    return loop


CHOSEN = st.lists(st.lists(st.integers(0, 29), min_size=4, max_size=4), min_size=2, max_size=2)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(CHOSEN, st.integers(0, 1), st.sampled_from(["examples", "values", "nan"]))
def test_a_prompts_gradient_never_sees_the_others(chosen: list[list[int]], kept: int, how: str) -> None:
    """Other examples, other values, or NaN in the other prompts: this prompt's sums keep their bits."""
    before = _sums(PROMPTS, _batch(chosen))
    prompts, changed = PROMPTS.copy(), [list(each) for each in chosen]
    for n in range(2):
        if n != kept and how == "examples":
            changed[n] = [(i * 7 + 3) % 30 for i in changed[n]]
        elif n != kept:
            prompts[n] = np.nan if how == "nan" else prompts[n] * 3 + 1
    after = _sums(prompts, _batch(changed))
    for name in ("gradients", "losses", "tokens"):
        np.testing.assert_array_equal(getattr(before, name)[kept], getattr(after, name)[kept], name)
    assert np.abs(before.gradients[kept]).max() > 0


def test_control_a_row_that_names_another_prompt_is_seen() -> None:
    """The property above can fail: a row of prompt 0 that names prompt 1's values changes its gradient."""
    batch = _batch([[0, 1, 2, 3]] * 2)
    V, P = programs(JOB).vocab_rows, RECIPE.prompt_length
    wrong, row = batch.ids.copy(), slice(batch.starts[0], batch.starts[1])
    wrong[row] = np.where(wrong[row] >= V, wrong[row] + P, wrong[row])
    right, crossed = _sums(PROMPTS, batch), _sums(PROMPTS, replace(batch, ids=wrong))
    assert not np.array_equal(right.gradients[1], crossed.gradients[1])


def test_together_is_alone_within_rounding_and_no_weight_changes() -> None:
    before = {name: tensor_digest(np.asarray(values)) for name, values in tensors_of(model())}
    together = _run(JOB)
    assert before == {name: tensor_digest(np.asarray(values)) for name, values in tensors_of(model())}
    for n, each in enumerate(TASKS):
        alone = _run(TrainingRun(3, (each,)))
        moved = np.abs(together.state.prompts[n] - each.initial).max()
        assert moved > 0.1
        np.testing.assert_allclose(
            together.state.prompts[n], alone.state.prompts[0], rtol=0, atol=float(moved) * 1e-3
        )
        np.testing.assert_allclose(
            np.array(together.state.losses)[:, n], np.array(alone.state.losses)[:, 0], rtol=1e-4
        )
        assert together.state.standings[n].best_metric == alone.state.standings[0].best_metric
    # The control: the same task under another index draws other examples and masks.
    other = _run(TrainingRun(3, (replace(TASKS[0], index=5),)))
    assert np.abs(other.state.prompts[0] - together.state.prompts[0]).max() > 0.05


def test_micro_batches_add_up_to_the_gradient_of_the_whole() -> None:
    first, second = [[0, 1, 2, 3]] * 2, [[4, 5, 6, 7]] * 2
    one, other = _sums(PROMPTS, _batch(first)), _sums(PROMPTS, _batch(second))
    built = programs(JOB)
    sums = built.accumulate[24](built.params, PROMPTS, empty_sums(built.shapes), _batch(first), LOSS)
    sums = jax.tree.map(np.asarray, built.accumulate[24](built.params, PROMPTS, sums, _batch(second), LOSS))
    np.testing.assert_allclose(sums.gradients, one.gradients + other.gradients, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sums.losses, one.losses + other.losses, rtol=1e-6)
    np.testing.assert_array_equal(sums.tokens, one.tokens + other.tokens)


def test_the_loss_is_the_cross_entropy_of_the_target_and_its_slope_the_gradient() -> None:
    """Against `target_log_probabilities`, which knows nothing of training, and a finite difference."""
    rows = [TextRow(row + 1, text, (LABELS[row % 2],)) for row, text in enumerate(("abc", "d", "ab", "c"))]
    examples, _ = make_examples(rows, VOCABULARY, RECIPE)
    job = TrainingRun(3, (replace(TASKS[0], train=examples),))
    built = programs(job)
    batch = pack_batch(built.vocab_rows, built.shapes, job, 0, [[0, 1, 2, 3]])
    none = LossConfig(np.float32(0), np.float32(0))

    def sums(prompt: Any) -> Any:
        return built.accumulate[24](built.params, prompt[None], empty_sums(built.shapes), batch, none)

    found = sums(TASKS[0].initial)
    functions, resident = model().functions, model()
    ids, _ = pack_training_inputs(built.vocab_rows, built.shapes, [(0, each) for each in examples], 4)
    encoded = jax.jit(functions.encode)(resident.params, TASKS[0].initial, ids, batch.lengths)
    known = jax.jit(functions.target_log_probabilities)(
        resident.params, encoded, batch.lengths, batch.targets[:, None], batch.target_lengths[:, None]
    )
    np.testing.assert_allclose(found.losses[0], -np.asarray(known).sum(), rtol=1e-5)
    assert float(found.tokens[0]) == sum(len(example.target_ids) for example in examples)
    step = np.zeros_like(TASKS[0].initial)
    step[2, 5] = 1e-2
    slope = (sums(TASKS[0].initial + step).losses[0] - sums(TASKS[0].initial - step).losses[0]) / 2e-2
    np.testing.assert_allclose(slope, found.gradients[0, 2, 5], rtol=2e-2, atol=1e-3)


def test_keys_fold_from_seed_prompt_step_and_example() -> None:
    keys = {
        tuple(row_key(seed, index, step, example))
        for seed in (0, 1) for index in (0, 1) for step in (0, 1) for example in (0, 1)
    }  # fmt: skip
    assert len(keys) == 16
