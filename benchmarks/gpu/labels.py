"""The labels load through the engine: mixed tasks, 100-row prompts, 4 new tokens each, all at once."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scale import Scale, chosen_shapes

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from workload import PROMPT_LENGTH, Load, Request, make_requests, read, synthetic_ids, write

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.executor import build_executor
from chorus_server.engine.host_prompts import HostPromptTier
from chorus_server.engine.requests import GenerateRequest, Origin, PromptHandle
from chorus_server.engine.sampling import Sampling
from chorus_server.engine.thread.engine import Engine
from chorus_server.model.t5 import Model

NEW_TOKENS = 4


def write_work(scale: Scale, folder: Path) -> None:
    """The same requests for every contender."""
    load = Load("labels", scale.label_tasks, scale.label_requests)
    inputs = synthetic_ids(1000, scale.model.vocab_size, load.seed)
    longest = max(scale.label_lengths) - PROMPT_LENGTH
    prompts = np.random.default_rng(1).normal(0, 5, (load.tasks, PROMPT_LENGTH, scale.model.d_model))
    write(folder, load, make_requests(load, inputs, longest), prompts)


class _Prompts:
    def __init__(self, prompts: np.ndarray[Any, Any]) -> None:
        self._prompts = prompts

    def fetch(self, digest: str) -> np.ndarray[Any, Any]:
        return np.ascontiguousarray(self._prompts[int(digest)])


def measure(scale: Scale, model: Model, folder: Path) -> dict[str, Any]:
    requests, prompts = read(folder)
    shapes = chosen_shapes(scale, model)
    ladder = replace(shapes.ladder, score_buckets=())
    host = HostPromptTier(2 * prompts.nbytes, "bfloat16")
    executor, plan = build_executor(model, ladder, scale.label_tasks * PROMPT_LENGTH, host)
    config = EngineConfig(
        max_queued_requests=1 << 20, prefill_token_budget=ladder.max_tokens,
        decode_tokens_per_dispatch=shapes.decode_tokens_per_dispatch,
        compute_dtype="bfloat16", step_timeout_seconds=None,
    )  # fmt: skip
    engine = Engine(executor, _Prompts(prompts), config=config, detokenise=lambda ids: "", host_prompts=host)
    engine.start()
    try:
        taken = [_round(engine, requests) for _ in range(scale.repeats + 1)][1:]
    finally:
        engine.stop()
    return {
        "requests": len(requests), "tasks": scale.label_tasks, "seconds": taken,
        "requests_per_second": len(requests) / statistics.median(taken), "device_bytes_planned": plan.total,
        "shapes": shapes.parts,
    }  # fmt: skip


def _round(engine: Engine, requests: list[Request]) -> float:
    async def answer() -> None:
        handles = [engine.submit(_request(number, request)) for number, request in enumerate(requests)]
        for handle in handles:
            event: Any = await handle.result()
            assert len(event.sequences[0].tokens) == NEW_TOKENS

    started = time.perf_counter()
    asyncio.run(answer())
    return time.perf_counter() - started


def _request(number: int, request: Request) -> GenerateRequest:
    prompt = PromptHandle(str(request.task), PROMPT_LENGTH)
    return GenerateRequest(
        Origin(str(number), task=f"task{request.task}"),
        (prompt, tuple(request.ids)),
        Sampling(max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS),
    )
