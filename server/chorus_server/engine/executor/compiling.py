"""Ahead-of-time compilation of every program, with progress. After it nothing compiles."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import jax

from chorus_server.engine.executor.compile_watch import CompileWatch, cache_reads
from chorus_server.engine.executor.kept import KeptPrograms
from chorus_server.engine.executor.programs import Program
from chorus_server.engine.executor.sole_maker import BusyError

_PATIENCE_SECONDS = 600.0
"""How long to wait for another process that compiles a program; one that large takes minutes."""

CompileProgress = Callable[[int, int, str, float, bool], None]
"""Called with (programs done, programs in all, name, seconds it took, whether a compile cache had it)."""


@dataclass(frozen=True, slots=True)
class CompiledPrograms:
    """Executables by name, and what compiling them cost."""

    executables: dict[str, Any]
    seconds: dict[str, float]
    temporary_bytes: dict[str, int]

    def __getitem__(self, name: str) -> Any:
        return self.executables[name]


def compile_all(
    programs: Iterable[Program],
    watch: CompileWatch | None = None,
    progress: CompileProgress | None = None,
    kept: KeptPrograms | None = None,
) -> CompiledPrograms:
    """Compile every program, a few at a time, because XLA releases the interpreter lock. What another process
    with the same folder is compiling comes last, and is then read.

    Args:
        watch: learns which program each compile belongs to, with cause `startup`.
        progress: called on this thread after each program. If it raises, the compilation ends.
        kept: programs of earlier starts; what is not among them is compiled and added.
    """
    wanted = list(programs)
    result = CompiledPrograms({}, {}, {})
    workers = max(1, min(4, os.cpu_count() or 1))
    with ThreadPoolExecutor(workers, thread_name_prefix="chorus-compile") as pool:
        left = wanted
        try:
            for patience in (0.0, _PATIENCE_SECONDS):
                futures: dict[Future[tuple[Any, float, bool]], Program] = {
                    pool.submit(_compile, program, watch, kept, patience): program for program in left
                }
                left = []
                for future in as_completed(futures):
                    try:
                        executable, seconds, cached = future.result()
                    except BusyError:
                        left.append(futures[future])
                        continue
                    name = futures[future].name
                    result.executables[name] = executable
                    result.seconds[name] = seconds
                    result.temporary_bytes[name] = _temporary_bytes(executable)
                    if progress is not None:
                        progress(len(result.executables), len(wanted), name, seconds, cached)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return result


def _compile(
    program: Program, watch: CompileWatch | None, kept: KeptPrograms | None, patience: float
) -> tuple[Any, float, bool]:
    """The executable, the seconds that it took, and whether a compile cache had it.

    Raises:
        BusyError: without patience, another process is compiling it.
    """
    started, reads = time.perf_counter(), cache_reads()
    executable, made = None if kept is None else kept.load(program), False
    if executable is None:
        try:
            with nullcontext() if kept is None else kept.alone(program, patience):
                executable = None if kept is None else kept.load(program)  # who was before has kept it
                if executable is None:
                    executable, made = _made(program, watch, kept)
        except BusyError:
            if not patience:
                raise
            executable, made = _made(program, watch, None)  # whoever holds it may hang
    return executable, time.perf_counter() - started, not made or cache_reads() > reads


def _made(program: Program, watch: CompileWatch | None, kept: KeptPrograms | None) -> tuple[Any, bool]:
    """The executable, and whether it was not kept under its second name."""
    lowered, options, reads = program.jit().lower(*program.arguments), _options(), cache_reads()
    same = None if kept is None else kept.second_name(program, lowered, options)
    executable = None if kept is None else kept.load_lowered(program, same)
    if executable is not None:
        return executable, False
    with nullcontext() if watch is None else watch.because("startup", program.name):
        executable = lowered.compile(compiler_options=options)
    # What JAX has read from its cache lacks its kernels when it is written once more.
    if kept is not None and cache_reads() == reads:
        kept.keep(program, executable, same)
    return executable, True


def _options() -> dict[str, Any] | None:
    """XLA's options. On a CPU, LLVM's level 1 compiles in less time than level 2, the default, and costs
    large programs no speed that was found (benchmarks/README.md): products are a library's."""
    config: Any = jax.config
    if jax.default_backend() != "cpu" or config.read("jax_disable_most_optimizations"):
        return None
    return {"xla_backend_optimization_level": 1}


def _temporary_bytes(executable: Any) -> int:
    analysis = executable.memory_analysis()
    return int(getattr(analysis, "temp_size_in_bytes", 0) or 0)
