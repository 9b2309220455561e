"""Answers some lines of a batch side by side, each as its route answers a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Response
from pydantic_core import from_json, to_json
from starlette.responses import StreamingResponse

from chorus_server.api.batch.lines import Endpoint
from chorus_server.api.http.disconnect import settle
from chorus_server.api.jobs.patience import PatientCall
from chorus_server.errors import (
    ChorusError,
    EngineDeadError,
    InternalError,
    NotReadyError,
    OverloadedError,
    QuotaExceededError,
    shutting_down,
)
from chorus_server.jobs.line_log import LoggedLine
from prompts_store.errors import StoreError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One line, ready to be asked.

    Attributes:
        request_id: the same in every attempt.
        body: validated; or why it cannot be asked.
    """

    custom_id: str
    request_id: str
    body: Any | ChorusError


@dataclass(frozen=True, slots=True)
class AnsweredLine:
    """One line with its answer.

    Attributes:
        content: JSON.
    """

    line: BatchLine
    status: int
    content: bytes

    def logged(self) -> LoggedLine:
        """As a line of one of the batch's files."""
        good, name, body = self.status == 200, to_json(self.line.request_id), self.content
        response = b'{"status_code":%d,"request_id":%b,"body":%b}' % (
            self.status,
            name,
            body.replace(b"\n", b" "),
        )
        custom_id = to_json(self.line.custom_id)
        text = b'{"id":%b,"custom_id":%b,"response":%b,"error":null}' % (name, custom_id, response)
        return LoggedLine(good, *(_usage(from_json(body)) if good else (0, 0)), text)


async def answer_lines(
    endpoint: Endpoint, lines: Sequence[BatchLine], call: PatientCall
) -> list[AnsweredLine]:
    """The answer to each line, in order.

    Raises:
        QuotaExceededError: a limit lets nothing through for too long.
        NotReadyError, EngineDeadError: the process is ending.
        StoreError: the store does not answer.
    """
    asked: list[asyncio.Future[AnsweredLine]] = []
    try:
        for line in lines:
            asked.append(asyncio.ensure_future(_answer(endpoint, call, line)))
            await asyncio.sleep(0)  # a request that comes meanwhile waits for one line, not for all
        found = [await each for each in asked]
    finally:
        await settle(*asked)
    engine = call.serving.engine
    if engine.dead is not None or engine.draining:
        raise shutting_down()  # any of them may have failed for that reason alone
    return found


async def _answer(endpoint: Endpoint, call: PatientCall, line: BatchLine) -> AnsweredLine:
    response = await _response(endpoint, replace(call, request_id=line.request_id, headers={}), line)
    return AnsweredLine(line, response.status_code, await _content(response))


async def _response(endpoint: Endpoint, call: PatientCall, line: BatchLine) -> Response:
    if isinstance(line.body, ChorusError):
        return endpoint.error_answer(line.body, line.request_id)
    while True:
        try:
            return await endpoint.answer(call, line.body)
        except OverloadedError as error:  # the threads for long texts are all taken
            await asyncio.sleep(error.retry_after_seconds or 1.0)
        except (NotReadyError, EngineDeadError, QuotaExceededError):
            raise
        except (ChorusError, StoreError) as error:
            if error.code == StoreError.default_code:
                raise
            return endpoint.error_answer(error, line.request_id)
        except Exception as error:
            extra = {"request_id": line.request_id}
            logger.error(
                "the line %s failed because of a defect", line.request_id, exc_info=error, extra=extra
            )
            defect = InternalError("The server failed at this line: look up its id in the log.")
            return endpoint.error_answer(defect, line.request_id)


async def _content(response: Response) -> bytes:
    if not isinstance(response, StreamingResponse):
        return bytes(response.body)
    content = bytearray()
    async for piece in response.body_iterator:
        content += piece.encode() if isinstance(piece, str) else piece
    return bytes(content)


def _usage(body: Any) -> tuple[int, int]:
    """Tokens read and written, in the fields of the native routes or of OpenAI's."""
    used = [part.get("usage") or {} for part in (body, *body.get("results", ()))]
    return (
        sum(each.get("input_tokens", each.get("prompt_tokens", 0)) for each in used),
        sum(each.get("output_tokens", each.get("completion_tokens", 0)) for each in used),
    )
