"""What a model of some size would take on some number of devices: computed, with nothing allocated or
compiled."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from chorus_server.engine.executor import Program, model_spec, programs
from chorus_server.engine.executor.sizes import ProgramBytes, program_bytes, tree_bytes
from chorus_server.engine.memory_plan import MemoryPlan, plan_memory
from chorus_server.engine.plans import BlockShape, Ladder
from chorus_server.engine.step_bytes import StepBytes, decode_step_bytes
from chorus_server.errors import InvalidInputError
from chorus_server.model.config import T5Config
from chorus_server.model.layout import Layout
from chorus_server.model.mesh import DeviceMesh, abstract_mesh
from chorus_server.model.t5 import build
from chorus_server.shapes import Shapes
from chorus_server.tuning.training.programs import table
from chorus_server.tuning.training.shapes import TrainingShapes

_TARGETS = (8, 8)
_TARGET_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to plan for.

    Attributes:
        devices: in all. `data_devices` groups share the rows; the devices of one group share the tensors.
        dtype: `float32` or `bfloat16`, of everything but matrices.
        matrix_dtype: the same, of the matrices.
        slots: of one block; each holds `input_tokens` and `new_tokens`.
        batch_rows: rows of a prefill step.
        prompt_rows: rows of the device table.
        tuning_prompts: how many train together; 0 means no training.
        tuning_rows: rows of each prompt in a micro-batch.
        prompt_length: rows of a prompt that is trained.
        ladder: what a server would compile, where its shapes were chosen; None is one block and one prefill
            step of these sizes.
    """

    devices: int
    data_devices: int
    dtype: str
    matrix_dtype: str
    layout: Layout
    slots: int
    input_tokens: int
    new_tokens: int
    batch_rows: int
    prompt_rows: int
    tuning_prompts: int
    tuning_rows: int
    prompt_length: int
    ladder: Ladder | None = None

    @property
    def mesh(self) -> DeviceMesh:
        """The devices, without devices. Raises InvalidInputError if the groups do not divide them."""
        if self.devices % self.data_devices:
            raise InvalidInputError(
                f"{self.data_devices} data devices do not divide {self.devices} devices: a group would be "
                "smaller than the others",
                field="data_devices",
            )
        return abstract_mesh(self.data_devices, self.devices // self.data_devices)


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """Bytes on one device.

    Attributes:
        memory: weights, prompt rows, encoder memory, slots, and the largest prefill step (an estimate).
        logits: f32 logits of a decode step's slots, whole on each device of a group.
        training: prompts, their gradients and second moments, and what one backward pass keeps (an estimate);
            0 if nothing trains.
        step: what one decode step must move when every slot is in use.
        programs: arguments and results of each program, by name; exactly what XLA reports for the compiled
            ones.
    """

    config: T5Config
    wanted: Wanted
    model_devices: int
    memory: MemoryPlan
    logits: int
    training: int
    step: StepBytes
    programs: dict[str, ProgramBytes]

    def uses(self) -> list[tuple[str, int]]:
        """(use, bytes) pairs, the total last. Programs run one after another, so of what they need for
        themselves only the largest counts."""
        memory = self.memory
        fixed = [
            ("weights", memory.weights),
            ("prompt rows", memory.prompt_rows),
            ("encoder memory", memory.encoder_memory),
            ("tokens", memory.tokens),
            ("slots (self-attention, beams)", memory.slots),
        ]
        passes = [
            ("encoder activations (estimate)", memory.activations),
            ("logits", self.logits),
        ]
        if self.wanted.tuning_prompts:
            passes.append(("training (estimate)", self.training))
        total = sum(count for _, count in fixed) + max(count for _, count in passes)
        return [*fixed, *passes, ("total", total)]


def plan_devices(config: T5Config, wanted: Wanted) -> DevicePlan:
    """Compute the whole plan.

    Raises:
        InvalidInputError: the numbers of devices do not divide the model, the slots or each other; names the
            setting.
    """
    mesh = wanted.mesh
    every = planned_programs(config, wanted, mesh)
    stepping = [each.arguments for each in every if each.name == "tuning apply"]
    kept = _backward_bytes(config, wanted, mesh) + tree_bytes(stepping) if stepping else 0
    return DevicePlan(
        config=config,
        wanted=wanted,
        model_devices=mesh.model,
        memory=plan_memory(
            config, _ladder(wanted), wanted.prompt_rows, wanted.dtype, 0, mesh, wanted.matrix_dtype
        ),
        logits=wanted.slots // mesh.data * config.padded_vocab_size * 4,
        training=kept,
        step=decode_step_bytes(
            config,
            wanted.dtype,
            wanted.slots,
            wanted.input_tokens,
            wanted.new_tokens - 1,
            mesh,
            wanted.matrix_dtype,
        ),
        programs={each.name: program_bytes(each) for each in every},
    )


def planned_programs(config: T5Config, wanted: Wanted, mesh: DeviceMesh) -> list[Program]:
    """Every program of one block, one prefill step and one tuning job, on this mesh.

    Raises:
        InvalidInputError: the mesh does not divide the model or the slots; names the setting.
    """
    model = build(config, wanted.layout, wanted.dtype, mesh, wanted.matrix_dtype)
    every = [*programs(model_spec(model, wanted.prompt_rows), _ladder(wanted))]
    if wanted.tuning_prompts:
        training = table(model.functions, model.params, _tuning_shapes(config, wanted, mesh), dropping=True)
        every += [replace(each, name=f"tuning {each.name}") for each in training]
    return every


def wanted_of(shapes: Shapes, wanted: Wanted) -> Wanted:
    """The same with these shapes; a decode step is one of the block whose step moves most."""
    ladder = shapes.ladder
    block = max(ladder.blocks, key=lambda each: each.slots * (each.input_length + each.new_tokens))
    return replace(
        wanted,
        slots=block.slots,
        input_tokens=block.input_length,
        new_tokens=block.new_tokens,
        batch_rows=ladder.max_rows,
        prompt_rows=shapes.prompt_rows,
        ladder=ladder,
    )


def document(plan: DevicePlan) -> dict[str, Any]:
    """The plan in JSON form."""
    wanted = plan.wanted
    return {
        "name": plan.config.name,
        "devices": wanted.devices,
        "mesh": {"data": wanted.data_devices, "model": plan.model_devices},
        "shapes": {k: v for k, v in asdict(wanted).items() if k not in ("devices", "data_devices", "ladder")},
        "device_bytes": {use.split(" (")[0].replace(" ", "_"): count for use, count in plan.uses()},
        "decode_step_bytes": {**asdict(plan.step), "total": plan.step.total},
        "programs": {name: asdict(each) for name, each in plan.programs.items()},
    }


def _ladder(wanted: Wanted) -> Ladder:
    if wanted.ladder is not None:
        return wanted.ladder
    block = BlockShape(wanted.input_tokens, wanted.new_tokens, wanted.slots)
    return Ladder(((wanted.batch_rows, wanted.input_tokens),), (block,), (_TARGETS,))


def _tuning_shapes(config: T5Config, wanted: Wanted, mesh: DeviceMesh) -> TrainingShapes:
    rows = -(-wanted.tuning_prompts * wanted.tuning_rows // mesh.data) * mesh.data
    lengths, new_tokens = (wanted.input_tokens,), 0
    labels, label_length = _TARGETS
    return TrainingShapes(
        wanted.tuning_prompts, wanted.prompt_length, config.d_model, wanted.tuning_rows, lengths,
        _TARGET_TOKENS, rows, labels, label_length, new_tokens, groups=mesh.data,
    )  # fmt: skip


def _backward_bytes(config: T5Config, wanted: Wanted, mesh: DeviceMesh) -> int:
    """What a training dispatch needs for itself, by what XLA asked for (see `benchmarks/plan_check.py`).

    Of each encoder layer: its input and two norms; queries, keys, values and what they gave, and the keys and
    values that the decoder makes of it; two copies of attention weights; four wide products; dropout's masks.
    With stacked layers, of one layer, with a copy of its weights, and the inputs of the others. Then the
    logits of the targets and their gradient. The devices of a group share what is as wide as a matrix, and
    with stacked layers the rest too.
    """
    size, L = np.dtype(wanted.dtype).itemsize, wanted.input_tokens
    B, layers = wanted.tuning_prompts * -(-wanted.tuning_rows // mesh.data), config.num_encoder_layers
    tokens, D, F = B * L, config.d_model, config.d_ff
    carry = tokens * D * size
    masks = tokens * (2 * D + F)
    weights = B * config.num_heads * L * L * (4 + size)
    inner = tokens * (6 * config.inner_width + (4 if config.gated else 2) * F) * size + weights + masks
    logits = 2 * B * _TARGET_TOKENS * config.padded_vocab_size * 4
    if wanted.layout == "unrolled":
        return layers * (3 * carry + inner // mesh.model) + logits // mesh.model
    matrices = D * (4 * config.inner_width + (3 if config.gated else 2) * F)
    copied = matrices * np.dtype(wanted.matrix_dtype).itemsize
    return ((layers + 2) * carry + inner + copied + logits) // mesh.model
