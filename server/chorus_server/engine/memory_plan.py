"""Where the device's memory goes, computed from shapes before anything is allocated."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chorus_server.engine.plans import Ladder
from chorus_server.engine.sampling import DEVICE_DTYPES, MAX_LOGIT_BIASES, SETTINGS
from chorus_server.errors import InvalidInputError
from chorus_server.model.config import T5Config
from chorus_server.model.mesh import DeviceMesh
from chorus_server.model.parameters import is_matrix, parameter_axes, parameter_shapes

_MAX_BEAMS = int(SETTINGS["num_beams"].bounds["le"])
_MAX_TOP = int(SETTINGS["top_logprobs"].bounds["le"])


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes of one device, by use. `temporaries` is 0 until programs are compiled.

    Attributes:
        tokens: encoder memory of the last prefill step, by token, from which slots take theirs.
        activations: the largest prefill step, estimated; part of `temporaries` once those are known.
        limit: bytes that may be used.
    """

    weights: int
    prompt_rows: int
    encoder_memory: int
    tokens: int
    slots: int
    activations: int
    limit: int
    temporaries: int = 0

    @property
    def resident(self) -> int:
        """Bytes that are held all the time."""
        return self.weights + self.prompt_rows + self.encoder_memory + self.tokens + self.slots

    @property
    def total(self) -> int:
        return self.resident + max(self.activations, self.temporaries)

    @property
    def room(self) -> int:
        """Bytes that a program may take between the steps of serving: its scratch memory and theirs are never
        in use at once."""
        return max(0, self.limit - self.resident)

    def with_temporaries(self, temporaries: int) -> MemoryPlan:
        """The plan with XLA's own figure for the scratch memory of the programs that run at once."""
        return replace(self, temporaries=temporaries)

    def rows(self) -> list[tuple[str, int, str]]:
        """(use, bytes, the setting that changes it) for each use."""
        return [
            (
                "weights",
                self.weights,
                "compute_dtype, matrix_dtype, model_devices, or a smaller model",
            ),
            ("prompt rows", self.prompt_rows, "prompt_rows"),
            ("encoder memory", self.encoder_memory, "blocks (fewer slots, shorter inputs)"),
            ("tokens (of a prefill step)", self.tokens, "input_lengths, batch_rows"),
            ("slots (self-attention, beams)", self.slots, "blocks (fewer slots, fewer new tokens)"),
            ("encoder activations (estimate)", self.activations, "input_lengths, batch_rows"),
            ("XLA temporaries (compiled)", self.temporaries, "input_lengths, batch_rows, blocks"),
        ]

    def table(self) -> str:
        """The plan for people, with one use on each line."""
        lines = [f"{use:<32}{_size(count):>12}" for use, count, _ in self.rows()]
        note = "the larger of activations and temporaries counts"
        lines.append(f"{'total':<32}{_size(self.total):>12}  ({note})")
        lines.append(f"{'limit':<32}{_size(self.limit):>12}")
        return "\n".join(lines)

    def check(self) -> None:
        """Refuse a plan that does not fit.

        Raises:
            InvalidInputError: code `memory_plan`. It says what takes most, and which settings to change.
        """
        if self.total <= self.limit:
            return
        largest = sorted(self.rows(), key=lambda row: row[1], reverse=True)[:3]
        advice = "; ".join(f"{use} takes {_size(count)}: change {setting}" for use, count, setting in largest)
        raise InvalidInputError(
            f"The server needs {_size(self.total)} of memory and may use {_size(self.limit)}: {advice}.",
            field=largest[0][2].split(" ")[0].rstrip(","),
            code="memory_plan",
        )


def plan_memory(
    config: T5Config,
    ladder: Ladder,
    prompt_rows: int,
    dtype: Any,
    limit: int,
    mesh: DeviceMesh | None = None,
    matrix_dtype: Any = None,
) -> MemoryPlan:
    """The part of one device that arithmetic gives: nothing is allocated or compiled.

    Args:
        prompt_rows: R, rows of the device table.
        dtype: compute dtype.
        limit: bytes of a device that may be used.
        mesh: the devices that share the model; None means one device.
        matrix_dtype: dtype of the model's matrices; None means `dtype`.
    """
    size = np.dtype(dtype).itemsize
    matrix = size if matrix_dtype is None else np.dtype(matrix_dtype).itemsize
    data, model = (mesh.data, mesh.model) if mesh else (1, 1)
    position = 2 * config.num_decoder_layers * config.num_heads * config.d_kv * size
    small = sum(b.slots * _slot_bytes(b.new_tokens) for b in ladder.blocks)
    return MemoryPlan(
        weights=weight_bytes(config, matrix, mesh, is_matrix)
        + weight_bytes(config, size, mesh, lambda name: not is_matrix(name)),
        prompt_rows=prompt_rows * config.d_model * size // model,
        encoder_memory=sum(b.slots * b.input_length for b in ladder.blocks) * position // (data * model),
        tokens=ladder.max_tokens * position // model,
        slots=sum(b.slots * b.new_tokens for b in ladder.blocks) * position // (data * model) + small,
        activations=max(
            _activations(config, T, B, L, size, model)
            for B, L in ladder.input_buckets
            for T in ladder.token_counts((B, L))
        ),
        limit=limit,
    )


def weight_bytes(
    config: T5Config, size: int, mesh: DeviceMesh | None = None, within: Callable[[str], bool] | None = None
) -> int:
    """Bytes of the weights on one device, at `size` bytes for each value.

    Args:
        within: whether a tensor counts, by canonical name; None counts all.
    """
    axes, total = parameter_axes(config), 0
    for name, shape in parameter_shapes(config).items():
        if within is None or within(name):
            total += math.prod(mesh.weight(axes[name]).shard_shape(shape) if mesh else shape) * size
    return total


def _slot_bytes(new_tokens: int) -> int:
    """What a slot has besides keys and values: flags, settings, memory length, beams. Every device has a
    copy."""
    settings, memory_length = 1 + 4 * 4 + 4 * len(DEVICE_DTYPES) + 8 * MAX_LOGIT_BIASES, 4
    live = 4 + 3 * 4 * new_tokens
    members, scores, lengths, ended = 4 * _MAX_BEAMS, 4 * _MAX_BEAMS, 4 * _MAX_BEAMS, _MAX_BEAMS
    sequences, likeliest = 3 * 4 * _MAX_BEAMS * new_tokens, 8 * _MAX_TOP * new_tokens
    return settings + memory_length + live + members + scores + lengths + ended + sequences + likeliest


def _activations(config: T5Config, T: int, B: int, L: int, size: int, model: int) -> int:
    """One encoder layer at its widest: the residual and its norm, and either attention (query, key, value and
    f32 scores with their softmax) or the feed-forward (two wide products if gated)."""
    inner = config.num_heads * config.d_kv
    attention = 4 * (T + B * L) * inner * size + 2 * B * config.num_heads * L * L * 4
    wide = (3 if config.gated else 2) * T * config.d_ff * size
    return 2 * T * config.d_model * size + max(attention, wide) // model


def device_limit(mesh: DeviceMesh | None = None, share: float = 0.9) -> int:
    """Bytes of one device that may be used: this share of what it reports. On a CPU it is a share of the
    host's memory within its control group's limit, which simulated devices divide among themselves."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"] * share)
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = Path("/sys/fs/cgroup/memory.max")
    if group.is_file() and (text := group.read_text().strip()).isdigit():
        host = min(host, int(text))
    return int(host * share) // (mesh.size if mesh else 1)


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
