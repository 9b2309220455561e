"""A job's state on disk: after a kill at any instant, its folder holds the old state or the new one, whole.

    FOLDER/state-STEP-DIGEST.safetensors   prompts, second_moment, best [N, P, D], losses [steps, N], all f32
    FOLDER/job.json                        {"digest": SHA-256 of the canonical JSON of "body", "body": {...}}

`job.json` names the other file and its SHA-256. It is replaced last, which commits the new state. Each file
is written under a temporary name, synced and renamed, and then its folder is synced.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load, save

from chorus_server.errors import InvalidInputError
from chorus_server.jobs.blocks import write_whole
from chorus_server.model.mesh import DeviceMesh
from chorus_server.quality.mistakes import Mistakes
from chorus_server.strict_json import parse_strictly
from chorus_server.tuning.document.earlier_names import renamed_facts
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.state import PromptProgress, TrainingState
from prompts_store.blobs.files import Files
from prompts_store.digests import canonical_json

STATE_FORMAT = 1
_CHANGED_METRICS = {"exact_match", "squad_f1", "f1_binary", "matthews", "pearson"}
"""Metrics whose rules have changed since the first checkpoints."""
_ALONE = "1 x 1"
"""The mesh of one device."""
TENSORS = ("prompts", "second_moment", "best", "losses")


def write_state(
    folder: Path,
    run: TrainingRun,
    state: TrainingState,
    *,
    mesh: DeviceMesh | None = None,
    files: Files | None = None,
) -> None:
    """Write a state, which survives a power cut once this returns.

    Args:
        mesh: the devices on which it was made; None means one.

    Raises:
        OSError: the disk is full or gone; the state from before is still whole.
    """
    files = files or Files()
    files.make_folder(folder)
    losses = np.array(state.losses, np.float32).reshape(len(state.losses), len(state.standings))
    tensors = {
        "prompts": state.prompts,
        "second_moment": state.second_moment,
        "best": state.best,
        "losses": losses,
    }
    content = save({name: np.ascontiguousarray(tensors[name], np.float32) for name in TENSORS})
    digest = hashlib.sha256(content).hexdigest()
    name = f"state-{state.step:08d}-{digest[:16]}.safetensors"
    body = {
        "format": STATE_FORMAT,
        "job": run.digest,
        "step": state.step,
        "evaluated_step": state.evaluated_step,
        "tested": state.tested,
        "ensemble_metrics": state.ensemble_metrics,
        "seconds": state.seconds,
        "tensors": {"file": name, "sha256": digest},
        "standings": [_written(standing) for standing in state.standings],
        "mistakes": [each.mistakes and asdict(each.mistakes) for each in state.standings],
        "random": _random_facts(run, mesh),
    }
    write_whole(files, folder / name, content)
    document = {"digest": hashlib.sha256(canonical_json(body)).hexdigest(), "body": body}
    # Without spaces: the confusion of 128 labels has 16,512 places.
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    write_whole(files, folder / "job.json", text.encode())
    _sweep(files, folder, keep=name)


def read_state(folder: Path, run: TrainingRun) -> TrainingState | None:
    """The state of this job; None if none was ever written.

    Raises:
        InvalidInputError: the folder has the state of another job, or bytes that do not match their digest.
    """
    path = folder / "job.json"
    if not path.exists():
        return None
    body = _body(path)
    if body["job"] != run.digest:
        message = (
            f"{folder.name} holds a checkpoint of other data, another recipe, seed or labels: a file that is "
            "named by its path was changed since; put it back and resume the job, or start a new one"
        )
        raise InvalidInputError(message, field="checkpoint", code="checkpoint_mismatch")
    tensors = _tensors(folder / body["tensors"]["file"], body["tensors"]["sha256"], run)
    return TrainingState(
        step=body["step"],
        evaluated_step=body["evaluated_step"],
        tested=body["tested"] if "tested" in body else body["reported"],
        prompts=tensors["prompts"],
        second_moment=tensors["second_moment"],
        best=tensors["best"],
        losses=list(tensors["losses"]),
        standings=[
            _standing(standing, mistakes)
            # Checkpoints from before mistakes were kept lack them.
            for standing, mistakes in zip_longest(body["standings"], body.get("mistakes", ()))
        ],
        ensemble_metrics=body.get("ensemble_metrics"),
        seconds=body.get("seconds", 0.0),
    )


def _written(standing: PromptProgress) -> dict[str, Any]:
    """Without its mistakes, which stand beside it: a server that knows none can read it too."""
    body = asdict(replace(standing, mistakes=None))
    del body["mistakes"]
    return body


def _standing(body: dict[str, Any], mistakes: dict[str, Any] | None) -> PromptProgress:
    evaluations = [renamed_facts(each) for each in body["evaluations"]]
    made = Mistakes.from_json(mistakes) if mistakes else None
    return PromptProgress(**{**body, "evaluations": evaluations, "mistakes": made})


def made_elsewhere(folder: Path, run: TrainingRun, mesh: DeviceMesh | None = None) -> str | None:
    """A warning if the state was written by another version of JAX, on another platform, on another mesh or
    by other rules: a resumed run may then end with other bits than an uninterrupted one. None if not, or if
    there is no state.

    Args:
        mesh: the devices that share the model now; None means one.
    """
    path = folder / "job.json"
    if not path.exists():
        return None
    then, now = {"devices": _ALONE, **_body(path)["random"]}, _random_facts(run, mesh)
    changed = [f"{name} {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name]]
    return f"the checkpoint was written elsewhere ({'; '.join(changed)})" if changed else None


def _random_facts(run: TrainingRun, mesh: DeviceMesh | None) -> dict[str, Any]:
    """What the bits of a run depend on beside the job itself, and the rules of its recipe and metrics that
    have changed: checkpoints from before the change lack these facts. Those from before jobs ran on several
    devices lack `devices`."""
    rules = {}
    if any(task.recipe.warmup_steps for task in run.tasks):
        rules["warm-up"] = "from zero"
    changed = {name for task in run.tasks for name in task.metrics} & _CHANGED_METRICS
    if changed:
        rules[f"rules of {', '.join(sorted(changed))}"] = "exact, T5's"
    return {
        **rules,
        "seed": run.seed,
        "order": "philox4x64, keys by sha256",
        "dropout": f"threefry2x32, partitionable {jax.config.values['jax_threefry_partitionable']}",
        "jax": jax.__version__,
        "platform": jax.default_backend(),
        "devices": _ALONE if mesh is None else str(mesh),
    }


def _body(path: Path) -> dict[str, Any]:
    try:
        document = parse_strictly(path.read_bytes().decode("utf-8"))
        body: dict[str, Any] = document["body"]
        whole = hashlib.sha256(canonical_json(body)).hexdigest() == document["digest"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _broken(path.name) from error
    if not whole or body.get("format") != STATE_FORMAT:
        raise _broken(path.name)
    return body


def _tensors(path: Path, digest: str, run: TrainingRun) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise _broken(path.name) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise _broken(path.name)
    # Copied, because the library's arrays are read-only views of the file's bytes.
    return {name: array.copy() for name, array in load(content).items()}


def _broken(name: str) -> InvalidInputError:
    message = (
        f"the checkpoint {name} is damaged (its bytes do not match their digest): start a new job with the "
        "same document"
    )
    return InvalidInputError(message, field="checkpoint", code="corrupt_checkpoint")


def _sweep(files: Files, folder: Path, keep: str) -> None:
    """Remove older states and what killed writers left. Not synced: the next sweep removes what comes
    back."""
    for name, _ in list(files.scan(folder)):
        if name.endswith(".partial") or (name.startswith("state-") and name != keep):
            with suppress(FileNotFoundError):
                files.unlink(folder / name)
