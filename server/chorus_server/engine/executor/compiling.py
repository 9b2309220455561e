"""Ahead-of-time compilation of every program, with progress. After it nothing compiles."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from chorus_server.engine.executor.compile_watch import CompileWatch
from chorus_server.engine.executor.programs import Program

CompileProgress = Callable[[int, int, str, float], None]
"""Called with (programs done, programs in all, name, seconds it took)."""


@dataclass(frozen=True, slots=True)
class CompiledPrograms:
    """Executables by name, and what compiling them cost."""

    executables: dict[str, Any]
    seconds: dict[str, float]
    temporary_bytes: dict[str, int]

    def __getitem__(self, name: str) -> Any:
        return self.executables[name]


def compile_all(
    programs: Iterable[Program], watch: CompileWatch | None = None, progress: CompileProgress | None = None
) -> CompiledPrograms:
    """Compile every program, a few at a time, because XLA releases the interpreter lock.

    Args:
        watch: learns which program each compile belongs to, with cause `startup`.
        progress: called on this thread after each program. If it raises, the compilation ends.
    """
    wanted = list(programs)
    result = CompiledPrograms({}, {}, {})
    workers = max(1, min(4, os.cpu_count() or 1))
    with ThreadPoolExecutor(workers, thread_name_prefix="chorus-compile") as pool:
        futures: dict[Future[tuple[Any, float]], Program] = {
            pool.submit(_compile, program, watch): program for program in wanted
        }
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                name = futures[future].name
                executable, seconds = future.result()
                result.executables[name] = executable
                result.seconds[name] = seconds
                result.temporary_bytes[name] = _temporary_bytes(executable)
                if progress is not None:
                    progress(done, len(wanted), name, seconds)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return result


def _compile(program: Program, watch: CompileWatch | None) -> tuple[Any, float]:
    started = time.perf_counter()
    lowered = program.jit().lower(*program.arguments)
    if watch is None:
        return lowered.compile(), time.perf_counter() - started
    with watch.because("startup", program.name):
        return lowered.compile(), time.perf_counter() - started


def _temporary_bytes(executable: Any) -> int:
    analysis = executable.memory_analysis()
    return int(getattr(analysis, "temp_size_in_bytes", 0) or 0)
