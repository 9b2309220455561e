from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from chorus_server.engine.executor import use_persistent_cache


@pytest.fixture(scope="module")
def compile_cache(compiled_folder: Path) -> Iterator[Path]:
    """The persistent compile cache, as a server has it: jobs of the same shapes compile once."""
    update: Any = jax.config.update
    before = jax.config.jax_compilation_cache_dir
    compilation_cache.reset_cache()
    use_persistent_cache(str(compiled_folder))
    yield compiled_folder
    update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module", autouse=True)
def quickly(compiled_quickly: None) -> None:
    """For every test here."""
