"""A run's state on the disk: Orbax checkpoints, each complete or absent.

FOLDER/STEP/state   weights by canonical name, optimiser state by number, f32
FOLDER/STEP/facts   JSON: what the curve needs, and which run it must be
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from chorus_server.errors import InvalidInputError

KEPT = 2


@dataclass
class State:
    """How far a run is.

    Attributes:
        step: optimiser steps that were done.
        tensors: weights by canonical name, f32.
        optimiser: optax state.
        tokens: ids seen, without padding.
        seconds: training time over all sittings.
        pending: losses and shares of hits for the steps since the last line of the curve.
    """

    step: int
    tensors: Any
    optimiser: Any
    tokens: int = 0
    seconds: float = 0.0
    pending: list[tuple[float, float]] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        identity: what decides the run's numbers. A checkpoint with another identity is refused. `steps` and
            `cooldown_steps` may differ if the cooldown of neither run has affected the checkpoint.
        background: whether to write while training goes on; costs a copy of the state in memory.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], *, background: bool) -> None:
        self._identity, self._background = identity, background
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT, enable_async_checkpointing=background, create=True
        )
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, state: State) -> None:
        """Write a state. It is durable when this returns or, if written in the background, after `close`."""
        if self._manager.latest_step() == state.step:
            return
        tree = _tree(state.tensors, state.optimiser)
        if self._background:  # copy: the next step gets the arrays donated while they are still being written
            tree = jax.tree.map(jnp.copy, tree)
        facts = {
            "tokens": state.tokens, "seconds": state.seconds, "pending": state.pending,
            "identity": self._identity,
        }  # fmt: skip
        self._manager.save(
            state.step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(tree), facts=ocp.args.JsonSave(facts)),
        )

    def restore(self, tensors: Any, optimiser: Any) -> State | None:
        """The newest state; None if there is none.

        Args:
            tensors, optimiser: arrays in the structure, shapes and placement wanted.

        Raises:
            InvalidInputError: the state belongs to another run.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        facts = self._manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore())).facts
        self._check(facts["identity"], step)
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, _tree(tensors, optimiser))
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        found = self._manager.restore(step, args=arguments).state
        leaves = [found["optimiser"][key] for key in sorted(found["optimiser"])]
        restored = jax.tree.unflatten(jax.tree.structure(optimiser), leaves)
        pending = [(float(loss), float(hits)) for loss, hits in facts["pending"]]
        return State(step, found["tensors"], restored, facts["tokens"], facts["seconds"], pending)

    def close(self) -> None:
        """Wait for writes that are still under way."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _check(self, then: dict[str, Any], step: int) -> None:
        changed = [name for name, value in self._identity.items() if then.get(name) != value]
        ends_otherwise = bool(changed) and set(changed) <= {"steps", "cooldown_steps"}
        if ends_otherwise and all(_before_cooldown(run, step) for run in (then, self._identity)):
            return
        if changed:
            shown = "; ".join(
                f"{name} was {then.get(name)}, now {self._identity[name]}" for name in changed[:3]
            )
            raise InvalidInputError(
                f"the folder has a run that was started with other options ({shown}); give the same ones to "
                "go on, or another folder to start again",
                field=changed[0],
            )


def _before_cooldown(identity: dict[str, Any], step: int) -> bool:
    """Whether the learning rates of a run's first `step` steps do not depend on where the run ends."""
    return step <= int(identity["steps"]) - int(identity["cooldown_steps"])


def _tree(tensors: Any, optimiser: Any) -> dict[str, Any]:
    """Plain dictionaries, so that files do not depend on the optimiser library's own types."""
    leaves = enumerate(jax.tree.leaves(optimiser))
    return {"tensors": dict(tensors), "optimiser": {f"{number:05}": leaf for number, leaf in leaves}}
