"""The lines of a block, one after another on the event loop."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from fastapi import Response

from chorus_server.api.batch.answering import BatchLine, answer_lines
from chorus_server.api.batch.lines import Endpoint
from chorus_server.api.jobs.patience import PatientCall


def test_what_else_the_loop_has_to_do_waits_for_one_line_and_not_for_all() -> None:
    """Each line is prepared on the loop, before it waits for the engine."""
    begun: list[int] = []
    seen: list[int] = []

    async def answer(call: Any, body: int) -> Response:
        begun.append(body)
        await asyncio.sleep(0)
        return Response(b"{}")

    async def asked() -> list[int]:
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def another() -> None:
            seen.append(len(begun))
            if not over.is_set():
                loop.call_soon(another)

        loop.call_soon(another)
        lines = [BatchLine(str(number), f"job.{number}", number) for number in range(16)]
        endpoint = Endpoint(SimpleNamespace(), answer, lambda error, request_id: Response())  # type: ignore[arg-type]
        found = await answer_lines(endpoint, lines, _call())
        over.set()
        return [int(each.line.custom_id) for each in found]

    assert asyncio.run(asked()) == begun == list(range(16))
    assert max(after - before for before, after in pairwise(seen)) == 1


def _call() -> PatientCall:
    anything: Any = SimpleNamespace(engine=SimpleNamespace(dead=None, draining=False))
    return PatientCall(anything, anything, anything, "job", 1.0, lambda: None, {}, "batch")
