"""A real executor, small enough to compile in seconds: a random two-layer T5 of odd widths. For tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chorus_server.engine.executor.build import model_spec
from chorus_server.engine.executor.compile_watch import CompileWatch
from chorus_server.engine.executor.compiling import CompiledPrograms, compile_all
from chorus_server.engine.executor.jax_executor import JaxExecutor
from chorus_server.engine.executor.programs import programs
from chorus_server.engine.ladder import tiny_ladder
from chorus_server.engine.plans import Ladder
from chorus_server.model.config import T5Config, named_config
from chorus_server.model.fused_attention import choose_attention
from chorus_server.model.mesh import DeviceMesh
from chorus_server.model.t5 import Model, assemble, random_tensors


class MemoryPrompts:
    """`HostPrompts` over a dictionary."""

    def __init__(self, prompts: dict[str, NDArray[Any]] | None = None) -> None:
        self.prompts = dict(prompts or {})

    def values(self, digest: str) -> NDArray[Any]:
        return self.prompts[digest]


def lively_tensors(config: T5Config, seed: int, end_bias: float) -> Iterator[tuple[str, NDArray[Any]]]:
    """Random weights whose answers depend on the input and sometimes end.

    T5's own initial spread gives a nearly uniform distribution. A wider head makes it less uniform, and
    `end_bias` scales the column of `</s>`.
    """
    for name, values in random_tensors(config, seed):
        if name == "head":
            values = values * np.float32(2.0)
            values[:, config.eos_id] *= np.float32(end_bias)
        yield name, values


def tiny_model(
    seed: int = 0,
    *,
    end_bias: float = 2.5,
    layout: Any = "unrolled",
    dtype: Any = "float32",
    mesh: DeviceMesh | None = None,
    matrix_dtype: Any = None,
) -> Model:
    """A random T5 1.1 of test size with a server's attention. The same seed gives the same weights."""
    config = named_config("tiny")
    model = assemble(config, layout, dtype, lively_tensors(config, seed, end_bias), None, mesh, matrix_dtype)
    return model.with_attention(choose_attention("auto", dtype, devices=mesh.size if mesh else 1)[0])


def tiny_executor(
    ladder: Ladder | None = None,
    prompts: MemoryPrompts | None = None,
    *,
    model: Model | None = None,
    prompt_rows: int = 64,
    watch: CompileWatch | None = None,
    output_width: int = 8,
    without: tuple[str, ...] = (),
    compiled: CompiledPrograms | None = None,
) -> JaxExecutor:
    """A ready executor over `tiny_model`.

    Args:
        without: programs whose names contain one of these are not compiled, which saves a test's time.
        compiled: programs of an executor with the same ladder and config, to be used again; the weights may
            differ.
    """
    model, ladder = model or tiny_model(), ladder or tiny_ladder()
    spec = model_spec(model, prompt_rows, output_width)
    wanted = [each for each in programs(spec, ladder) if not any(part in each.name for part in without)]
    compiled = compiled or compile_all(wanted, watch)
    config = model.config
    return JaxExecutor(
        spec,
        ladder,
        compiled,
        prompts or MemoryPrompts(),
        config.padded_vocab_size,
        config.decoder_start_id,
    )
