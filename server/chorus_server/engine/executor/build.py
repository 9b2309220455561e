"""From a model and a ladder to an executor that is ready: plan memory, compile programs, allocate."""

from __future__ import annotations

from typing import Any, Protocol

from chorus_server.engine.executor.choosing import TokenRules
from chorus_server.engine.executor.compile_watch import CompileWatch
from chorus_server.engine.executor.compiling import CompileProgress, compile_all
from chorus_server.engine.executor.jax_executor import JaxExecutor
from chorus_server.engine.executor.kept import KeptPrograms
from chorus_server.engine.executor.lanes import run_apart, temporaries_at_once
from chorus_server.engine.executor.places import Places
from chorus_server.engine.executor.programs import DEFAULT_OUTPUT_WIDTH, ModelSpec, programs
from chorus_server.engine.memory_plan import MemoryPlan, device_limit, plan_memory
from chorus_server.engine.plans import Ladder
from chorus_server.engine.protocols import HostPrompts
from chorus_server.model.config import T5Config
from chorus_server.model.mesh import DeviceMesh


class LoadedT5(Protocol):
    """A model with its parameters, as `chorus_server.model` loads it."""

    @property
    def config(self) -> T5Config: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def matrix_dtype(self) -> Any: ...

    @property
    def params(self) -> Any: ...

    @property
    def functions(self) -> Any: ...

    @property
    def mesh(self) -> DeviceMesh | None: ...


def model_spec(
    model: LoadedT5,
    prompt_row_capacity: int,
    output_width: int = DEFAULT_OUTPUT_WIDTH,
) -> ModelSpec:
    """What the programs of this model depend on. `model.params` may be only shapes."""
    config = model.config
    return ModelSpec(
        functions=model.functions,
        params=model.params,
        rules=TokenRules(config.vocab_size, config.pad_id, config.eos_id),
        width=config.d_model,
        dtype=model.dtype,
        rows=prompt_row_capacity,
        output_width=output_width,
        places=Places(model.mesh),
    )


def build_executor(
    model: LoadedT5,
    ladder: Ladder,
    prompt_row_capacity: int,
    host_prompts: HostPrompts,
    *,
    memory_limit_bytes: int | None = None,
    watch: CompileWatch | None = None,
    progress: CompileProgress | None = None,
    output_width: int = DEFAULT_OUTPUT_WIDTH,
    kept: KeptPrograms | None = None,
) -> tuple[JaxExecutor, MemoryPlan]:
    """Plan memory, compile every program of the ladder, allocate the state.

    Args:
        prompt_row_capacity: R, rows of the prompt table.
        memory_limit_bytes: if None, the device is asked (on a CPU, the host).
        watch: counts compiles; it has been started.
        progress: called after each program.
        kept: programs of earlier starts.

    Returns:
        The executor, and its memory plan with the temporaries that XLA asked for. Print the plan with
        `plan.table()`.

    Raises:
        InvalidInputError: it does not fit; the error names the settings to change. It is raised before
            anything is compiled if arithmetic alone shows it, and before state is allocated if the compiled
            temporaries do.
    """
    spec = model_spec(model, prompt_row_capacity, output_width)
    limit = device_limit(model.mesh) if memory_limit_bytes is None else memory_limit_bytes
    plan = plan_memory(
        model.config, ladder, prompt_row_capacity, model.dtype, limit, model.mesh, model.matrix_dtype
    )
    plan.check()
    compiled = compile_all(programs(spec, ladder), watch, progress, kept)
    plan = plan.with_temporaries(temporaries_at_once(compiled, ladder, run_apart(spec.places)))
    plan.check()
    executor = JaxExecutor(
        spec, ladder, compiled, host_prompts, model.config.padded_vocab_size, model.config.decoder_start_id
    )
    return executor, plan
