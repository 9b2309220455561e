"""Trying tasks: one input or a small file, up to four versions beside each other, or a vote."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus import (
    ApiError,
    AsyncClient,
    ChorusError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
)
from chorus.routes.inference import ClassifyItem, GenerateItem
from chorus.types import Classification, EnsembleAnswer, FailedItem, Generation, Version
from chorus_console import rows
from chorus_console.door import Visit
from chorus_console.same import Same, same
from chorus_console.templates_of import fields_of
from chorus_console.views.asked_fields import known_names

MOST_BESIDE = 4
_MOST_TOGETHER = 64
"""Rows of one request for several versions. More fill batches of their own."""

Input = str | dict[str, str]


@dataclass(slots=True)
class Asked:
    """What one reference answered.

    Attributes:
        version: that answered; None for an ensemble, and for a key that sees no versions.
        answers: one for each input; empty if all of it failed.
        problem: why it failed.
        seconds: from sending to the answer.
        shared: whether others were asked in the same request.
    """

    reference: str
    version: Version | None = None
    answers: Sequence[Classification | Generation | EnsembleAnswer | FailedItem] = ()
    problem: str = ""
    seconds: float = 0.0
    shared: bool = False
    calls: list[Same] = field(default_factory=list)


async def show(visit: Visit) -> Response:
    """The form; references in the address fill it in."""
    await visit.needs("infer")
    query, sees = visit.request.query_params, "prompts:read" in (await visit.me()).scopes
    references = [each.strip() for each in query.getlist("task") if each.strip()][:MOST_BESIDE]
    known = await (known_names(visit.client) if sees else _named_in_the_key(visit))
    references = references or known[:1]
    names = await _fields(visit, references)
    first = references[0] if references else "TASK"
    return await visit.show(
        "try.html", references=references, fields=names, known=known, text=query.get("text", ""), sees=sees,
        same=_call(first, "a joyless mess", "classify").doing("Ask"),
    )  # fmt: skip


async def _named_in_the_key(visit: Visit) -> list[str]:
    """What a key that sees no list may ask, as far as it is told by name."""
    key = (await visit.me()).key
    return [each for each in (key.tasks or () if key else ()) if "*" not in each]


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
        except ChorusError:  # an ensemble, or what is not there yet while somebody types
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
        asked = await _side_by_side(visit.client, references, inputs)
    if is_file:
        return await visit.show("try_rows.html", asked=asked, inputs=inputs, label=rows.label)
    return await visit.show("try_answers.html", asked=asked, together=_together(asked, inputs[0]))


async def _inputs(visit: Visit) -> tuple[list[Input], bool]:
    """What to ask about, and whether it is a file."""
    form = await visit.form()
    file, pasted = form.get("file"), await visit.text("rows")
    if isinstance(file, UploadFile) and file.filename:
        content = await file.read()
        found = await visit.work(rows.read, content, file.filename)
        return _few(found), True
    if pasted:
        return _few(await visit.work(rows.read, pasted.encode(), "")), True
    given = {name.removeprefix("field."): str(form[name]) for name in form if name.startswith("field.")}
    if not any(text.strip() for text in given.values()):
        raise HTTPException(400, "Write something to ask about.")
    return [given], False


def _few(found: list[Input]) -> list[Input]:
    if not found:
        raise HTTPException(400, "The file has no rows.")
    return found


async def _side_by_side(
    client: AsyncClient, references: Sequence[str], inputs: Sequence[Input]
) -> list[Asked]:
    """Ask each. What one of them refuses stands in its own column. Versions that rank labels are asked in one
    request, whose rows the server puts into one batch, and so are those that write text."""
    asked = [Asked(reference) for reference in references]
    if not all(await asyncio.gather(*(_find(client, each) for each in asked))):
        await asyncio.gather(*(_ask_unseen(client, each, inputs) for each in asked))
        return asked
    found = [each for each in asked if each.version is not None]
    ranking = [each for each in found if each.version is not None and each.version.labels]
    writing = [each for each in found if each not in ranking]
    sets = [each for each in asked if each.version is None and not each.problem]
    await asyncio.gather(
        _ask(client, "classify", ranking, inputs),
        _ask(client, "generate", writing, inputs),
        *(_ensemble(client, each, inputs) for each in sets),
    )
    return asked


async def _find(client: AsyncClient, asked: Asked) -> bool:
    """The version that a reference means; none if it may be an ensemble's. Returns whether the caller may see
    versions at all."""
    try:
        asked.version = await client.tasks.version(asked.reference)
    except UnauthenticatedError:
        raise
    except ForbiddenError:
        return False
    except ChorusError as error:  # also of the client, for what is no reference
        if not isinstance(error, NotFoundError) or error.code not in ("unknown_task", "not_found"):
            asked.problem = str(error)
    else:
        asked.reference = f"{asked.version.task}@{asked.version.version}"
    return True


async def _ask_unseen(client: AsyncClient, asked: Asked, inputs: Sequence[Input]) -> None:
    """Ask for a key that may ask and see nothing: by labels, if there are none by text, and if there is no
    such task, an ensemble."""
    texts, kind, started = [_text(given) for given in inputs], "classify", time.perf_counter()
    try:
        try:
            asked.answers = await _answers(client, kind, [asked], [texts])
        except InvalidInputError as error:
            if error.field != "labels":
                raise
            kind = "generate"
            asked.answers = await _answers(client, kind, [asked], [texts])
    except UnauthenticatedError:
        raise
    except NotFoundError:
        await _ensemble(client, asked, inputs)
        return
    except ApiError as error:
        asked.problem = str(error)
    asked.seconds = time.perf_counter() - started
    asked.calls.append(_call(asked.reference, texts[0], kind))


async def _ask(client: AsyncClient, kind: str, group: Sequence[Asked], inputs: Sequence[Input]) -> None:
    """Ask versions in one request; one by one if there is too much for that, or it is refused for what one of
    them does not take."""
    if len(group) * len(inputs) > _MOST_TOGETHER and len(group) > 1:
        await asyncio.gather(*(_ask(client, kind, [each], inputs) for each in group))
        return
    texts = [[fitting(given, _template(each)) for given in inputs] for each in group]
    started = time.perf_counter()
    try:
        answers = await _answers(client, kind, group, texts)
    except UnauthenticatedError:
        raise
    except ApiError as error:
        if len(group) > 1:
            await asyncio.gather(*(_ask(client, kind, [each], inputs) for each in group))
            return
        group[0].problem, answers = str(error), []
    seconds = time.perf_counter() - started
    for place, each in enumerate(group):
        each.answers = answers[place * len(inputs) : (place + 1) * len(inputs)]
        each.seconds, each.shared = seconds, len(group) > 1
        each.calls.append(_call(each.reference, texts[place][0], kind))


async def _answers(
    client: AsyncClient, kind: str, group: Sequence[Asked], texts: Sequence[Sequence[Input]]
) -> Sequence[Classification | Generation | FailedItem]:
    """The answers of all, one after another. Raises as a client does."""
    pairs = [(each.reference, text) for each, some in zip(group, texts, strict=True) for text in some]
    if not pairs:
        return []
    if kind == "classify":
        items: list[ClassifyItem] = [{"task": task, "input": text} for task, text in pairs]
        return (await client.classify(requests=items)).results
    asked: list[GenerateItem] = [{"task": task, "input": text} for task, text in pairs]
    return (await client.generate(requests=asked, logprobs=True)).results


def _template(asked: Asked) -> str:
    return asked.version.template if asked.version is not None else "{text}"


async def _ensemble(client: AsyncClient, asked: Asked, inputs: Sequence[Input]) -> None:
    started = time.perf_counter()
    try:
        answer = await client.ensemble(asked.reference, inputs=[_text(given) for given in inputs])
        asked.answers = answer.results
    except UnauthenticatedError:
        raise
    except NotFoundError:
        asked.problem = f"There is no task, version or ensemble {asked.reference!r}."
    except ApiError as error:
        asked.problem = str(error)
    asked.seconds = time.perf_counter() - started
    asked.calls.append(_call(asked.reference, _text(inputs[0]), "ensemble"))


def _together(asked: Sequence[Asked], given: Input) -> list[Same]:
    """The requests in which several were asked."""
    found = []
    for kind, answer in (("classify", Classification), ("generate", Generation)):
        group = [each for each in asked if each.shared and isinstance(next(iter(each.answers), None), answer)]
        if group:
            items = [
                {"task": each.reference, "input": _text(fitting(given, _template(each)))} for each in group
            ]
            python = f"answers = client.{kind}(requests={items!r})"
            found.append(same("POST", f"/v1/{kind}", python, body={"requests": items}).doing("All at once"))
    return found


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
    asked = Asked(name, None, answers, seconds=time.perf_counter() - started)
    asked.calls.append(_call(references, texts[0], "ensemble"))
    return asked


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
