"""Chorus's own turn: the engine called directly, all requests handed in at once.

python chorus_worker.py CONTENDER MODEL_FOLDER CACHE_FOLDER MATRIX_DTYPE
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from serve_lines import serve
from workload import Request, ended, read

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.executor import build_executor, use_persistent_cache
from chorus_server.engine.host_prompts import HostPromptTier
from chorus_server.engine.ladder import build_ladder
from chorus_server.engine.metrics import EngineMetrics
from chorus_server.engine.requests import GenerateRequest, Origin, PromptHandle
from chorus_server.engine.sampling import Sampling
from chorus_server.engine.thread.engine import Engine
from chorus_server.kept_memory import keep_freed_memory
from chorus_server.metrics import MetricsRegistry
from chorus_server.model.checkpoints import load_model
from chorus_server.model.fused_attention import choose_attention


class Prompts:
    """Prompt values by a digest that names the folder and the task."""

    def __init__(self) -> None:
        self.tables: dict[str, np.ndarray[Any, Any]] = {}

    def fetch(self, digest: str) -> np.ndarray[Any, Any]:
        folder, task = digest.rsplit("#", 1)
        return np.ascontiguousarray(self.tables[folder][int(task)])


class Chorus:
    """One engine with the server's default ladder, kept for the whole run."""

    def __init__(self, model: str, prompt_rows: int, matrix_dtype: str) -> None:
        loaded = load_model(model, layout="unrolled", dtype="float32", matrix_dtype=matrix_dtype)
        served = loaded.model.with_attention(choose_attention("auto", "float32")[0])
        self._source, self._registry = Prompts(), MetricsRegistry()
        host = HostPromptTier(4 << 30, "float32")
        executor, _ = build_executor(served, build_ladder(), prompt_rows, host)
        config = EngineConfig(max_queued_requests=1 << 20)
        self._engine = Engine(
            executor,
            self._source,
            config=config,
            detokenise=lambda ids: "",
            metrics=EngineMetrics(self._registry),
            host_prompts=host,
        )
        self._engine.start()

    def run(self, folder: Path) -> dict[str, Any]:
        requests, prompts = read(folder)
        self._source.tables[str(folder)] = prompts
        before = self._counted()
        answers = asyncio.run(self._answer(str(folder), requests, prompts.shape[1]))
        if not requests[0].exact:
            return {"answers": [ended(answer) for answer in answers]}
        made = [len(answer) for answer in answers]
        assert made == [request.new_tokens for request in requests], "a request got other than its tokens"
        seconds, tokens = (
            {what: now - before[group][what] for what, now in after.items()}
            for group, after in self._counted().items()
        )
        return {"device_seconds": seconds, "tokens": tokens | {"decoded": sum(made)}}

    def _counted(self) -> dict[str, dict[str, float]]:
        """What the device did so far."""

        def of(name: str, **labels: str) -> float:
            return self._registry.get_sample_value(f"chorus_{name}", labels) or 0

        return {
            "seconds": {
                "prefill": of("prefill_step_seconds_sum", kind="generate"),
                "decode": of("decode_step_seconds_sum"),
            },
            "tokens": {"real": int(of("real_tokens_total")), "padded": int(of("padded_tokens_total"))},
        }

    async def _answer(self, folder: str, requests: list[Request], prompt_length: int) -> list[list[int]]:
        handles = [
            self._engine.submit(_generate(folder, n, request, prompt_length))
            for n, request in enumerate(requests)
        ]
        finished = [await handle.result() for handle in handles]
        return [list(event.sequences[0].tokens) for event in finished]  # type: ignore[union-attr]


def _generate(folder: str, number: int, request: Request, prompt_length: int) -> GenerateRequest:
    count = request.new_tokens
    return GenerateRequest(
        Origin(f"{number}", task=f"task{request.task}"),
        (PromptHandle(f"{folder}#{request.task}", prompt_length), tuple(request.ids)),
        Sampling(max_new_tokens=count, min_new_tokens=count if request.exact else 0),
    )


def main() -> None:
    contender, model, cache, matrix_dtype = sys.argv[1:]
    keep_freed_memory()
    use_persistent_cache(cache)
    serve({contender: Chorus(model, 110_000, matrix_dtype).run})


if __name__ == "__main__":
    main()
