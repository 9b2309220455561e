"""Step plans on a real tiny model: replay, pipelining, release, reuse, failures, refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from chorus_server.engine.executor import JaxExecutor
from chorus_server.engine.executor.testing import MemoryPrompts, tiny_executor, tiny_model
from chorus_server.engine.fake_executor import FakeExecutor, PlanError
from chorus_server.engine.plan_codec import decode_plan, encode_plan, read_plans, record_plans
from chorus_server.engine.plans import (
    Admission,
    BlockShape,
    DecodePlan,
    Ladder,
    PrefillPlan,
    RowLoad,
    ScorePlan,
    StepPlan,
)
from chorus_server.engine.sampling import Sampling
from chorus_server.errors import InternalError, InvalidInputError

LADDER = Ladder(((4, 16),), (BlockShape(16, 8, 4), BlockShape(16, 8, 4)), ((2, 3),), 4)
PROMPT = np.random.default_rng(0).normal(size=(6, 26)).astype(np.float32)
TEXT = (17, 33, 5, 1)


@pytest.fixture(scope="module")
def executor() -> JaxExecutor:
    return tiny_executor(LADDER, MemoryPrompts({"p": PROMPT}))


def _run(executor: JaxExecutor, plan: StepPlan) -> Any:
    return executor.collect(executor.dispatch(plan))


def _prefill(inputs: Any, *admissions: Admission, loads: Any = ()) -> PrefillPlan:
    return PrefillPlan(0, (4, 16), tuple(inputs), admissions, loads)


def _greedy(executor: JaxExecutor, ids: tuple[int, ...], slot: int = 0, tokens: int = 8) -> tuple[int, ...]:
    _run(executor, _prefill([ids], Admission(0, 0, (slot,), Sampling(tokens))))
    (only,) = _run(executor, DecodePlan(1, 0, "plain", 8)).slots
    assert only.slot == slot and only.done
    return tuple(only.tokens)


def _plans(V: int) -> list[StepPlan]:
    """A session with everything in it: loads, both blocks and modes, samples, beams, releases, scores."""
    sampled = Sampling(8, min_new_tokens=2, temperature=0.7, top_k=9, top_p=0.9, seed=4_000_000_000)
    return [
        _prefill(
            [TEXT, (V, V + 7, 9, 1), (4, 1)],
            Admission(1, 0, (2,), sampled),
            Admission(0, 1, (3, 0), Sampling(6, num_beams=2, length_penalty=1.3)),
            Admission(2, 1, (1, 2), dataclasses.replace(sampled, min_new_tokens=0)),
            loads=(RowLoad("p", (0, 7, 2, 3, 4, 5)),),
        ),
        DecodePlan(1, 0, "plain", 3),
        DecodePlan(2, 1, "grouped", 5),
        _prefill([(V + 7, 1)], Admission(0, 0, (0,), Sampling(5))),
        DecodePlan(4, 0, "plain", 8, release=(2,)),
        ScorePlan(5, (4, 16), (TEXT, (5, 1)), (((3, 1), (4, 1), (5, 6, 1)), ((8, 1),))),
        DecodePlan(6, 1, "grouped", 8),
        _prefill([TEXT]),
        ScorePlan(8, (4, 16), (TEXT,), (((3, 1),),), encoded=True),
    ]


def test_recorded_plans_replayed_give_the_same_results(executor: JaxExecutor) -> None:
    plans = _plans(executor.padded_vocab_size)
    text = record_plans(plans)
    assert list(read_plans(text)) == plans
    first = [_run(executor, plan) for plan in plans]
    prompts = MemoryPrompts({"p": PROMPT})
    fresh = tiny_executor(LADDER, prompts, compiled=executor.compiled)
    assert [_run(fresh, plan) for plan in read_plans(text)] == first
    assert sum(len(slot.tokens) for result in first if hasattr(result, "slots") for slot in result.slots) > 10
    assert any(getattr(result, "beams", ()) for result in first)
    other = tiny_executor(LADDER, prompts, model=tiny_model(1), compiled=executor.compiled)
    assert [_run(other, plan) for plan in read_plans(text)] != first  # the control: other weights


@pytest.mark.parametrize(
    "line", ["", "[]", "{}", '{"kind":"train"}', '{"kind":"decode","step":1}', '{"kind":"prefill","loads":3}']
)
def test_a_line_that_is_no_plan_is_refused(line: str) -> None:
    with pytest.raises(InvalidInputError):
        decode_plan(line)


def test_a_plan_with_a_number_that_json_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_plan(_prefill([TEXT], Admission(0, 0, (0,), Sampling(3, temperature=float("nan")))))


def test_steps_may_be_dispatched_before_earlier_ones_are_collected(executor: JaxExecutor) -> None:
    expected = _greedy(executor, TEXT)
    admission = Admission(0, 0, (3,), Sampling(8))
    pending = [executor.dispatch(_prefill([TEXT], admission))]
    pending += [executor.dispatch(DecodePlan(step, 0, "plain", 2)) for step in range(6)]
    # A slot that ended in a step not yet collected is admitted to and decoded again.
    pending += [
        executor.dispatch(_prefill([TEXT], admission)),
        executor.dispatch(DecodePlan(8, 0, "plain", 8)),
    ]
    results: list[Any] = [executor.collect(step) for step in pending]
    made = [slot.tokens for result in results[1:7] for slot in result.slots]
    assert tuple(token for tokens in made for token in tokens) == expected
    assert results[8].slots[0].tokens == expected
    assert [len(result.slots) for result in results[1:7]] == [1] * len(made) + [0] * (6 - len(made))


def test_a_prompt_in_rows_apart_is_the_prompt_in_neighbouring_rows(executor: JaxExecutor) -> None:
    V = executor.padded_vocab_size
    answers = []
    for rows in ((0, 1, 2, 3, 4, 5), (40, 3, 63, 0, 21, 9)):
        _run(executor, _prefill([TEXT], loads=(RowLoad("p", rows),)))
        answers.append(_greedy(executor, (*(V + row for row in rows), *TEXT)))
    assert answers[0] == answers[1] != _greedy(executor, TEXT)


def test_a_released_slot_makes_no_token_and_is_not_reported(executor: JaxExecutor) -> None:
    sampling = Sampling(8, min_new_tokens=8)
    plan = _prefill([TEXT, (9, 1)], Admission(0, 0, (0,), sampling), Admission(1, 0, (1,), sampling))
    _run(executor, plan)
    _run(executor, DecodePlan(1, 0, "plain", 2))
    result = _run(executor, DecodePlan(2, 0, "plain", 3, release=(0,)))
    assert [slot.slot for slot in result.slots] == [1]
    assert [slot.slot for slot in _run(executor, DecodePlan(3, 0, "plain", 8)).slots] == [1]


def test_a_decode_of_an_empty_block_ends_at_once(executor: JaxExecutor) -> None:
    _run(executor, DecodePlan(0, 0, "plain", 1, release=(0, 1, 2, 3)))
    assert _run(executor, DecodePlan(1, 0, "plain", 8)).slots == ()


def test_min_and_max_new_tokens(executor: JaxExecutor) -> None:
    ended = [text for text in range(2, 60) if len(_greedy(executor, (text, 1))) < 6]
    assert len(ended) > 3
    for text in ended[:4]:
        _run(executor, _prefill([(text, 1)], Admission(0, 0, (0,), Sampling(6, min_new_tokens=6))))
        (slot,) = _run(executor, DecodePlan(1, 0, "plain", 8)).slots
        assert len(slot.tokens) == 6 and 1 not in slot.tokens and slot.done


def _with_bad_token(
    executor: JaxExecutor,
) -> tuple[JaxExecutor, JaxExecutor, tuple[int, ...], tuple[int, ...]]:
    """(healthy, broken, poisoned text, clean text): in `broken` the embedding of the first token that the
    poisoned text makes is infinite; the clean text never meets it."""
    model = tiny_model(2)
    healthy = tiny_executor(LADDER, model=model, compiled=executor.compiled)
    texts = [(text, 1) for text in range(2, 40)]
    answers = [_greedy(healthy, text) for text in texts]
    bad = answers[0][0]
    params = jax.tree.map(lambda leaf: leaf, model.params)
    params["embedding"] = params["embedding"].at[bad].set(np.inf)
    broken = tiny_executor(
        LADDER, model=dataclasses.replace(model, params=params), compiled=executor.compiled
    )
    clean = next(i for i, tokens in enumerate(answers) if bad not in tokens and bad not in texts[i])
    return healthy, broken, texts[0], texts[clean]


def test_logits_that_are_not_finite_fail_their_slot_alone(executor: JaxExecutor) -> None:
    """A slot that chooses a token whose embedding overflows fails on the next one; its neighbour keeps its
    bits."""
    healthy, broken, poisoned, clean = _with_bad_token(executor)
    plan = _prefill(
        [poisoned, clean],
        Admission(0, 0, (1,), Sampling(8)),
        Admission(1, 0, (2,), Sampling(8)),
    )
    _run(broken, plan)
    failed, kept = _run(broken, DecodePlan(1, 0, "plain", 8)).slots
    assert failed.failed and failed.done and len(failed.tokens) == 1  # it chose the token, then failed on it
    assert not kept.failed and kept.tokens == _greedy(healthy, clean)


def test_a_search_fails_with_any_of_its_beams_and_its_neighbour_does_not(executor: JaxExecutor) -> None:
    _, broken, poisoned, clean = _with_bad_token(executor)
    plan = _prefill(
        [poisoned, clean],
        Admission(0, 1, (3, 1), Sampling(8, num_beams=2)),
        Admission(1, 1, (0, 2), Sampling(1, num_beams=2)),
    )
    _run(broken, plan)
    kept, failed = _run(broken, DecodePlan(1, 1, "grouped", 8)).beams
    assert (kept.leader, kept.failed, len(kept.beams)) == (0, False, 2)
    assert (failed.leader, failed.failed, failed.beams) == (3, True, ())


def test_more_targets_than_a_tree_has_take_more_dispatches(executor: JaxExecutor) -> None:
    targets = tuple((token, 1) for token in range(2, 9))
    (together,) = _run(executor, ScorePlan(0, (4, 16), (TEXT,), (targets,))).log_probabilities
    apart = [
        _run(executor, ScorePlan(0, (4, 16), (TEXT,), ((target,),))).log_probabilities[0][0]
        for target in targets
    ]
    np.testing.assert_allclose(together, apart, rtol=1e-5)
    assert len(set(together)) == len(targets)


@pytest.mark.parametrize("fake", [False, True])
def test_inputs_encoded_in_a_step_of_their_own_have_the_same_scores(
    executor: JaxExecutor, fake: bool
) -> None:
    some: Any = FakeExecutor(MemoryPrompts({}), ladder=LADDER) if fake else executor
    whole = ScorePlan(0, (4, 16), (TEXT, (5, 1)), (((3, 1), (4, 1)), ((8, 1),)))
    expected = _run(some, whole)
    half = dataclasses.replace(whole, encoded=True)
    _run(some, _prefill(whole.inputs))
    assert _run(some, half) == expected
    _run(some, _prefill([(6, 1)], Admission(0, 0, (0,), Sampling(1))))
    with pytest.raises((InternalError, PlanError), match="encoded last"):
        some.dispatch(half)
    _run(some, DecodePlan(1, 0, "plain", 1))


def test_a_score_is_the_sum_of_what_decoding_reports(executor: JaxExecutor) -> None:
    _run(executor, _prefill([TEXT], Admission(0, 0, (0,), Sampling(3, temperature=2.0, top_k=5, seed=3))))
    (slot,) = _run(executor, DecodePlan(1, 0, "plain", 3)).slots
    assert len(slot.tokens) > 1  # sampled under settings, reported under the unmodified distribution
    ((score,),) = _run(executor, ScorePlan(0, (4, 16), (TEXT,), ((slot.tokens,),))).log_probabilities
    np.testing.assert_allclose(score, sum(slot.log_probabilities), rtol=1e-5)


@pytest.mark.parametrize(
    "plan",
    [
        _prefill([()]),
        _prefill([TEXT * 5]),
        _prefill([TEXT] * 5),
        PrefillPlan(0, (4, 32), (TEXT,), ()),
        _prefill([TEXT], Admission(0, 0, (4,), Sampling(3))),
        _prefill([TEXT], Admission(0, 0, (), Sampling(3))),
        _prefill([TEXT], Admission(0, 0, (1, 1), Sampling(3))),
        _prefill([TEXT], Admission(0, 0, (0,), Sampling(9))),
        _prefill([TEXT], Admission(0, 0, (0, 1), Sampling(3, num_beams=4))),
        _prefill([TEXT], loads=(RowLoad("p", (1, 2)),)),
        ScorePlan(0, (4, 16), (TEXT,), (((3,), ()),)),
        ScorePlan(0, (4, 16), (TEXT,), (((3, 4, 5, 6),),)),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_and_nothing_is_lost(
    executor: JaxExecutor, plan: StepPlan
) -> None:
    expected = _greedy(executor, TEXT)
    with pytest.raises(InternalError):
        executor.dispatch(plan)
    assert _greedy(executor, TEXT) == expected
