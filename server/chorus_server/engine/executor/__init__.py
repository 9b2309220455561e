"""Everything that runs on the device: compiled programs and donated block state, plans in and results out."""

from chorus_server.engine.executor.build import build_executor, model_spec
from chorus_server.engine.executor.cache_folder import programs_folder
from chorus_server.engine.executor.compile_watch import CompileWatch, use_persistent_cache
from chorus_server.engine.executor.compiling import CompiledPrograms, compile_all
from chorus_server.engine.executor.jax_executor import JaxExecutor
from chorus_server.engine.executor.kept import KeptPrograms
from chorus_server.engine.executor.programs import ModelSpec, Program, programs

__all__ = [
    "CompileWatch",
    "CompiledPrograms",
    "JaxExecutor",
    "KeptPrograms",
    "ModelSpec",
    "Program",
    "build_executor",
    "compile_all",
    "model_spec",
    "programs",
    "programs_folder",
    "use_persistent_cache",
]
