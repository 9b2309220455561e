"""Rows of a table become bodies of a route, and its answers become columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa
from pydantic_core import from_json, to_json

from chorus_server.api.batch.answering import AnsweredLine
from chorus_server.api.batch.lines import check_alone
from chorus_server.errors import ChorusError, InvalidInputError, TooLargeError
from chorus_server.jobs_wiring import ENDPOINTS
from chorus_server.settings import Settings

DatasetEndpoint = Literal["/v1/generate", "/v1/classify"]
"""The routes whose answers have columns."""

ROW_CODES = frozenset({"invalid_input", "input_too_long", "too_large", "output_not_finite"})
"""Of errors that a row has because of what is in it, whenever it is asked."""

_ROWS_OWN = ("input", "inputs", "requests")
_FRACTIONS = pa.map_(pa.string(), pa.float64())
_KIND_COLUMNS: Mapping[DatasetEndpoint, Mapping[str, pa.DataType]] = {
    "/v1/generate": {"text": pa.string(), "finish_reason": pa.string()},
    "/v1/classify": {"label": pa.string(), "probabilities": _FRACTIONS, "log_probabilities": _FRACTIONS},
}
_EVERY_COLUMN: Mapping[str, pa.DataType] = {
    "task": pa.string(), "version": pa.int64(), "truncated": pa.bool_(), "input_tokens": pa.int64(),
    "output_tokens": pa.int64(), "error": pa.string(), "error_message": pa.string(),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RowQuestion:
    """What is asked of each row.

    Attributes:
        endpoint: the route, as in a batch's file.
        body: of the route, without `input`: the task, labels, sampling settings.
        input: where each row's `input` comes from: the column of the text; or the columns of the template's
            fields, by the field's name.
    """

    endpoint: DatasetEndpoint
    body: Mapping[str, Any]
    input: str | Mapping[str, str]

    def __post_init__(self) -> None:
        """Raises InvalidInputError, which names the field."""
        if self.endpoint not in get_args(DatasetEndpoint):
            known = " or ".join(get_args(DatasetEndpoint))
            raise InvalidInputError(f"It must be {known}.", field="endpoint")
        if not self.input:
            raise InvalidInputError("Name a column, or the column of each field.", field="input")
        if "task" not in self.body:
            raise InvalidInputError("Send a reference, or None for the base model.", field="body.task")
        for name in _ROWS_OWN:
            if name in self.body:
                raise InvalidInputError("Leave it out: it comes from each row.", field=f"body.{name}")
        values = "a" if isinstance(self.input, str) else dict.fromkeys(self.input, "a")
        try:
            check_alone(ENDPOINTS[self.endpoint].body.validated({**self.body, "input": values}))
        except InvalidInputError as error:
            raise InvalidInputError(error.message, field=f"body.{error.field}", code=error.code) from None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"endpoint": self.endpoint, "body": self.body, "input": self.input}

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """The columns of answers, each with its type."""
        found = {**_KIND_COLUMNS[self.endpoint], **_EVERY_COLUMN}
        return {f"answer_{name}": kind for name, kind in found.items()}

    def schema(self, rows: pa.Schema) -> pa.Schema:
        """Of rows with their answers.

        Raises:
            InvalidInputError: a column that is asked for is not there, is there twice or is no text; or one
                of the answers' is there.
        """
        for column in self._asked:
            if column not in rows.names:
                raise InvalidInputError(
                    f"There is no column {column!r}; there are {', '.join(rows.names)[:200]}.", field="input"
                )
            if rows.names.count(column) > 1:
                raise InvalidInputError(f"There are two columns {column!r}: rename one.", field="input")
            if not _is_text(kind := rows.field(column).type):
                raise InvalidInputError(
                    f"The column {column!r} is {kind}, and must be text: cast it to string before.",
                    field="input",
                )
        for name, kind in self.columns.items():
            if name in rows.names:
                raise InvalidInputError(f"The rows have a column {name!r} already: rename it.", field=name)
            rows = rows.append(pa.field(name, kind))
        return rows

    def bodies(self, rows: pa.Table, settings: Settings) -> Iterator[Any | ChorusError]:
        """The checked body of each row, or why it cannot be asked."""
        of_route = ENDPOINTS[self.endpoint].body
        for cells in zip(*(rows[column] for column in self._asked), strict=True):
            try:  # as the bytes that a caller would send
                content = bytearray(to_json({**self.body, "input": self._value(cells)}))
                if len(content) > settings.max_body_bytes:
                    raise TooLargeError(
                        f"With this row a body has {len(content)} bytes, and a request has at most "
                        f"{settings.max_body_bytes}."
                    )
                yield of_route.validated(of_route.parsed(settings, content))
            except (InvalidInputError, TooLargeError) as error:
                yield error.with_traceback(None)  # which would keep the row

    @property
    def _asked(self) -> list[str]:
        """The columns that are read."""
        return [self.input] if isinstance(self.input, str) else list(self.input.values())

    def _value(self, cells: Sequence[pa.Scalar[Any]]) -> Any:
        """The `input` that a row's cells are. Raises InvalidInputError."""
        texts: list[str] = []
        for column, cell in zip(self._asked, cells, strict=True):
            try:
                text = cell.as_py()
            except UnicodeDecodeError:  # Parquet's writers need not check
                raise InvalidInputError(
                    f"The column {column!r} is not valid UTF-8 in this row.", field="input"
                ) from None
            if text is None:
                raise InvalidInputError(f"The column {column!r} is null in this row.", field="input")
            texts.append(text)
        return texts[0] if isinstance(self.input, str) else dict(zip(self.input, texts, strict=True))

    def answered(self, rows: pa.Table, lines: Sequence[AnsweredLine]) -> pa.Table:
        """The rows with the columns of their answers."""
        values: dict[str, list[Any]] = {name: [] for name in self.columns}
        for line in lines:
            found = self._values(line)
            for name, column in values.items():
                column.append(found.get(name.removeprefix("answer_")))
        columns = [pa.array(values[name], kind) for name, kind in self.columns.items()]
        return pa.table([*rows.columns, *columns], schema=self.schema(rows.schema))

    def _values(self, line: AnsweredLine) -> dict[str, Any]:
        body = from_json(line.content)
        if line.status != 200:
            return {"error": body["error"]["code"], "error_message": body["error"]["message"]}
        (answer,) = body["results"]
        for name in ("probabilities", "log_probabilities"):
            if name in answer:
                answer[name] = list(answer[name].items())
        return {**answer, **answer["usage"]}


def _is_text(kind: pa.DataType) -> bool:
    """Whether every value of a column is a text or null."""
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return kind in (pa.string(), pa.large_string(), pa.string_view(), pa.null())
