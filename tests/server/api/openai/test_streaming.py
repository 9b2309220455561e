"""A stream that fails says so in a `data:` line before its last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chorus_server.engine.plans import StepPlan
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer
from tests.server.api.openai.openai_harness import TEXT, streamed

CHAT = {"model": "mood", "messages": [{"role": "user", "content": TEXT}]}
COMPLETIONS = {"model": "mood", "prompt": [TEXT, "rain"]}


class Fuse:
    """Kills the engine at its next step, once it is lit."""

    def __init__(self) -> None:
        self.lit = False

    def __call__(self, plan: StepPlan) -> None:
        if self.lit:
            raise RuntimeError("the fuse")


@pytest.mark.parametrize(("path", "body"), [("chat/completions", CHAT), ("completions", COMPLETIONS)])
def test_an_error_inside_a_stream_ends_it(
    tmp_path: Path, vocabulary: Vocabulary, path: str, body: dict[str, Any]
) -> None:
    fuse = Fuse()
    with ApiServer(tmp_path, vocabulary, on_dispatch=fuse, on_death=lambda error: None) as api:
        api.push("mood")
        assert not any("error" in chunk for chunk in streamed(api, path, body))  # the control
        fuse.lit = True
        *before, last = streamed(api, path, body)
        assert set(last["error"]) == {"message", "type", "param", "code"}
        assert (last["error"]["code"], last["error"]["type"]) == ("engine_dead", "overloaded_error")
        assert not any("error" in chunk for chunk in before)
        answer = api.post(f"/openai/v1/{path}", body)  # too late for a stream
        assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "false")
