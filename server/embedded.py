"""The base that ships with Chorus, and its prompts, registered on the first start.

base_model/model/      a Chorus checkpoint
base_model/prompts/    prompt files
base_model/demo.json   tasks, versions, which is live, ensembles; made by `scripts/make_base.py`
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prompts_store.artifacts import ArtifactLimits, read_artifact
from prompts_store.records import EnsembleMember, PromptManifest
from prompts_store.store import PromptStore
from server.errors import InvalidModelError
from server.settings import Settings

EMBEDDED = "embedded"
DEMO_TENANT = "demo"

_HERE = Path(__file__).parent
PLACES = (_HERE / "base_model", _HERE.parent / "base_model")
"""In an installed package, and in a checkout."""


def embedded_folder() -> Path | None:
    """The folder `base_model`; None where this installation has none."""
    return next((place for place in PLACES if (place / "model" / "chorus.json").is_file()), None)


def model_source(model: str) -> str:
    """What the setting `model` means: itself, or the folder of the base that ships.

    Raises:
        InvalidModelError: `embedded`, and nothing ships with this installation.
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
    """On the first start with the embedded base: its prompts. Raises as `register_demo`."""
    folder = embedded_folder()
    if settings.model == EMBEDDED and settings.demo_prompts and folder is not None:
        count = register_demo(store, folder, fingerprint)
        if count:
            say(f"registered {count} tasks under the tenant {DEMO_TENANT}")


def register_demo(store: PromptStore, folder: Path, fingerprint: str) -> int:
    """Publish the prompts of a base under the tenant `demo`, unless that tenant has tasks already.

    Args:
        folder: see the module.
        fingerprint: of the base model that was loaded.

    Returns:
        How many tasks were registered.

    Raises:
        InvalidModelError: the prompts belong to another base.
        StoreError: a file is no prompt for this base, or the store failed.
    """
    path = folder / "demo.json"
    if not path.is_file() or store.list_tasks(DEMO_TENANT, limit=1).items:
        return 0
    demo: dict[str, Any] = json.loads(path.read_bytes())
    if demo["base_fingerprint"] != fingerprint:
        raise InvalidModelError(
            f"{path.name} holds prompts of the base {demo['base_fingerprint'][:12]}, and {fingerprint[:12]} "
            "is loaded: the folder of the base that ships is damaged; install Chorus again, or pass --model",
            field="model",
        )
    numbers = {task["task"]: _register_task(store, folder, task, fingerprint) for task in demo["tasks"]}
    for ensemble in demo["ensembles"]:
        members = [
            EnsembleMember(DEMO_TENANT, ensemble["task"], numbers[ensemble["task"]][version - 1])
            for version in ensemble["versions"]
        ]
        store.publish_ensemble(DEMO_TENANT, ensemble["name"], members, created_by="chorus")
    return len(numbers)


def _register_task(store: PromptStore, folder: Path, task: dict[str, Any], fingerprint: str) -> list[int]:
    """Publish every version; the numbers that the store gave them."""
    width = json.loads((folder / "model" / "config.json").read_bytes())["d_model"]
    limits = ArtifactLimits(width=width, max_length=4096, base_fingerprint=fingerprint)
    numbers = []
    for version in task["versions"]:
        artifact = read_artifact(folder / version["file"], limits=limits)
        manifest = PromptManifest(
            artifact.digest, len(artifact.values), width, base_fingerprint=fingerprint,
            template=task["template"], labels=tuple(task["labels"]), settings=task["settings"],
        )  # fmt: skip
        published = store.publish(
            DEMO_TENANT, task["task"], artifact.values, manifest, created_by="chorus",
            lineage=version["lineage"], metrics=version["metrics"], description=task["description"],
        )  # fmt: skip
        numbers.append(published.version.number)
    store.set_alias(DEMO_TENANT, task["task"], "live", numbers[task["live"] - 1], moved_by="chorus")
    return numbers
