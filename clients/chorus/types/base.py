"""What the models of all answers share."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from chorus.errors import ApiError, InvalidArgumentError, error_class

T = TypeVar("T")


class Wire(BaseModel):
    """Immutable, and lenient: fields that a newer server adds are kept rather than refused."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class ErrorDetail(Wire):
    """The error of a request, of one item of a batch, or of one member of an ensemble."""

    code: str
    message: str
    field: str | None = None
    request_id: str | None = None
    quota: dict[str, Any] | None = None

    def as_error(self, status: int | None = None, retry_after_seconds: float | None = None) -> ApiError:
        """The exception to raise for this error."""
        return error_class(self.code, status)(
            self.message,
            code=self.code,
            field=self.field,
            request_id=self.request_id,
            status=status,
            retry_after_seconds=retry_after_seconds,
            quota=self.quota,
        )


class Usage(Wire):
    """Token counts of one item. `input_tokens` counts prompt, text and `</s>`; `prompt_tokens` counts the
    prompt's rows among them.
    """

    input_tokens: int
    prompt_tokens: int
    output_tokens: int


class FailedItem(Wire):
    """An item of a batch that failed after the batch was accepted."""

    task: str | None = None
    error: ErrorDetail


class Batch(Wire, Generic[T]):
    """Answers in the order of the request, each a value or a `FailedItem`."""

    id: str
    results: list[T | FailedItem]

    @property
    def failures(self) -> dict[int, ErrorDetail]:
        """The items that failed, by their position in the batch."""
        return {i: item.error for i, item in enumerate(self.results) if isinstance(item, FailedItem)}

    @property
    def values(self) -> list[T]:
        """Every item's value.

        Raises:
            ApiError: the first failed item's error.
        """
        values: list[T] = []
        for item in self.results:
            if isinstance(item, FailedItem):
                raise item.error.as_error()
            values.append(item)
        return values

    @property
    def one(self) -> T:
        """The only item's value.

        Raises:
            ApiError: the item failed.
            InvalidArgumentError: the batch has more than one item.
        """
        if len(self.results) != 1:
            raise InvalidArgumentError(
                f"The answer has {len(self.results)} items; read `values` or `results`."
            )
        return self.values[0]
