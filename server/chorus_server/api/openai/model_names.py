"""The `model` of OpenAI's bodies, and what it means here.

task, task@3, task@live, tenant/task@3     a reference; a tenant's own tasks need no tenant
base, or the base model's own name         the base model
a name that the operator has mapped        whatever it is mapped to
"""

from __future__ import annotations

from chorus_server.api.services import Services
from chorus_server.settings import Settings

BASE = "base"
"""Names the base model, beside its own name."""


def mapped_names(settings: Settings) -> dict[str, str]:
    """What the operator has mapped: a reference or `base` by name."""
    pairs = (pair.partition("=") for pair in settings.decision_models)
    return {name.strip(): meaning.strip() for name, _, meaning in pairs}


def reference_of(services: Services, name: str) -> str | None:
    """The reference that a model's name means; None for the base model. Raises NotReadyError before that is
    loaded."""
    meaning = mapped_names(services.settings).get(name, name)
    return None if meaning in (BASE, services.base().name) else meaning


def model_id(owner: str, task: str, number: int, tenant: str) -> str:
    """The name of a version for a tenant: `task@3` where the tenant owns it, else `owner/task@3`."""
    named = f"{task}@{number}"
    return named if owner == tenant else f"{owner}/{named}"
