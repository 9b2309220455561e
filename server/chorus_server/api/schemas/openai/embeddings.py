"""Body of `/v1/embeddings`, which is refused."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator

from chorus_server.api.schemas.openai.completions import texts_of
from chorus_server.api.schemas.openai.lenient import LenientBody


class EmbeddingsBody(LenientBody):
    """What clients send for embeddings, as far as the refusal depends on it."""

    others: ClassVar[int] = 8192

    input: Annotated[Any, BeforeValidator(lambda value: texts_of(value, "input"))] = None
