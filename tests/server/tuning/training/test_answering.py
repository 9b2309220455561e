"""Evaluation on the device says what the model's own functions say; dispatches take the smallest rung."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from chorus_server.model.decoding import greedy_tokens
from chorus_server.tuning.data.examples import TextRow, make_examples
from chorus_server.tuning.training.packing import pack_training_inputs
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.shapes import shapes_for
from tests.server.tuning.tuning_tools import RECIPE, VOCABULARY, model, programs, task


def test_greedy_text_is_the_models_own_decoding() -> None:
    job = TrainingRun(3, (task(free_text=True, metrics=("exact_match", "squad_f1")),))
    built, only = programs(job), job.tasks[0]
    places = [(0, example) for example in only.validation[:3]]
    ids, lengths = pack_training_inputs(built.vocab_rows, built.shapes, places, built.shapes.evaluation_rows)
    found = np.asarray(built.greedy[24](built.params, only.initial[None], ids, lengths)).tolist()
    resident = model()
    encoded = jax.jit(resident.functions.encode)(resident.params, only.initial, ids[:3], lengths[:3])
    known = greedy_tokens(resident, encoded, jnp.asarray(lengths[:3]), RECIPE.max_target_tokens)
    assert [row[: len(tokens)] for row, tokens in zip(found, known, strict=False)] == known
    assert any(len(set(tokens)) > 1 for tokens in known)


def test_an_input_goes_behind_its_prompts_rows_into_the_smallest_rung() -> None:
    rows = [TextRow(n + 1, "a" * n, ("y",)) for n in range(1, 18)]
    examples, _ = make_examples(rows, VOCABULARY, RECIPE)
    job = TrainingRun(3, (replace(task(0), train=examples), task(1)))
    shapes = shapes_for(job, rungs=3)
    assert shapes.input_lengths == (16, 24)
    V, P = 168, RECIPE.prompt_length
    short, long = examples[0], examples[-1]
    ids, lengths = pack_training_inputs(V, shapes, [(1, short), (0, short)], 3)
    assert ids.shape == (3, 16)
    assert ids[0, : P + 2].tolist() == [*range(V + P, V + 2 * P), *short.input_ids]
    assert ids[1, :P].tolist() == list(range(V, V + P))
    assert lengths.tolist() == [P + 2, P + 2, 0]
    assert not ids[2].any() and not ids[0, P + 2 :].any()
    assert pack_training_inputs(V, shapes, [(0, long)], 1)[0].shape == (1, 24)
