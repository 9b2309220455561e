"""Requests through the engine, end to end on the fake executor."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.fake_executor import expected_scores, expected_tokens
from chorus_server.engine.metrics import EngineMetrics
from chorus_server.engine.requests import FinishedEvent, TokensEvent
from chorus_server.metrics import MetricsRegistry
from tests.server.engine.engine_tools import DictSource, generate, running_engine, score


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


def test_what_ran_is_counted() -> None:
    source, registry = DictSource(), MetricsRegistry()
    prompts = [source.add(f"p{index}", 20) for index in range(4)]

    def counted(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"chorus_{name}", labels)

    with running_engine(source=source, metrics=EngineMetrics(registry)) as (engine, _):
        tokens = 0
        for i in range(8):
            request = generate(prompts[i % 4], (i, 1), max_new_tokens=6, task=f"a/t{i % 4}")
            tokens += len(engine.submit(request).wait(300).sequences[0].tokens)
        assert engine.wait_idle(300)
    assert counted("batch_rows_sum", kind="generate") == 8
    passes = counted("batch_rows_count", kind="generate")
    assert passes and counted("padding_share_sum", kind="generate") == pytest.approx(passes * (1 - 22 / 64))
    within = [counted("padding_share_bucket", kind="generate", le=bound) for bound in ("0.6", "0.7")]
    assert within == [0, passes], "each pass was padded alike"
    assert counted("decode_slots_count") == counted("decode_step_seconds_count") > 0
    assert counted("output_tokens_total") == tokens
    rows = [counted(f"prompt_{what}_total") for what in ("hits", "loads", "evictions")]
    assert rows == [0, 8, 5], "64 rows hold three of four prompts; each comes when it was just evicted"
    assert counted("prompt_fetches_total", ok="true") == 4 and counted("first_token_seconds_count") == 8
    assert counted("task_requests_total", task="a/t3", outcome="ok") == 2
    assert counted("queue_seconds_count", kind="generate") == 8, "with timings"
