"""Wiring of tenants: settings, key files and a store become callers and the reader of the change feed."""

from __future__ import annotations

from chorus_server.api.http.offload import Offload
from chorus_server.api.library.resolve import PromptLibrary
from chorus_server.api.metrics import Metrics
from chorus_server.changes.reader import ChangeReader
from chorus_server.settings import Settings, check_bind
from chorus_server.storage import open_storage
from chorus_server.tenancy.budgets import Budgets
from chorus_server.tenancy.callers import Callers
from chorus_server.tenancy.keys import KeyRing, load_keys
from chorus_server.tenancy.last_use import LastUse
from chorus_server.tenancy.sessions import Sessions
from prompts_store.names import check_name
from prompts_store.store import PromptStore


def open_with_keys(settings: Settings) -> tuple[KeyRing, PromptStore]:
    """The keys of the settings' files, and the store, with the tenant that they belong to.

    Raises:
        InvalidInputError: a key file cannot be used, or others could reach a server without any key; names
            the setting.
        StoreError: the data folder cannot be used, or the tenant's name is not valid, or it was deleted.
    """
    check_name(settings.tenant, field="tenant")
    ring = load_keys(
        settings.tenant, settings.operator_key_file, settings.api_key_file, settings.scrape_token_file
    )
    store = open_storage(settings)
    try:
        store.ensure_tenant(settings.tenant, created_by="settings")
        check_bind(settings, keyed=ring.required or store.holds_keys())
    except BaseException:
        store.close()
        raise
    return ring, store


def make_callers(settings: Settings, ring: KeyRing, library: PromptLibrary, metrics: Metrics) -> Callers:
    """Who may come in: with a key, and on loopback without one while there is none."""
    keyless = settings.is_loopback or settings.insecure_bind
    last_use = LastUse(library.store, library.save)
    return Callers(library.store, ring, library.ask, last_use, metrics.tenancy, keyless=keyless)


def make_sessions(library: PromptLibrary, callers: Callers) -> Sessions:
    """Who is signed in to the console."""
    return Sessions(library.store, callers, library.ask, library.save)


def make_budgets(library: PromptLibrary, metrics: Metrics) -> Budgets:
    """What each may use, leased of the library's store on a thread of its own."""
    return Budgets(library.store.lease_budgets, Offload(1, 2, "budgets"), metrics.budgets)


def change_reader(library: PromptLibrary, callers: Callers) -> ChangeReader:
    """What tells both of what changed, on a thread of its own."""
    thread = Offload(1, 1, "change feed")
    return ChangeReader(library.store, thread, (library, callers), library.health.note_feed)
