"""`chorus status`: whether the server is there and ready, and what it holds."""

from __future__ import annotations

import click

from chorus.cli.output import print_facts, print_json
from chorus.cli.session import Session, with_session


@click.command()
@with_session
def status(session: Session) -> None:
    """Show whether the server is ready, and its base model. Exits with 1 if it is not ready."""
    with session.client() as client:
        ready = client.ready()
        model = client.model() if ready.ready else None
    if session.as_json:
        print_json({"ready": ready, "model": model})
    else:
        progress = f" ({ready.done} of {ready.total} programs)" if ready.total is not None else ""
        facts: dict[str, object] = {"server": session.url, "status": f"{ready.status}{progress}"}
        if ready.store is not None:
            facts["store"] = (
                f"{ready.store.status} for {ready.store.since_seconds:.0f} s: {ready.store.message}"
            )
        if model is not None:
            facts |= {
                "model": model.name,
                "parameters": f"{model.parameters:,}",
                "dtype": model.compute_dtype,
            }
            facts |= {"max input tokens": model.max_input_tokens, "max new tokens": model.max_new_tokens}
            facts |= {"fingerprint": model.fingerprint, "version": model.version}
        print_facts(facts)
    if not ready.ready:
        raise SystemExit(1)
