"""Which shapes a start compiles and what it allocates for them. `shapes = auto` decides by platform, device
memory and size of the model; a setting that is given wins (docs/decisions/0013-shapes-by-device.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.ladder import (
    DEFAULT_PROMPT_ROWS,
    PRESETS,
    ShapeLists,
    build_ladder,
    lists_of,
    program_counts,
)
from chorus_server.engine.memory_plan import MemoryPlan, model_bytes, plan_memory
from chorus_server.engine.plans import Ladder
from chorus_server.engine.step_bytes import StepBytes, decode_step_bytes
from chorus_server.errors import InvalidInputError
from chorus_server.model.config import T5Config
from chorus_server.model.mesh import DeviceMesh
from chorus_server.model.parameters import is_matrix, parameter_shapes
from chorus_server.settings import Settings
from chorus_server.settings.values import ShapeChoice, written

_MOST_PROMPT_ROWS = 262_144
_KINDS = tuple((L, T) for L, T, _ in PRESETS["medium"].blocks)
_PROMPT_SHARE = 64  # one part in 64 of the memory
_MOST_ROWS, _LEAST_ROWS = 64, 8  # 8 rows of 64 tokens are enough to be limited by products
_SLOT_STEP, _MOST_SLOTS = 8, 256  # of each data group
_LONGEST_DISPATCH_SECONDS, _MOST_TOKENS = 0.008, 16


@dataclass(frozen=True, slots=True)
class _Accelerator:
    """What the rule takes a device of a platform to do: round figures, of no one product.

    Attributes:
        operations: floating-point operations of the largest prefill step, which a decode step may wait for.
        bandwidth: bytes a second.
    """

    operations: float
    bandwidth: float


_ACCELERATORS = {"gpu": _Accelerator(40e12, 2e12), "tpu": _Accelerator(10e12, 0.8e12)}
PLATFORMS = ("cpu", *_ACCELERATORS)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A base model on its devices.

    Attributes:
        platform: JAX's name of the backend.
        limit: bytes of one device that may be used.
        mesh: the devices that share the model; None means one.
    """

    config: T5Config
    platform: str
    limit: int
    dtype: Any
    matrix_dtype: Any
    mesh: DeviceMesh | None = None

    def plan(self, ladder: Ladder, prompt_rows: int) -> MemoryPlan:
        """Memory of one device, by arithmetic."""
        return plan_memory(
            self.config, ladder, prompt_rows, self.dtype, self.limit, self.mesh, self.matrix_dtype
        )

    def check_weights(self) -> None:
        """Refuse a model whose weights alone do not fit, before they are read.

        Raises:
            InvalidInputError: code `memory_plan`.
        """
        size, matrix = np.dtype(self.dtype).itemsize, np.dtype(self.matrix_dtype).itemsize
        needed = model_bytes(self.config, size, matrix, self.mesh)
        if needed > self.limit:
            raise InvalidInputError(
                f"The weights of {self.config.name} take {_size(needed)} of each device, which may use "
                f"{_size(self.limit)}: raise model_devices, choose bf16 as compute_dtype and matrix_dtype, "
                "or take a smaller model.",
                field="model_devices",
                code="memory_plan",
            )


@dataclass(frozen=True, slots=True)
class Shapes:
    """What a start compiles and allocates.

    Attributes:
        chosen: where it comes from, for people.
    """

    lists: ShapeLists
    prompt_rows: int
    decode_tokens_per_dispatch: int
    chosen: str

    @property
    def ladder(self) -> Ladder:
        return build_ladder(*self.lists)

    @property
    def parts(self) -> dict[str, Any]:
        """What they are made of, by name."""
        numbers = {each: getattr(self, each) for each in ("prompt_rows", "decode_tokens_per_dispatch")}
        return self.lists._asdict() | numbers

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that ask for exactly these shapes."""
        parts = self.parts
        return {"prompt_rows": parts.pop("prompt_rows"), "shapes": ShapeChoice(**parts)}


_Block = tuple[int, int, int]  # input tokens, new tokens, slots


class ShapeCost(NamedTuple):
    """What one part costs: bytes of one device, and programs to compile."""

    setting: str
    value: str
    bytes: int
    programs: int


def shapes_of(settings: Settings, deployment: Deployment) -> Shapes:
    """The shapes of a start.

    Raises:
        InvalidInputError: a shape is not valid; names the setting. Whether the memory suffices is for
            `MemoryPlan.check` to say.
    """
    lists, chosen = _lists(settings), str(settings.shapes)
    rows = settings.prompt_rows or DEFAULT_PROMPT_ROWS
    own = settings.shapes.decode_tokens_per_dispatch
    tokens = own or EngineConfig().decode_tokens_per_dispatch
    if settings.shapes.preset == "auto":
        chosen = f"{chosen.replace('auto', 'medium', 1)}, chosen for {deployment.platform}"
        accelerator = _ACCELERATORS.get(deployment.platform)
        if accelerator is not None:
            rows = settings.prompt_rows or _prompt_rows(deployment)
            lists = _fitted(settings, deployment, accelerator, rows)
            tokens = own or _tokens(deployment, accelerator, lists)
            size = _size(deployment.limit)
            chosen = f"{settings.shapes}, chosen for {deployment.platform} with {size} to use"
    return Shapes(lists, rows, tokens, chosen)


def shape_costs(shapes: Shapes, plan: MemoryPlan) -> list[ShapeCost]:
    """What each part costs. Bytes of the encoder's steps include their activations, an estimate."""
    values, counts = shapes.parts, program_counts(shapes.ladder)
    taken = {
        "batch_rows": plan.tokens + plan.activations,
        "blocks": plan.encoder_memory + plan.slots,
        "prompt_rows": plan.prompt_rows,
    }
    return [
        ShapeCost(name, written(value), taken.get(name, 0), counts.get(name, 0))
        for name, value in values.items()
    ]


def cost_table(shapes: Shapes, plan: MemoryPlan) -> str:
    """The same for people, with one setting on each line."""
    costs = shape_costs(shapes, plan)
    wide = max(len(each.value) for each in costs)
    lines = [f"shapes {shapes.chosen}", f"{'':<28}{'':<{wide}}{'MiB':>12}{'programs':>10}"]
    for each in costs:
        size = f"{each.bytes / 2**20:,.1f}" if each.bytes else ""
        lines.append(f"{each.setting:<28}{each.value:<{wide}}{size:>12}{each.programs or '':>10}".rstrip())
    lines.append(f"{'programs to compile':<28}{'':<{wide}}{'':>12}{sum(c.programs for c in costs):>10}")
    return "\n".join(lines)


def _lists(settings: Settings) -> ShapeLists:
    return lists_of(**settings.shapes.lists)


def _prompt_rows(deployment: Deployment) -> int:
    """As many as a small part of the memory holds, a power of two."""
    model = deployment.mesh.model if deployment.mesh else 1
    row: int = deployment.config.d_model * np.dtype(deployment.dtype).itemsize // model
    fit = max(1, deployment.limit // _PROMPT_SHARE // row)
    return min(_MOST_PROMPT_ROWS, max(DEFAULT_PROMPT_ROWS, 1 << fit.bit_length() - 1))


def _fitted(
    settings: Settings, deployment: Deployment, accelerator: _Accelerator, prompt_rows: int
) -> ShapeLists:
    """The most rows whose step is short enough and takes a quarter of what weights and prompts leave; then
    slots in half of the rest, so that the other half is there for XLA's temporaries and for tuning. If
    nothing fits, the least there is, for the memory plan to refuse."""
    lists = found = _lists(settings)
    given = [lists.batch_rows] if settings.shapes.batch_rows else None
    for rows in given or _row_lists(deployment, accelerator, lists):
        found = lists._replace(batch_rows=rows)
        if not settings.shapes.blocks:
            found = found._replace(blocks=_blocks(deployment, found, prompt_rows))
        plan = deployment.plan(build_ladder(*found), prompt_rows)
        few = (plan.tokens + plan.activations) * 4 <= plan.limit - plan.weights - plan.prompt_rows
        if plan.total <= plan.limit and few:
            break
    return found


def _row_lists(deployment: Deployment, accelerator: _Accelerator, lists: ShapeLists) -> list[tuple[int, ...]]:
    """From the most rows to the fewest: 1, a quarter of the most (if that is 4 or more), the most."""
    model = deployment.mesh.model if deployment.mesh else 1
    shapes = parameter_shapes(deployment.config)
    weights = sum(
        math.prod(shape) for name, shape in shapes.items() if is_matrix(name) and name.startswith("encoder.")
    )
    row = 2 * weights * max(lists.input_lengths) / model
    most = _MOST_ROWS
    while most > _LEAST_ROWS and most * row > accelerator.operations:
        most //= 2
    every = [most >> halvings for halvings in range(most.bit_length())]
    return [
        tuple(sorted({1, each} | ({each // 4} if each >= 16 else set())))
        for each in every
        if each >= _LEAST_ROWS or each == 1
    ]


def _blocks(deployment: Deployment, lists: ShapeLists, prompt_rows: int) -> tuple[_Block, ...]:
    """As many slots as half of what is left holds, and at least a few."""
    step = _slot_step(deployment)

    def filled(kinds: Sequence[tuple[int, int]]) -> tuple[_Block, ...]:
        two_steps = lists._replace(blocks=_with_slots(kinds, 2 * step, step))
        plan = deployment.plan(build_ladder(*two_steps), prompt_rows)
        taken = plan.encoder_memory + plan.slots
        steps = (plan.limit - plan.total + taken) // taken
        return _with_slots(kinds, min(_MOST_SLOTS // _SLOT_STEP, max(1, steps)) * step, step)

    kinds = _kinds(lists.input_lengths)
    found = filled(kinds)
    if len(kinds) < len(_KINDS):
        return found
    short, middle = (_step_bytes(deployment, (L, T, found[0][2])) for L, T in kinds[:2])
    # A step of every block reads the weights: a block of its own for short inputs has to save more than that.
    return found if middle.encoder_memory - short.encoder_memory > short.weights else filled(kinds[1:])


def _kinds(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The blocks of `medium` that some input needs, and the one with the most new tokens."""
    bounds = (0, *(L for L, _ in _KINDS))
    needed = [
        any(low < length <= L for length in lengths) for low, (L, _) in zip(bounds, _KINDS, strict=False)
    ]
    return (*(kind for kind, some in zip(_KINDS[:-1], needed, strict=False) if some), _KINDS[-1])


def _with_slots(kinds: Sequence[tuple[int, int]], slots: int, step: int) -> tuple[_Block, ...]:
    """Blocks with this many slots; the longest has half as many."""
    half = max(step, slots // 2 // step * step)
    return (*((L, T, slots) for L, T in kinds[:-1]), (*kinds[-1], half))


def _slot_step(deployment: Deployment) -> int:
    """Slots come in multiples of this, so that every data group has the same number."""
    return _SLOT_STEP * (deployment.mesh.data if deployment.mesh else 1)


def _tokens(deployment: Deployment, accelerator: _Accelerator, lists: ShapeLists) -> int:
    """As many decode steps as fill a dispatch, at the least time that one of the shortest block takes."""
    L, T, slots = min(tuple(block) for block in lists.blocks)
    seconds = _step_bytes(deployment, (L, T, slots)).total / accelerator.bandwidth
    least = EngineConfig().decode_tokens_per_dispatch
    return min(_MOST_TOKENS, max(least, math.ceil(_LONGEST_DISPATCH_SECONDS / seconds)))


def _step_bytes(deployment: Deployment, block: _Block) -> StepBytes:
    """What a step of a full block must move at most."""
    (L, T, slots), mesh = block, deployment.mesh
    return decode_step_bytes(
        deployment.config, deployment.dtype, slots, L, T - 1, mesh, deployment.matrix_dtype
    )


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:,.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:,.1f} MiB"
