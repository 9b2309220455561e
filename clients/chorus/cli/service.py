"""`chorus status`: whether the server is there and ready, and what it holds. `chorus whoami`: who asks it."""

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


@click.command()
@with_session
def whoami(session: Session) -> None:
    """Show your tenant, your key and what it may do. Also how much one request may ask for, and what is left
    of your limits.
    """
    with session.client() as client:
        me = client.me()
    if session.as_json:
        print_json(me)
        return
    facts: dict[str, object] = {
        "tenant": me.tenant.tenant,
        "display name": me.tenant.display_name or None,
        "weight": me.tenant.weight,
    }
    if me.key is None:
        facts["key"] = "none is needed"
    else:
        facts["key"] = me.key.name if me.key.id is None else f"{me.key.name} ({me.key.id})"
        facts["expires"] = me.key.expires_at or "never"
        facts["tasks"] = me.key.tasks or "any"
    facts["scopes"] = me.scopes
    limits = me.limits
    facts |= {
        "largest body": f"{limits.max_body_bytes:,} bytes",
        "largest upload": f"{limits.max_upload_bytes:,} bytes",
        "largest batch": f"{limits.max_batch_rows:,} rows",
        "longest deadline": f"{limits.max_deadline_seconds:g} s",
        "unfinished jobs": f"at most {limits.max_unfinished_jobs:,}",
    }
    for each in limits.left:
        name = f"{each.of}'s {each.limit.replace('_', ' ').replace('.', ', ')}"
        if each.most is None or each.left is None:
            facts[name] = f"{each.used:,} used, a warning from {each.soft or 0:,} on"
        else:
            facts[name] = f"{each.left:,} of {each.most:,} left"
    print_facts(facts)
