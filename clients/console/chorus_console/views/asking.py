"""Trying tasks: one input or a small file, up to four versions beside each other, or a vote."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus import ApiError, AsyncClient, NotFoundError, UnauthenticatedError
from chorus.types import Classification, EnsembleAnswer, FailedItem, Generation, Version
from chorus_console import rows
from chorus_console.door import Visit
from chorus_console.same import Same, same
from chorus_console.templates_of import fields_of

MOST_BESIDE = 4
_SUGGESTED = 100

Input = str | dict[str, str]


@dataclass(slots=True)
class Asked:
    """What one reference answered.

    Attributes:
        version: that answered; None for an ensemble.
        answers: one for each input; empty if all of it failed.
        problem: why it failed.
        seconds: from sending to the answer.
    """

    reference: str
    version: Version | None = None
    answers: Sequence[Classification | Generation | EnsembleAnswer | FailedItem] = ()
    problem: str = ""
    seconds: float = 0.0
    calls: list[Same] = field(default_factory=list)


async def show(visit: Visit) -> Response:
    """The form; references in the address fill it in."""
    query = visit.request.query_params
    references = [each.strip() for each in query.getlist("task") if each.strip()][:MOST_BESIDE]
    page, sets = await asyncio.gather(
        visit.client.tasks.page(limit=_SUGGESTED), visit.client.ensembles.page(limit=_SUGGESTED)
    )
    if not references and page.tasks:
        references = [page.tasks[0].task]
    names = await _fields(visit, references)
    known = [task.task for task in page.tasks] + [each.ensemble for each in sets.ensembles]
    first = references[0] if references else "TASK"
    return await visit.show(
        "try.html", references=references, fields=names, known=known, text=query.get("text", ""),
        same=_call(first, "a joyless mess", "classify"),
    )  # fmt: skip


async def fields(visit: Visit) -> Response:
    """The fields of the templates of the chosen tasks."""
    query = visit.request.query_params
    names = await _fields(visit, [each.strip() for each in query.getlist("task") if each.strip()])
    return await visit.show("try_fields.html", fields=names, text="")


async def _fields(visit: Visit, references: Sequence[str]) -> list[str]:
    """The template fields that all of them have together."""
    names: dict[str, None] = {}
    for reference in references[:MOST_BESIDE]:
        try:
            found = await visit.client.tasks.version(reference)
        except ApiError:  # an ensemble, or what is not there yet while somebody types
            continue
        names |= dict.fromkeys(fields_of(found.template))
    return list(names) or ["text"]


async def ask(visit: Visit) -> Response:
    """Ask, and show the answers."""
    form = await visit.form()
    references = [str(each).strip() for each in form.getlist("task") if str(each).strip()]
    if not 0 < len(references) <= MOST_BESIDE:
        raise HTTPException(400, f"Name 1 to {MOST_BESIDE} tasks, versions or ensembles.")
    inputs, is_file = await _inputs(visit)
    if await visit.text("how") == "vote":
        asked = [await _vote(visit.client, references, inputs)]
    else:
        asked = list(await asyncio.gather(*(_ask(visit.client, each, inputs) for each in references)))
    if is_file:
        return await visit.show("try_rows.html", asked=asked, inputs=inputs, label=rows.label)
    return await visit.show("try_answers.html", asked=asked, input=inputs[0])


async def _inputs(visit: Visit) -> tuple[list[Input], bool]:
    """What to ask about, and whether it is a file."""
    form = await visit.form()
    file, pasted = form.get("file"), await visit.text("rows")
    if isinstance(file, UploadFile) and file.filename:
        content = await file.read()
        found = await asyncio.to_thread(rows.read, content, file.filename)
        return _few(found), True
    if pasted:
        return _few(await asyncio.to_thread(rows.read, pasted.encode(), "")), True
    given = {name.removeprefix("field."): str(form[name]) for name in form if name.startswith("field.")}
    if not any(text.strip() for text in given.values()):
        raise HTTPException(400, "Write something to ask about.")
    return [given], False


def _few(found: list[Input]) -> list[Input]:
    if not found:
        raise HTTPException(400, "The file has no rows.")
    return found


async def _ask(client: AsyncClient, reference: str, inputs: Sequence[Input]) -> Asked:
    """Ask one task or ensemble. What it refuses stands in its own column."""
    try:
        version = await client.tasks.version(reference)
    except NotFoundError as error:
        if error.code not in ("unknown_task", "not_found"):
            return Asked(reference, problem=str(error))
        return await _ensemble(client, reference, inputs, error)
    except UnauthenticatedError:
        raise
    except ApiError as error:
        return Asked(reference, problem=str(error))
    pinned = f"{version.task}@{version.version}"
    texts = [fitting(given, version.template) for given in inputs]
    started, kind = time.perf_counter(), "classify" if version.labels else "generate"
    asked = Asked(pinned, version)
    try:
        asked.answers = (
            (await client.classify(pinned, inputs=texts)).results
            if version.labels
            else (await client.generate(pinned, inputs=texts, logprobs=True)).results
        )
    except UnauthenticatedError:
        raise
    except ApiError as error:
        asked.problem = str(error)
    asked.seconds = time.perf_counter() - started
    asked.calls.append(_call(pinned, texts[0], kind))
    return asked


async def _ensemble(
    client: AsyncClient, reference: str, inputs: Sequence[Input], unknown: NotFoundError
) -> Asked:
    started = time.perf_counter()
    try:
        answers = (await client.ensemble(reference, inputs=[_text(given) for given in inputs])).results
    except NotFoundError:
        return Asked(reference, problem=str(unknown))
    except UnauthenticatedError:
        raise
    except ApiError as error:
        return Asked(reference, problem=str(error))
    seconds, call = time.perf_counter() - started, _call(reference, _text(inputs[0]), "ensemble")
    return Asked(reference, None, answers, "", seconds, [call])


async def _vote(client: AsyncClient, references: Sequence[str], inputs: Sequence[Input]) -> Asked:
    """All of them as one, by majority."""
    name, started = " + ".join(references), time.perf_counter()
    texts = [_text(given) for given in inputs]
    try:
        answers = (await client.ensemble(tasks=references, inputs=texts)).results
    except UnauthenticatedError:
        raise
    except ApiError as error:
        return Asked(name, problem=str(error))
    return Asked(
        name, None, answers, "", time.perf_counter() - started, [_call(references, texts[0], "ensemble")]
    )


def fitting(given: Input, template: str) -> Input:
    """An input as this template takes it: a single field's text goes to a template of one field, whatever its
    name."""
    names = fields_of(template)
    if isinstance(given, str):
        return given if len(names) == 1 else dict.fromkeys(names, given)
    if len(names) == 1 and names[0] not in given:
        return _text(given)
    return {name: given.get(name, "") for name in names}


def _text(given: Input) -> Input:
    """The only field's text, else all fields."""
    return next(iter(given.values())) if isinstance(given, dict) and len(given) == 1 else given


def _call(reference: str | Sequence[str], given: Input, kind: str) -> Same:
    """The same question from elsewhere. A command takes a field by name."""
    given = _text(given)
    if kind == "ensemble":
        many = [] if isinstance(reference, str) else list(reference)
        words = [word for each in many for word in ("--task", each)] or [str(reference)]
        who, named = ("tasks", f"tasks={many!r}") if many else ("ensemble", repr(reference))
        return same(
            "POST",
            "/v1/ensemble",
            f"answer = client.ensemble({named}, input={given!r})",
            *("chorus", "ensemble", "vote", *words, *_words(given)),
            body={who: many or reference, "input": given},
        )
    python = f"answer = client.{kind}({reference!r}, input={given!r})"
    body = {"task": reference, "input": given}
    return same("POST", f"/v1/{kind}", python, "chorus", kind, str(reference), *_words(given), body=body)


def _words(given: Input) -> list[str]:
    if isinstance(given, str):
        return [given]
    return [word for name, text in given.items() for word in ("--field", f"{name}={text}")]
