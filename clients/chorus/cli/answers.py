"""How generated texts are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from chorus.cli.output import clean, print_error, print_json
from chorus.cli.session import Session
from chorus.types import (
    DoneEvent,
    ErrorEvent,
    FailedItem,
    Generation,
    ResultEvent,
    StreamEvent,
    TokenEvent,
)


def finish(session: Session, results: Sequence[Any]) -> None:
    """Print the JSON if asked for, and a sentence for each failed item. Exit with code 1 if there are any."""
    if session.as_json:
        print_json({"results": results})
    failed = False
    for index, item in enumerate(results):
        if isinstance(item, FailedItem):
            failed = True
            print_error(item.error, f" (input {index})")
    if failed:
        raise SystemExit(1)


def tell_generations(session: Session, results: Sequence[Generation | FailedItem]) -> None:
    """Print one text on each line, in the order of the inputs. A failed item is a `-`, so that lines still
    match inputs."""
    if not session.as_json:
        for item in results:
            if isinstance(item, FailedItem):
                click.echo("-")
                continue
            for text in [choice.text for choice in item.choices or []] or [item.text]:
                click.echo(clean(text))
    finish(session, results)


def stream_answers(session: Session, events: Iterable[StreamEvent], *, count: int) -> None:
    """Print tokens as they come for one text, whole numbered texts for several, or events as JSON Lines."""
    failed = False
    written = False
    for event in events:
        if session.as_json:
            print_json({"event": _name(event), **event.model_dump(mode="json")}, one_line=True)
        match event:
            case ErrorEvent():
                failed = True
                print_error(event.error, "" if event.index is None else f" (input {event.index})")
            case TokenEvent() if not session.as_json and count == 1 and event.choice == 0:
                written = True
                click.echo(clean(event.text), nl=False)
            case ResultEvent() if not session.as_json:
                text = clean(event.result.text)
                click.echo("" if written else text if count == 1 else f"[{event.index}] {text}")
            case _:
                pass
    if failed:
        raise SystemExit(1)


def _name(event: StreamEvent) -> str:
    names: dict[type[Any], str] = {
        TokenEvent: "token",
        ResultEvent: "result",
        ErrorEvent: "error",
        DoneEvent: "done",
    }
    return names[type(event)]
