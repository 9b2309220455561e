"""Who may be asked, and which column of a file fills which field of their templates."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.responses import Response

from chorus import AsyncClient, ChorusError, NotFoundError
from chorus_console.data import field_name
from chorus_console.door import Visit
from chorus_console.templates_of import fields_of

MOST_ASKED = 4
_SUGGESTED = 100


async def show(visit: Visit) -> Response:
    """A choice of column for each field of the named tasks and ensembles."""
    form = await visit.form()
    names = await template_fields(visit.client, await asked(visit))
    columns = [str(each) for each in form.getlist("column")]
    chosen = {name: next((each for each in columns if field_name(each) == name), "") for name in names}
    return await visit.show("job_fields.html", columns=columns, chosen=chosen)


async def known_names(client: AsyncClient) -> list[str]:
    """Tasks and ensembles to be suggested."""
    tasks, sets = await asyncio.gather(
        client.tasks.page(limit=_SUGGESTED), client.ensembles.page(limit=_SUGGESTED)
    )
    return [task.task for task in tasks.tasks] + [each.ensemble for each in sets.ensembles]


async def asked(visit: Visit) -> list[str]:
    """The references in a form."""
    found = [str(each).strip() for each in (await visit.form()).getlist("subject")]
    return [each for each in found if each][:MOST_ASKED]


async def template_fields(client: AsyncClient, references: Sequence[str]) -> list[str]:
    """The fields that the templates of all of them have together; those of an ensemble are its first
    member's."""
    names: dict[str, None] = {}
    for reference in references:
        try:
            version = await client.tasks.version(reference)
        except NotFoundError:
            try:
                member = (await client.ensembles.get(reference)).members[0]
                version = await client.tasks.version(f"{member.task}@{member.version}")
            except ChorusError:  # or what is not there yet while somebody types
                continue
        except ChorusError:
            continue
        names |= dict.fromkeys(fields_of(version.template))
    return list(names)


async def columns_of_fields(visit: Visit) -> dict[str, str]:
    """Which column fills which field, as the form says."""
    form = await visit.form()
    given = {name.removeprefix("field."): str(form[name]) for name in form if name.startswith("field.")}
    return {name: column for name, column in given.items() if column}
