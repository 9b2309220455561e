"""Uploads as OpenAI's clients send them."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

from tests.server.api.api_harness import ApiServer

FILES = "/openai/v1/files"


def push(
    api: ApiServer,
    parts: Mapping[str, str],
    content: bytes = b"{}\n",
    name: str = "train.jsonl",
    **headers: str,
) -> httpx2.Response:
    """The parts come first, then the file."""
    return api.http.post(FILES, data=dict(parts), files={"file": (name, content)}, headers=headers)
