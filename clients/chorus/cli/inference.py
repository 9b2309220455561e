"""`chorus generate` and `chorus classify`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chorus.cli.answers import finish, stream_answers, tell_generations
from chorus.cli.mixed import ask_file
from chorus.cli.output import clean
from chorus.cli.session import Session, with_session
from chorus.cli.values import collect_inputs
from chorus.routes.inference import Priority
from chorus.types import FailedItem

priority_option = click.option(
    "--priority",
    type=click.Choice(["interactive", "batch"]),
    help="batch lets your tenant's other requests go first. [default: interactive]",
)


special_tokens_option = click.option(
    "--special-tokens", is_flag=True, default=None, help="Make sentinels of <extra_id_0> and so on."
)


def _biases(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> dict[str, float] | None:
    biases = {}
    for value in values:
        id, equals, bias = value.partition("=")
        try:
            biases[id] = float(bias)
        except ValueError:
            equals = ""
        if not equals or not id.isdecimal():
            raise click.BadParameter(f"{value!r} is not a token id and a bias, such as 1234=-5.")
    return biases or None


def setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each setting of generation. Settings that are not given are left to the task."""
    options = (
        click.option("--max-new-tokens", type=int, help="Most tokens of an answer."),
        click.option("--min-new-tokens", type=int, help="Fewest tokens of an answer."),
        click.option(
            "--temperature", type=float, help="How freely tokens are sampled; 0 always takes the likeliest."
        ),
        click.option("--top-k", type=int, help="Sample among the k likeliest tokens; 0 is off."),
        click.option(
            "--top-p",
            type=float,
            help="Sample among the likeliest tokens with this probability in all; 1 is off.",
        ),
        click.option("--seed", type=int, help="The same seed and input give the same text."),
        click.option("--num-beams", type=int, help="Beams of a beam search: 1 to 10."),
        click.option("--length-penalty", type=float, help="Exponent of --length-penalty-rule."),
        click.option(
            "--length-penalty-rule",
            type=click.Choice(["t5x", "huggingface"]),
            help="How beams of different lengths are compared.",
        ),
        click.option(
            "--repetition-penalty", type=float, help="Makes generated tokens less likely; 1 is off."
        ),
        click.option(
            "--frequency-penalty",
            type=float,
            help="Subtracted from a token's logit each time it was generated; 0 is off.",
        ),
        click.option(
            "--presence-penalty",
            type=float,
            help="Subtracted once from the logit of a token that was generated; 0 is off.",
        ),
        click.option(
            "--no-repeat-ngram-size",
            type=int,
            help="No sequence of this many tokens is generated twice; 0 is off.",
        ),
        click.option(
            "--logit-bias",
            multiple=True,
            metavar="ID=BIAS",
            callback=_biases,
            help="Added to the logit of a token id; repeat.",
        ),
        click.option(
            "--top-logprobs", type=int, help="Show this many likeliest tokens at each place, with --json."
        ),
        click.option("--stop", multiple=True, help="Text that ends the generation; repeat."),
        click.option("-n", "n", type=int, help="How many sequences to generate for each text."),
        click.option("--logprobs", is_flag=True, default=None, help="Show each token's log probability."),
        click.option("--truncate", is_flag=True, default=None, help="Cut a text that is too long."),
        special_tokens_option,
        click.option("--deadline-seconds", type=float, help="Give up after this many seconds."),
        priority_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        name: list(value) if name == "stop" else value
        for name, value in settings.items()
        if value is not None and value != ()
    }


@click.command()
@click.argument("words", nargs=-1, metavar="[TASK] [TEXT]...")
@click.option("--base-model", is_flag=True, help="Ask the base model; every argument is a TEXT.")
@click.option(
    "--field", "fields", multiple=True, metavar="NAME=TEXT", help="A field of the template; repeat."
)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='JSON Lines of {"task", "input", ...settings}; each line may name another task.',
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 512),
    default=32,
    show_default=True,
    help="Lines sent in one request.",
)
@click.option("--stream", is_flag=True, help="Show tokens as they come.")
@setting_options
@with_session
def generate(
    session: Session,
    words: tuple[str, ...],
    base_model: bool,
    fields: tuple[str, ...],
    file: Path | None,
    batch_size: int,
    stream: bool,
    **settings: Any,
) -> None:
    """Generate text for each TEXT with TASK (acme/sst2, acme/sst2@3). If TEXT is `-`, lines are read from
    standard input.
    """
    given = _given(settings)
    if file is not None:
        if words or fields or base_model or stream:
            raise click.UsageError(
                "--file has its own tasks and texts: give only settings and --batch-size with it."
            )
        with session.client() as client:
            tell_generations(session, ask_file(client, file, batch_size, given))
        return
    if not base_model and not words:
        raise click.UsageError("Name the task and a text, or give --base-model or --file.")
    task = None if base_model else words[0]
    inputs = collect_inputs(words if base_model else words[1:], fields)
    with session.client() as client:
        if stream:
            with client.stream(task, inputs=inputs, **given) as events:
                stream_answers(session, events, count=len(inputs))
        else:
            tell_generations(session, client.generate(task, inputs=inputs, **given).results)


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="TASK [TEXT]...")
@click.option(
    "--field", "fields", multiple=True, metavar="NAME=TEXT", help="A field of the template; repeat."
)
@click.option(
    "--label", "labels", multiple=True, help="A label to choose from; repeat. [default: the task's own]"
)
@click.option("--truncate", is_flag=True, default=None, help="Cut a text that is too long.")
@special_tokens_option
@priority_option
@with_session
def classify(
    session: Session,
    words: tuple[str, ...],
    fields: tuple[str, ...],
    labels: tuple[str, ...],
    truncate: bool | None,
    special_tokens: bool | None,
    priority: Priority | None,
) -> None:
    """Rank the labels of TASK for each TEXT. If TEXT is `-`, lines are read from standard input."""
    inputs = collect_inputs(words[1:], fields)
    with session.client() as client:
        answer = client.classify(
            words[0],
            inputs=inputs,
            labels=list(labels) or None,
            truncate=truncate,
            special_tokens=special_tokens,
            priority=priority,
        )
    if not session.as_json:
        for item in answer.results:
            if isinstance(item, FailedItem):
                click.echo("-")
                continue
            shares = sorted(item.probabilities.items(), key=lambda pair: -pair[1])
            click.echo(
                f"{clean(item.label)}  ({', '.join(f'{clean(name)} {share:.3f}' for name, share in shares)})"
            )
    finish(session, answer.results)
