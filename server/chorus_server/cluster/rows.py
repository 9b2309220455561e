"""Rows of Ray Data, answered with an engine in each of Ray's actors.

rows.map_batches(
    RowAnswers,
    fn_constructor_kwargs={
        "endpoint": "/v1/classify", "body": {"task": "sentiment"}, "input": "text",
    },
    batch_format="pyarrow", batch_size=4096, compute=ray.data.ActorPoolStrategy(size=2),
)
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from chorus_server.api.batch.answering import AnsweredLine, BatchLine, answer_lines
from chorus_server.api.batch.work import LINES_AT_ONCE
from chorus_server.api.http.disconnect import settle
from chorus_server.api.jobs.attempt import BLOCKS_AT_ONCE
from chorus_server.cluster.host import Host
from chorus_server.cluster.questions import DatasetEndpoint, RowQuestion
from chorus_server.errors import ChorusError, InvalidInputError, shutting_down
from chorus_server.jobs_wiring import ENDPOINTS
from chorus_server.settings import load_settings
from prompts_store.errors import StoreError

STORE_SECONDS = 60.0
"""How long rows wait for a store that does not answer."""

_STORE_PAUSE_SECONDS = 1.0


class RowAnswers:
    """A class for `map_batches`: an actor of it has the base, the store and an engine, as a server has.

    It takes batches in the format `pyarrow` and adds columns whose names begin with `answer_`. A row that
    cannot be answered has its error there, and no other row notices.

    Args:
        endpoint: `/v1/generate` or `/v1/classify`, as in a batch's file.
        body: of that route, without `input`: `{"task": "sentiment@live"}` and its settings. None as the task
            means the base model.
        input: the column of the text; or, for a template's fields, the column of each.
        settings: as the flags of `chorus serve`, such as `{"data_dir": "/var/lib/chorus"}`; the rest comes
            from the environment of the actor, as a server's does.

    Attributes:
        question: what each row is asked.

    Raises:
        InvalidInputError: an argument is not valid; names the field.
        NotFoundError: there is no such task.
        ChorusError, StoreError: the store or the model cannot be used.
    """

    _host: Host | None = None

    def __init__(
        self,
        endpoint: DatasetEndpoint,
        body: Mapping[str, Any],
        input: str | Mapping[str, str],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.question = RowQuestion(endpoint, body, input)
        self._settings = load_settings(settings, listening=False)
        self._name = f"dataset-{secrets.token_hex(6)}"
        self._numbers = itertools.count()
        self._host = host = Host(self._settings)
        try:
            host.run(self._check_task(host))
        except BaseException:
            self.close()
            raise

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The rows `[B]` with their answers, in the same order.

        Raises:
            InvalidInputError: a column is not there, or is there already; or the format is another.
            QuotaExceededError: a limit of the tenant lets nothing through for minutes.
            ForbiddenError, UnauthenticatedError: the tenant was suspended or deleted.
            StoreError: the store did not answer for a minute.
        """
        if not isinstance(batch, pa.Table):
            raise InvalidInputError("Give map_batches batch_format='pyarrow'.", field="batch_format")
        self.question.schema(batch.schema)
        lines = [
            BatchLine("", f"{self._name}.{next(self._numbers)}", body)
            for body in self.question.bodies(batch, self._settings)
        ]
        if self._host is None:
            raise shutting_down()
        answered = self._host.run(self._answer_all(self._host, lines))
        self._host.services.usage.save()  # Ray may end the process at any time
        return self.question.answered(batch, answered)

    def close(self) -> None:
        """End the engine. May be called again."""
        if self._host is not None:
            self._host.close()
            self._host = None

    def __del__(self) -> None:
        self.close()

    async def _check_task(self, host: Host) -> None:
        task, services = self.question.body["task"], host.services
        if task is not None:
            tenant, fingerprint = self._settings.tenant, services.base().fingerprint
            async with services.library.held([(task, "body.task")], tenant, fingerprint):
                pass

    async def _answer_all(self, host: Host, lines: Sequence[BatchLine]) -> list[AnsweredLine]:
        turns = asyncio.Semaphore(BLOCKS_AT_ONCE)

        async def answer(block: Sequence[BatchLine]) -> list[AnsweredLine]:
            async with turns:
                return await self._answer(host, block)

        starts = range(0, len(lines), LINES_AT_ONCE)
        asked = [asyncio.ensure_future(answer(lines[start : start + LINES_AT_ONCE])) for start in starts]
        try:
            return [line for block in await asyncio.gather(*asked) for line in block]
        finally:
            await settle(*asked)

    async def _answer(self, host: Host, block: Sequence[BatchLine]) -> list[AnsweredLine]:
        until = time.monotonic() + STORE_SECONDS
        while True:
            try:
                call = await host.call(self._name)
                return await answer_lines(ENDPOINTS[self.question.endpoint], block, call)
            except (ChorusError, StoreError) as error:
                if error.code != StoreError.default_code or time.monotonic() >= until:
                    raise
            await asyncio.sleep(_STORE_PAUSE_SECONDS)
