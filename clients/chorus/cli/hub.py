"""`chorus tasks pull hub:...` and `push-hub`: prompts on the Hugging Face hub."""

from __future__ import annotations

from typing import Any

import click

from chorus import hub
from chorus.cli.output import clean, print_json
from chorus.cli.session import Session, with_session
from chorus.types import Version

PREFIX = "hub:"


def pull_from_hub(session: Session, source: str, task: str | None, **said: Any) -> Version:
    """Fetch an adapter from the hub and push it to the server as the next version of a task."""
    found = hub.download(source.removeprefix(PREFIX))
    task = task or found.repository.partition("/")[2].lower()
    with session.client() as client:
        if said.get("base_fingerprint") is None:
            found.check_base(client.model())
            said["base_fingerprint"] = found.base_fingerprint
        return client.tasks.push(task, found.content, lineage=found.lineage, **said)


@click.command("push-hub")
@click.argument("task")
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--license", help="The hub's word for it: apache-2.0, cc-by-4.0.")
@click.option("--public", is_flag=True, help="Let anybody see a repository that is made now.")
@with_session
def push_hub(session: Session, task: str, repository: str, license: str | None, public: bool) -> None:
    """Commit the prompt of TASK (TASK@live, TASK@3) to OWNER/NAME on the Hugging Face hub.

    It goes there as a PEFT adapter with a model card: base, template, labels, settings and metrics. A new
    repository is private unless --public. The token is HF_TOKEN, or what `hf auth login` wrote.
    """
    with session.client() as client:
        version = client.tasks.version(task)
        adapter = client.tasks.artifact(version.task, version.version, format="peft")
        pushed = hub.upload(
            repository, version, adapter, model=client.model(), license=license, public=public
        )
    if session.as_json:
        print_json({"hub": pushed, "task": version.task, "version": version.version})
    else:
        click.echo(f"{clean(f'{version.task}@{version.version}')} pushed to {PREFIX}{clean(pushed)}")
