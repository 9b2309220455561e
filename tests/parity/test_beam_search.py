"""Beam search on the device against an independent one in numpy, over the same model's logits.

The reference keeps whole hypotheses in Python lists and asks the model for logits by teacher forcing, so it
shares neither the search nor the decode step with what it checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.engine.executor import JaxExecutor
from chorus_server.engine.executor.testing import tiny_executor, tiny_model
from chorus_server.engine.plans import Admission, BlockShape, DecodePlan, Ladder, PrefillPlan
from chorus_server.engine.sampling import Sampling

pytestmark = pytest.mark.usefixtures("compiled_quickly")
LADDER = Ladder(((6, 16),), (BlockShape(16, 10, 32),), (), 8)
LIMIT = 10
Scorer = Callable[[tuple[int, ...]], np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def executor() -> JaxExecutor:
    return tiny_executor(LADDER, model=MODEL, without=("plain",))


MODEL = tiny_model(4, end_bias=4.0)
EOS = MODEL.config.eos_id


@cache
def _teacher() -> Any:
    def logits(ids: Any, lengths: Any, targets: Any, counts: Any) -> Any:
        functions = MODEL.functions
        encoded = functions.encode(MODEL.params, jnp.zeros((1, MODEL.config.d_model)), ids, lengths)
        return functions.decode_targets(MODEL.params, encoded, lengths, targets, counts)

    return jax.jit(logits)


def _scorer(text: tuple[int, ...]) -> Scorer:
    """Log probabilities `[V]` of the next token after a prefix, minus infinity where forbidden."""
    ids = np.zeros((1, 16), np.int32)
    ids[0, : len(text)] = text
    seen: dict[tuple[int, ...], np.ndarray[Any, Any]] = {}

    def score(prefix: tuple[int, ...]) -> np.ndarray[Any, Any]:
        if prefix not in seen:
            targets = np.zeros((1, 1, LIMIT + 1), np.int32)
            targets[0, 0, : len(prefix)] = prefix
            counts = np.full((1, 1), len(prefix) + 1, np.int32)
            logits = np.asarray(_teacher()(ids, np.array([len(text)], np.int32), targets, counts))
            row = logits[0, 0, len(prefix)].astype(np.float64)
            row -= row.max() + np.log(np.exp(row - row.max()).sum())
            row[MODEL.config.vocab_size :] = -np.inf
            row[MODEL.config.pad_id] = -np.inf
            seen[prefix] = row
        return seen[prefix]

    return score


def _penalty(length: int, alpha: float) -> float:
    return float(((5 + length) / 6) ** alpha)


def reference_beams(
    score: Scorer, width: int, alpha: float, limit: int, minimum: int = 0
) -> list[tuple[tuple[int, ...], float, bool]]:
    """(tokens, score, ended), best first. Rules of Hugging Face at alpha 0, of T5X elsewhere."""
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    done: list[tuple[float, tuple[int, ...], bool]] = []
    for made in range(limit):
        found = []
        for total, prefix in live:
            row = score(prefix).copy()
            if made < minimum:
                row[EOS] = -np.inf
            found += [(total + row[token], (*prefix, int(token))) for token in np.argsort(-row)[: 2 * width]]
        found = sorted(found, key=lambda pair: -pair[0])[: 2 * width]
        last = made + 1 == limit
        for rank, (total, tokens) in enumerate(found):
            ended = tokens[-1] == EOS
            if alpha == 0 and (ended or last) and rank < width:
                done.append((total, tokens, ended))
            elif alpha != 0 and ended:
                done.append((total / _penalty(made + 1, alpha), tokens, True))
        done = sorted(done, key=lambda entry: -entry[0])[:width]
        live = [pair for pair in found if pair[1][-1] != EOS][:width]
        best = live[0][0] / _penalty(limit + 1, alpha)
        if len(done) == width and done[-1][0] > best:
            break
    if alpha != 0 and len(done) < width:
        done += [
            (total / _penalty(limit, alpha), tokens, False) for total, tokens in live[: width - len(done)]
        ]
    return [(tokens[:-1] if ended else tokens, value, ended) for value, tokens, ended in done]


def _texts(count: int, seed: int) -> Iterator[tuple[int, ...]]:
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield (*random.integers(2, 160, size=int(random.integers(2, 14))).tolist(), EOS)


def _search(
    executor: JaxExecutor, texts: list[tuple[int, ...]], groups: list[tuple[int, ...]], settings:
    list[Sampling],
    tokens: int = 4,
) -> dict[int, Any]:  # fmt: skip
    """Run searches side by side; leader -> BeamsDone."""
    admissions = tuple(
        Admission(row, 0, slots, each) for row, (slots, each) in enumerate(zip(groups, settings, strict=True))
    )
    executor.collect(executor.dispatch(PrefillPlan(0, (6, 16), tuple(texts), admissions)))
    results: dict[int, Any] = {}
    for step in range(-(-LIMIT // tokens)):
        result = executor.collect(executor.dispatch(DecodePlan(step, 0, "grouped", tokens)))
        results |= {done.leader: done for done in result.beams}
    return results


GROUPS = [(0, 1), (5, 9, 2, 20), (31, 30, 29, 28, 27, 26, 25, 24), (3, 4), (6, 7, 8, 10), (11, 12)]
"""Mixed widths, scattered slots, leaders anywhere."""


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
def test_mixed_widths_side_by_side_give_the_reference_hypotheses(executor: JaxExecutor, alpha: float) -> None:
    ended = limited = 0
    for seed in range(6):
        texts = list(_texts(len(GROUPS), seed))
        settings = [
            Sampling(
                LIMIT - (place % 3), num_beams=len(slots), length_penalty=alpha, min_new_tokens=place % 2
            )
            for place, slots in enumerate(GROUPS)
        ]
        results = _search(executor, texts, GROUPS, settings)
        for text, slots, each in zip(texts, GROUPS, settings, strict=True):
            expected = reference_beams(
                _scorer(text), len(slots), alpha, each.max_new_tokens, each.min_new_tokens
            )
            beams = results[slots[0]].beams
            assert [beam.tokens for beam in beams] == [tokens for tokens, _, _ in expected]
            assert [beam.ended for beam in beams] == [flag for _, _, flag in expected]
            np.testing.assert_allclose(
                [beam.score for beam in beams], [value for _, value, _ in expected], rtol=2e-5, atol=2e-5
            )
            ended += sum(beam.ended for beam in beams)
            limited += sum(not beam.ended for beam in beams)
    assert ended > 20 and limited > 20  # both ways of ending are in the sample


def test_alpha_changes_what_is_found(executor: JaxExecutor) -> None:
    """The control: were alpha ignored, the comparison above could not have passed."""
    differing = 0
    for text in _texts(24, 99):
        plain, long = (reference_beams(_scorer(text), 4, alpha, LIMIT) for alpha in (0.0, 2.0))
        differing += plain[0][0] != long[0][0]
    assert differing > 2


def test_a_search_is_the_same_alone_and_beside_others(executor: JaxExecutor) -> None:
    texts = list(_texts(6, 7))
    settings = [Sampling(LIMIT, num_beams=len(slots)) for slots in GROUPS]
    together = _search(executor, texts, GROUPS, settings)
    for row, slots in enumerate(GROUPS):
        order = tuple(range(len(slots)))  # other slots than before
        alone = _search(executor, [texts[row]], [order], [settings[row]], tokens=3)
        assert alone[0].beams == together[slots[0]].beams


def test_a_released_search_is_never_reported(executor: JaxExecutor) -> None:
    text = next(_texts(1, 3))
    admission = Admission(0, 0, (4, 5), Sampling(LIMIT, num_beams=2))
    executor.collect(executor.dispatch(PrefillPlan(0, (6, 16), (text,), (admission,))))
    executor.collect(executor.dispatch(DecodePlan(1, 0, "grouped", 1)))
    result = executor.collect(executor.dispatch(DecodePlan(2, 0, "grouped", LIMIT, release=(4, 5))))
    assert result.beams == () and result.slots == ()
