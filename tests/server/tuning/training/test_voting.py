"""An ensemble is measured on the test split as it will vote; labels may be answered by greedy text."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from chorus_server.quality.metrics import measure
from chorus_server.tuning.training import checkpoint
from chorus_server.tuning.training.answering import label_scores
from chorus_server.tuning.training.evaluation import Evaluator
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.packing import pack_training_targets
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.shapes import shapes_for
from chorus_server.tuning.training.state import TrainingState
from tests.server.tuning.tuning_tools import LABELS, VOCABULARY, model, programs, task

TEST = task(9, held_out_rows=24).validation
_SCORES = jax.jit(label_scores, static_argnums=0)


def ended(job: TrainingRun, state: TrainingState | None = None) -> TrainingState:
    loop = TuningLoop(job, programs(job), VOCABULARY.decode, state)
    while not loop.done:
        loop.run_slice(100)
    return loop.state


def scores(
    prompt: np.ndarray[object, np.dtype[np.float32]], labels: tuple[tuple[int, ...], ...]
) -> np.ndarray[object, np.dtype[np.float32]]:
    """Log probabilities of the labels after each test input, [rows, labels]."""
    tiny, rows = model(), len(TEST)
    ids, lengths = np.zeros((rows, 24), np.int32), np.zeros(rows, np.int32)
    first = tiny.config.padded_vocab_size
    for n, example in enumerate(TEST):
        lengths[n] = len(prompt) + len(example.input_ids)
        ids[n, : lengths[n]] = [*range(first, first + len(prompt)), *example.input_ids]
    packed, each = pack_training_targets(labels, 4)
    targets = np.broadcast_to(packed, (rows, *packed.shape))
    target_lengths = np.broadcast_to(each, (rows, len(each)))
    return np.asarray(
        _SCORES(tiny.functions, tiny.params, prompt[None], ids, lengths, targets, target_lengths)
    )


def test_the_vote_on_the_test_split_is_that_of_the_members(tmp_path: Path) -> None:
    members = tuple(replace(task(n), test=TEST) for n in range(4))
    job = TrainingRun(3, members, ensemble=True)
    state = ended(job)
    of_members = [scores(state.best[n], members[0].label_ids) for n in range(4)]
    said, ties = [], 0
    for row in range(len(TEST)):
        chosen = [int(each[row].argmax()) for each in of_members]
        counts = Counter(chosen)
        sure = {
            label: np.mean(
                [each[row][label] for each, mine in zip(of_members, chosen, strict=True) if mine == label]
            )
            for label in counts
        }
        ties += len(counts) == 2 and counts[0] == counts[1]
        said.append(LABELS[max(counts, key=lambda label: (counts[label], sure[label]))])
    expected = measure(("accuracy",), said, [example.answers for example in TEST], LABELS)
    assert state.ensemble_metrics == expected
    checkpoint.write_state(tmp_path, job, state)
    again = checkpoint.read_state(tmp_path, job)
    assert again is not None and again.ensemble_metrics == expected and again.standings == state.standings
    # The control: prompts that are no ensemble have no vote, and the checkpoint is theirs too.
    apart = TrainingRun(3, members)
    assert ended(apart).ensemble_metrics is None and apart.digest == job.digest


def test_labels_may_be_answered_by_greedy_text() -> None:
    greedy = replace(task(answer_by="greedy"), test=TEST)
    ranked = replace(task(), test=TEST)
    job, other = TrainingRun(3, (greedy,)), TrainingRun(3, (ranked,))
    assert (shapes_for(job).labels, shapes_for(job).new_tokens) == (0, greedy.recipe.max_target_tokens)
    assert (shapes_for(other).labels, shapes_for(other).new_tokens) == (2, 0)
    assert job.digest != other.digest
    found: list[dict[str, float] | None] = []
    text = replace(task(free_text=True), test=TEST)
    free, as_text = TrainingRun(3, (text,)), list[dict[str, float] | None]()
    for run, into in ((job, found), (free, as_text)):
        evaluator = Evaluator(run, programs(run), VOCABULARY.decode)
        list(evaluator.measure(greedy.initial[None], [TEST], into))
    assert found[0] is not None and as_text[0] is not None
    legal = found[0].pop("legal")
    assert found == as_text, "the text that the model writes, against the labels"
    assert 0 <= legal < 1, "an untrained prompt writes other texts"
    assert found[0]["mean"] == found[0]["accuracy"], "it does not choose"
