"""The base that ships with Chorus. Its prompts are registered under the server's tenant at the first start.

base_model/model/      a Chorus checkpoint
base_model/prompts/    prompt files
base_model/demo.json   tasks, versions, live versions and ensembles; made by `scripts/make_base.py`
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.documents import read_json
from chorus_server.settings import Settings
from prompts_store.artifacts import ArtifactLimits, read_artifact
from prompts_store.errors import NotFoundError
from prompts_store.names import LIVE
from prompts_store.records import EnsembleMember, PromptManifest
from prompts_store.store import PromptStore

EMBEDDED = "embedded"
_MADE_BY = "chorus"

_HERE = Path(__file__).parent
PLACES = (_HERE / "base_model", _HERE.parents[1] / "base_model")
"""Where the folder is in an installed package, and where in a checkout."""


def embedded_folder() -> Path | None:
    """The folder `base_model`; None if this installation has none."""
    return next((place for place in PLACES if (place / "model" / "chorus.json").is_file()), None)


def model_source(model: str) -> str:
    """What the setting `model` means: the name itself, or the folder of the base that ships.

    Raises:
        InvalidModelError: the setting is `embedded`, and no base ships with this installation.
    """
    if model != EMBEDDED:
        return model
    folder = embedded_folder()
    if folder is None:
        raise InvalidModelError(
            "No base model ships with this installation: pass --model or set CHORUS_MODEL to a folder or a "
            "Hugging Face hub id; it is required.",
            field="model",
        )
    return str(folder / "model")


def register_prompts(
    settings: Settings, store: PromptStore, fingerprint: str, say: Callable[[str], None]
) -> None:
    """If the embedded base is served, register its prompts under the server's tenant. Raises like
    `register_demo`."""
    folder = embedded_folder()
    if settings.model != EMBEDDED or folder is None:
        return
    made, kept = register_demo(store, settings.tenant, folder, fingerprint)
    if made:
        left = f"; left alone, because it has its own: {', '.join(kept)}" if kept else ""
        say(f"registered {len(made)} tasks under the tenant {settings.tenant}: {', '.join(made)}{left}")


def register_demo(
    store: PromptStore, tenant: str, folder: Path, fingerprint: str
) -> tuple[list[str], list[str]]:
    """Publish the prompts of a base under a tenant, each task once.

    A name that the tenant has used before is left alone, even if its task was deleted. Only a registration
    that was interrupted is continued.

    Args:
        folder: the folder `base_model`, laid out as the module says.
        fingerprint: of the base model that was loaded.

    Returns:
        Names of the tasks that were registered, and of those that were left alone.

    Raises:
        InvalidModelError: the prompts belong to another base.
        StoreError: a file is not a prompt for this base, or the store failed.
    """
    path = folder / "demo.json"
    if not path.is_file():
        return [], []
    demo = read_json(path)
    if demo["base_fingerprint"] != fingerprint:
        raise InvalidModelError(
            f"{path.name} holds prompts of the base {demo['base_fingerprint'][:12]}, and {fingerprint[:12]} "
            "is loaded: the folder of the base that ships is damaged; install Chorus again, or pass --model",
            field="model",
        )
    found = {task["task"]: _register_task(store, tenant, folder, task, fingerprint) for task in demo["tasks"]}
    for ensemble in demo["ensembles"]:
        task, name = ensemble["task"], ensemble["name"]
        if found[task] != "kept" and not store.last_ensemble_number(tenant, name):
            members = [EnsembleMember(tenant, task, number) for number in ensemble["versions"]]
            store.publish_ensemble(tenant, name, members, created_by=_MADE_BY)
    return _named(found, "made"), _named(found, "kept")


_Found = Literal["made", "whole", "kept"]
"""What happened to a task: it was published now, was published before, or belongs to the tenant."""


def _named(found: dict[str, _Found], what: _Found) -> list[str]:
    return [name for name, each in found.items() if each == what]


def _register_task(
    store: PromptStore, tenant: str, folder: Path, task: dict[str, Any], fingerprint: str
) -> _Found:
    name, shipped = task["task"], len(task["versions"])
    width = read_json(folder / "model" / "config.json")["d_model"]
    limits = ArtifactLimits(width=width, max_length=4096, base_fingerprint=fingerprint)
    artifacts = [read_artifact(folder / version["file"], limits=limits) for version in task["versions"]]
    begun = store.last_number(tenant, name)
    if begun and not _is_ours(store, tenant, name, begun, [artifact.digest for artifact in artifacts]):
        return "kept"
    for artifact, version in zip(artifacts[begun:], task["versions"][begun:], strict=True):
        manifest = PromptManifest(
            artifact.digest, len(artifact.values), width, base_fingerprint=fingerprint,
            template=task["template"], labels=tuple(task["labels"]), settings=task["settings"],
        )  # fmt: skip
        store.publish(
            tenant, name, artifact.values, manifest, created_by=_MADE_BY,
            lineage=version["lineage"], metrics=version["metrics"], description=task["description"],
        )  # fmt: skip
    # The first version set `@live`; if somebody moved it since, we leave it where they put it.
    moves = [move.moved_by for move in store.alias_history(tenant, name).items if move.alias == LIVE]
    if moves == [_MADE_BY]:
        store.set_alias(tenant, name, LIVE, task["live"], moved_by=_MADE_BY)
    return "made" if begun < shipped else "whole"


def _is_ours(store: PromptStore, tenant: str, name: str, begun: int, digests: list[str]) -> bool:
    """Whether a task holds only the first versions that ship, with the numbers that they were given."""
    try:
        versions = store.list_versions(tenant, name, limit=len(digests) + 1).items
    except NotFoundError:  # deleted
        return False
    return {each.number: each.manifest.digest for each in versions} == dict(enumerate(digests[:begun], 1))
