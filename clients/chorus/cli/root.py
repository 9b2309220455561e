"""The `chorus` group: its own commands, and those that other installed parts offer."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from chorus.cli import (
    audit,
    batch,
    bench,
    calibrate,
    datasets,
    ensembles,
    evaluate,
    files,
    grants,
    inference,
    jobs,
    keys,
    operations,
    packs,
    service,
    sweep,
    tasks,
    tenants,
    tune,
    usage,
)
from chorus.cli.offered import OfferingGroup
from chorus.cli.output import print_error
from chorus.cli.session import merge, session_options
from chorus.config import URL_VARIABLE
from chorus.errors import ChorusError, InvalidArgumentError

DISTRIBUTION = "chorus-prompts"
SHORT_HELP = {
    "serve": "Load a base model and answer over HTTP (extra: server).",
    "models": "Describe and convert base models (extra: server).",
    "compile": "Compile what a server needs, keep it, and end (extra: server).",
    "pretrain": "Make a base model from text (extra: server).",
    "adapt": "Train a base model further: LM adaptation (extra: server).",
    "store": "Check, back up, restore, migrate and collect a store (extra: server).",
    "worker": "Run tuning jobs in a separate process (extra: server).",
}
"""Help of this distribution's entry points."""


class Root(OfferingGroup):
    """The group of all commands."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. An error is one sentence on standard error, and the exit code is 1, or 2 if the
        command was not understood.
        """
        try:
            return super().invoke(ctx)
        except ChorusError as error:
            print_error(error)
            ctx.exit(2 if isinstance(error, InvalidArgumentError) else 1)


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


@click.group(
    cls=Root,
    offers="chorus.commands",
    offered_help=SHORT_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(_version(), prog_name="chorus")
@session_options
@click.pass_context
def chorus(context: click.Context, /, **given: Any) -> None:
    """One frozen T5, many soft prompts, one batch.

    \b
    chorus serve
    chorus generate sentiment "a joyless mess"
    chorus tasks push sst2 prompt.safetensors --label negative --label positive
    chorus classify sst2 "A warm, patient film."
    """
    given["url"] = given["url"] or os.environ.get(URL_VARIABLE)
    context.obj = merge(None, given)


for command in (
    tasks.tasks,
    files.files,
    datasets.datasets,
    tune.tune,
    sweep.sweep,
    calibrate.calibrate,
    evaluate.evaluate,
    batch.batch,
    jobs.jobs,
    inference.generate,
    inference.classify,
    ensembles.ensemble,
    packs.packs,
    grants.shared,
    tenants.tenants,
    keys.keys,
    audit.audit,
    service.status,
    service.whoami,
    operations.operations,
    usage.usage,
    bench.bench,
):
    chorus.add_command(command)


def main() -> None:
    """The console script."""
    chorus(prog_name="chorus")
