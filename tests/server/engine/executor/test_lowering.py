"""Every program lowers for TPU and CUDA too: nothing that only a CPU understands creeps in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import export

from chorus_server.engine.executor import Program, model_spec, programs
from chorus_server.engine.ladder import build_ladder
from chorus_server.model.config import named_config
from chorus_server.model.t5 import build

LADDER = build_ladder((16,), (2,), ((16, 8, 8),), ((3, 4),), rows_per_load=8)


def _programs(layout: str, dtype: str) -> list[Program]:
    model = build(named_config("tiny"), layout, dtype)  # type: ignore[arg-type]
    return list(programs(model_spec(model, 32), LADDER))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize(("layout", "dtype"), [("unrolled", "float32"), ("scanned", "bfloat16")])
def test_every_program_lowers(platform: str, layout: str, dtype: str) -> None:
    names = set()
    for program in _programs(layout, dtype):
        exported = export.export(program.jit(), platforms=[platform])(*program.arguments)
        assert exported.platforms == (platform,)
        names.add(program.name.split("[")[0])
    assert names == {"load_rows", "encode", "admit", "score", "empty", "decode"}


def test_control_a_cpu_only_program_is_refused() -> None:
    program = Program("bad", jnp.linalg.eigvals, (jax.ShapeDtypeStruct((2, 2), jnp.float32),), None)
    with pytest.raises(NotImplementedError):
        export.export(program.jit(), platforms=["tpu"])(*program.arguments)
