"""Requests through the engine, end to end on the fake executor."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from engine_tools import DictSource, generate, running_engine, score

from server.engine.config import EngineConfig
from server.engine.fake_executor import expected_scores, expected_tokens
from server.engine.observer import DecodeStep, NullObserver, PrefillStep
from server.engine.requests import FinishedEvent, Origin, TokensEvent


def test_a_generate_request_is_answered_as_computed_by_hand() -> None:
    source = DictSource()
    prompt = source.add("p", 3)
    with running_engine(source=source) as (engine, executor):
        request = generate(prompt, (7, 8, 1), max_new_tokens=8)
        done = engine.submit(request).wait(300)
        assert isinstance(done, FinishedEvent)
        assert done.sequences[0].tokens == expected_tokens(request, executor.vocab_size)
        assert done.input_tokens == 6
        assert engine.wait_idle(300)
        assert engine.stats().idle


def test_many_tasks_share_a_batch_and_each_gets_its_own_answer() -> None:
    source = DictSource()
    prompts = [source.add(f"p{index}", 2 + index % 3) for index in range(6)]
    with running_engine(source=source) as (engine, executor):
        requests = [generate(prompts[i % 6], (i, 1), max_new_tokens=1 + i % 8) for i in range(40)]
        handles = [engine.submit(request) for request in requests]
        for request, handle in zip(requests, handles, strict=True):
            done = handle.wait(300)
            assert isinstance(done, FinishedEvent)
            assert done.sequences[0].tokens == expected_tokens(request, executor.vocab_size)
        assert engine.wait_idle(300)
        assert sorted(set(source.fetched)) == sorted(source.fetched), "each prompt is fetched once"


def test_scores() -> None:
    with running_engine() as (engine, _):
        request = score((4, 5, 1), targets=[(7, 1), (8, 9, 1), (3, 1), (3, 4, 5, 6, 1)])
        done = engine.submit(request).wait(300)
        assert done.log_probabilities == pytest.approx(expected_scores(request))


def test_samples_and_beams_run_as_groups() -> None:
    with running_engine() as (engine, executor):
        samples = generate((9, 1), max_new_tokens=6, n=3, temperature=0.5, seed=11)
        beams = generate((9, 1), max_new_tokens=6, num_beams=4, n=2)
        done = engine.submit(samples).wait(300)
        assert [s.tokens for s in done.sequences] == [
            expected_tokens(samples, executor.vocab_size, place) for place in range(3)
        ]
        done = engine.submit(beams).wait(300)
        assert [s.tokens for s in done.sequences] == [
            expected_tokens(beams, executor.vocab_size, place) for place in range(2)
        ]
        assert done.sequences[0].score > done.sequences[1].score
        assert engine.wait_idle(300)


def test_streamed_tokens_joined_are_the_answer() -> None:
    with running_engine(config=EngineConfig(decode_tokens_per_dispatch=2, check_integrity=True)) as (
        engine,
        executor,
    ):
        request = generate((13, 1), max_new_tokens=8, stream=True)

        async def read() -> list[object]:
            return [event async for event in engine.submit(request)]

        *parts, last = asyncio.run(read())
        assert all(isinstance(part, TokensEvent) for part in parts)
        tokens = tuple(token for part in parts for token in part.tokens)
        assert tokens == last.sequences[0].tokens == expected_tokens(request, executor.vocab_size)
        assert len(parts) == -(-len(tokens) // 2)


def test_a_stop_string_ends_with_the_token_that_completes_it_and_frees_the_slot() -> None:
    config = EngineConfig(decode_tokens_per_dispatch=2, check_integrity=True)
    with running_engine(config=config) as (engine, executor):
        plain = generate((18, 1), max_new_tokens=8)
        tokens = expected_tokens(plain, executor.vocab_size)
        assert len(tokens) >= 3
        stopping = generate((18, 1), max_new_tokens=8, stop=(f"{tokens[1]}>",))
        done = engine.submit(stopping).wait(300)
        assert done.sequences[0].tokens == tokens[:2]
        assert done.sequences[0].finish_reason == "stop_string"
        assert engine.wait_idle(300)


def test_result_on_an_event_loop_and_cancel() -> None:
    with running_engine() as (engine, executor):
        request = generate((21, 1), max_new_tokens=4)

        async def run() -> tuple[int, ...]:
            done = await engine.submit(request).result()
            assert isinstance(done, FinishedEvent)
            return done.sequences[0].tokens

        assert asyncio.run(run()) == expected_tokens(request, executor.vocab_size)


def test_the_same_plans_again_give_the_same_results() -> None:
    plans = []
    source = DictSource()
    prompt = source.add("p", 4)
    with running_engine(source=source, recorder=plans.append) as (engine, executor):
        handles = [engine.submit(generate(prompt, (i, 1), max_new_tokens=5)) for i in range(9)]
        for handle in handles:
            handle.wait(300)
        assert engine.wait_idle(300)
        assert plans == executor.plans
        again = replace_executor(executor)
        first = [again.collect(again.dispatch(plan)) for plan in plans]
        other = replace_executor(executor)
        assert first == [other.collect(other.dispatch(plan)) for plan in plans]


def replace_executor(executor: object) -> object:
    return type(executor)(executor.host_prompts)  # type: ignore[attr-defined, call-arg]


def test_settings_of_the_origin_reach_the_journal() -> None:
    with running_engine() as (engine, _):
        request = generate((5, 1), max_new_tokens=2, tenant="acme")
        engine.submit(replace(request)).wait(300)
        key = request.origin.request_id
        lines = [{k: v for k, v in line.items() if k != "time"} for line in engine.journal.entries()]
        assert lines == [
            {"event": "accepted", "id": key, "tenant": "acme"},
            {"event": "outcome", "id": key, "outcome": "ok"},
        ]


class Counting(NullObserver):
    """Keeps what the engine tells."""

    def __init__(self) -> None:
        self.prefills: list[PrefillStep] = []
        self.decodes: list[DecodeStep] = []
        self.rows = [0, 0, 0]
        self.loads: list[bool] = []
        self.first: list[str] = []

    def prefill_step(self, step: PrefillStep) -> None:
        self.prefills.append(step)

    def decode_step(self, step: DecodeStep) -> None:
        self.decodes.append(step)

    def prompt_rows(self, hits: int, loads: int, evictions: int) -> None:
        self.rows = [a + b for a, b in zip(self.rows, (hits, loads, evictions), strict=True)]

    def prompt_loaded(self, seconds: float, size_bytes: int, ok: bool) -> None:
        self.loads.append(ok)

    def first_token(self, origin: Origin, seconds: float) -> None:
        self.first.append(origin.request_id)


def test_the_observer_is_told_what_ran() -> None:
    source, seen = DictSource(), Counting()
    prompts = [source.add(f"p{index}", 20) for index in range(4)]
    with running_engine(source=source, observer=seen) as (engine, _):
        tokens = 0
        for i in range(8):
            request = generate(prompts[i % 4], (i, 1), max_new_tokens=6, task=f"a/t{i % 4}")
            done = engine.submit(request).wait(300)
            tokens += len(done.sequences[0].tokens) + (done.sequences[0].finish_reason == "stop")
        assert engine.wait_idle(300)
    assert sum(step.rows for step in seen.prefills) == 8
    assert {step.real_tokens / step.padded_tokens for step in seen.prefills} == {22 / 64}
    assert sum(step.tokens for step in seen.decodes) == tokens
    assert seen.rows == [0, 8, 5], "64 rows hold three of four prompts; each comes when it was just evicted"
    assert seen.loads == [True] * 4 and len(seen.first) == 8
