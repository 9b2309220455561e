"""How much XLA optimises: for what holds of any right code little is enough, in a quarter of the time."""

from __future__ import annotations

import functools
import os
from importlib.metadata import version
from typing import Any

_NO_FUSION = "xla_cpu_use_fusion_emitters"
"""Fused loops that XLA writes itself: most of what compiling a small program takes."""

_KNOWN = tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11)
"""Whether XLA has that option: it is no more in jaxlib 0.11, and refuses what it does not know."""

NO_FUSION = f"--{_NO_FUSION}=false" if _KNOWN else ""
"""The same as a flag of XLA's."""

QUICKLY = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | ({"XLA_FLAGS": NO_FUSION} if _KNOWN else {})
"""The environment in which a process compiles so."""

_AS_STARTED = {name: os.environ.get(name) for name in QUICKLY}


def compile_quickly(quickly: bool) -> None:
    """From now on, in this process and in those that it starts; what was compiled otherwise is forgotten."""
    import jax
    from jax._src import compiler

    jax.jit(lambda: 0)()  # XLA reads its environment once, here: what it says is for children
    original: Any = getattr(compiler.get_compile_options, "__wrapped__", compiler.get_compile_options)

    @functools.wraps(original)
    def options(*given: Any, env_options_overrides: dict[str, Any] | None = None, **named: Any) -> Any:
        overrides = ({_NO_FUSION: False} if _KNOWN else {}) | (env_options_overrides or {})
        return original(*given, env_options_overrides=overrides, **named)

    for name, value in (QUICKLY if quickly else _AS_STARTED).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    update: Any = jax.config.update
    update("jax_disable_most_optimizations", quickly)
    compiler.get_compile_options = options if quickly else original
    jax.clear_caches()  # JAX's own do not ask how a program was compiled
