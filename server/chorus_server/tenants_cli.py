"""`chorus tenants bootstrap`: the first operator key, made on the store itself. It starts without JAX."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chorus_server.cli import config_options, readable_errors
from chorus_server.settings import STORE_SETTINGS, load_settings

if TYPE_CHECKING:
    from prompts_store.store import PromptStore
    from prompts_store.tenants.records import Key, Scope


@click.command()
@click.option("--name", default="operator", show_default=True, help="Name of what uses the key.")
@click.option("--another", is_flag=True, help="Make a key even if there is a live operator key.")
@config_options(*STORE_SETTINGS, "tenant")
def bootstrap(name: str, another: bool, config: Path | None, **flags: Any) -> None:
    """Make the first operator key, and print it. It is shown only once.

    Run this on the server's machine, with its data folder and database, before the server starts or while
    it runs. From then on callers need a key. An operator key has every scope, and makes tenants and other
    keys:

    \b
    export CHORUS_API_KEY=$(chorus tenants bootstrap)
    chorus tenants create acme
    chorus keys create website --tenant acme --scope infer

    The key belongs to the server's own tenant, which is made if it is not there.
    """
    from chorus_server.storage import open_store

    with readable_errors():
        settings = load_settings(flags, config, listening=False)
        with closing(open_store(settings)) as store:
            made, secret = _make(store, settings.tenant, name, another)
    note = f"{made.id} of the tenant {made.tenant} has every scope. Keep the key now: it is not shown again."
    click.echo(f"note: {note}", err=True)
    click.echo(secret)


def _make(store: PromptStore, tenant: str, name: str, another: bool) -> tuple[Key, str]:
    """An operator key.

    Raises:
        ConflictError: `key_exists`: it would not be the first, and no other is wanted; `too_many_keys`;
            `tenant_suspended`.
        NotFoundError: `unknown_tenant`: it was deleted.
    """
    from prompts_store.errors import ConflictError, NotFoundError
    from prompts_store.tenants.records import SCOPES

    def create() -> tuple[Key, str]:
        first: Scope | None = None if another else "operator"
        return store.create_key(tenant, name, scopes=SCOPES, created_by="bootstrap", first_with=first)

    with suppress(NotFoundError):
        if store.get_tenant(tenant).status == "suspended":
            raise ConflictError(
                f"The tenant '{tenant}' is suspended, so that its keys are refused: name another one.",
                field="tenant",
                code="tenant_suspended",
            )
    try:
        return create()
    except NotFoundError:  # only now, as the name of a tenant that is made is taken for ever
        store.ensure_tenant(tenant, created_by="bootstrap")
        return create()
    except ConflictError as error:
        if error.code != "key_exists":
            raise
        message = f"{error.message} Use that one, or make another with --another."
        raise ConflictError(message, code=error.code) from None
