"""The document of a batch: the route's body, and what the store keeps of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from chorus_server.tuning.document.fields import PRINTABLE, DocumentModel, ShortText, refuse

MOST_LINES = 1_000_000

MOST_METADATA = 16

BatchEndpoint = Literal[
    "/v1/generate", "/v1/classify", "/v1/decisions", "/v1/completions", "/v1/chat/completions"
]
"""The routes whose bodies lines may have."""

Metadata = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=64), PRINTABLE],
        Annotated[str, Field(max_length=512), PRINTABLE],
    ],
    Field(max_length=MOST_METADATA),
]


class BatchDocument(DocumentModel):
    """Which lines to answer, and as which route does."""

    most: ClassVar[Mapping[str, int]] = {"metadata": MOST_METADATA}
    long_texts: ClassVar[Collection[str] | None] = None

    file: ShortText = Field(
        default_factory=str,
        description="Id of the uploaded file, in JSON Lines of `custom_id`, `method`, `url` and `body`. "
        "Required.",
    )
    endpoint: BatchEndpoint | None = Field(
        None, description="The `url` of every line: the route that their bodies are for. Required."
    )
    metadata: Metadata = Field(default_factory=dict, description="Texts of the caller's own, by name.")
    base_fingerprint: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="Fingerprint of a base model; the job is refused on any other."
    )

    def check(self) -> None:
        """Refuse a document without what is required. Raises InvalidInputError."""
        if not self.file:
            message = "is required: upload the lines, and send the id in the answer"
            refuse(message, "file", code="missing_field")
        if self.endpoint is None:
            refuse("is required: the route that the lines are for", "endpoint", code="missing_field")
