"""Compiled programs kept in a folder under what they depend on, so that the next start traces nothing.

JAX's own compile cache is asked with the lowered program: to find out what it has, each program must be
traced and lowered, which takes longer than reading it. Here the question is asked without tracing:

    digest( code of model and engine, versions, JAX's configuration, processor, the program's functions,
            shapes of its arguments and results )

After an update of Chorus the code is another, and most programs are the same. So each has a second name, for
the program as it was lowered: where the first is not there, the program is traced, found by the second, and
gets its new name. (What JAX's own cache hands out cannot be kept: written once more, it lacks kernels.)

An entry is one file, written beside its place and then renamed, with a checksum in front. What is damaged
counts as missing, and so does what somebody else may have written: both JAX's entries and these hold machine
code that is run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import platform
import secrets
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from types import FunctionType
from typing import Any

import jax
from flax import nnx
from jax.experimental import serialize_executable

import chorus_server.engine
import chorus_server.model
from chorus_server.engine.executor.cache_folder import cores, distrusted
from chorus_server.engine.executor.programs import Program
from chorus_server.engine.executor.sole_maker import sole_maker
from chorus_server.model.matrix_types import processor_flags

_MAGIC = b"chorus program 1\n"
_SUFFIX = ".program"
_LOWERED = ".lowered"
"""How the second names end."""

_WRITING = "writing-"
_WRITING_SECONDS = 3600
"""What is so old and not yet in its place never will be: its writer is gone."""

_PACKAGES = ("jax", "jaxlib", "flax", "numpy")
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_ELSEWHERE = ("jax_compilation_cache_", "jax_persistent_cache_", "jax_platforms")
"""How JAX's settings begin that do not say what a program is: those of its own cache, which differ where the
folder is read-only; and the platform, which the device names."""

_FAST = 1
"""zlib's level: machine code shrinks to a third, and reading it back is what must be quick."""


class KeptPrograms:
    """A folder of compiled programs. Used from several threads.

    Args:
        folder: created if it does not exist.
        tell: called with a sentence about an entry that cannot be used, and once if none can be written, the
            folder is not trusted, or it holds other programs than those that are asked for.
        code: digest of everything that programs are made from.

    Attributes:
        trusted: whether nobody but this user, root and the folder's group can have written there; else
            nothing is read or written.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None] = lambda line: None, code: str = "") -> None:
        self.folder = folder
        self._tell = tell
        self._code = code or code_digest()
        self._around = _surroundings()
        self._lock = threading.Lock()
        self._found = 0
        self.trusted = self._is_trusted()
        self._told = self._swept = False
        self._others = sum(1 for _ in folder.glob(f"*{_SUFFIX}")) if self.trusted else 0

    @property
    def found(self) -> int:
        """How many programs came from the folder so far."""
        return self._found

    def _is_trusted(self) -> bool:
        try:
            reason = distrusted(self.folder.stat())
        except OSError:  # it is not there yet
            return True
        if reason is not None:
            self._tell(
                f"compiling anew: {self.folder} is not used, because {reason}; remove it, or make it this "
                "user's or root's, with no write permission for others"
            )
        return reason is None

    def load(self, program: Program) -> Any | None:
        """The executable of a program; None if it is not kept, or damaged."""
        path = self._path(program)
        return None if path is None else self._read(path, program, self._tell)

    def load_lowered(self, program: Program, same: Path | None) -> Any | None:
        """The executable that has this second name, whatever code it was made by; None if there is none. The
        next start finds it without tracing."""
        path = self._path(program)
        if path is None:
            return None
        # What is wrong with the file its first name has told.
        executable = None if same is None else self._read(same, program, lambda damaged: None)
        if same is None or executable is None:
            self._tell_others(program)
            return None
        with contextlib.suppress(OSError):
            _name_too(same, path)
        return executable

    def _read(self, path: Path, program: Program, tell: Callable[[str], None]) -> Any | None:
        try:
            with path.open("rb") as file:
                reason = distrusted(os.fstat(file.fileno()))
                content = b"" if reason else file.read()
        except OSError:
            return None
        if reason is not None:
            tell(f"compiling {program.name} anew: {path} is not used, because {reason}")
            return None
        with self._lock:
            self._others = 0  # the folder is of this version and these settings
        try:
            executable = _restored(content, program)
        except Exception as error:  # whatever is wrong with it, it can be compiled again
            tell(f"compiling {program.name} anew: its entry in the compile cache is damaged ({error})")
            with contextlib.suppress(OSError):  # else the next start says so again
                path.unlink(missing_ok=True)
            return None
        with self._lock:
            self._found += 1
        return executable

    def _tell_others(self, program: Program) -> None:
        """Say once why a start that has a folder of programs compiles, unless it found one of its own."""
        with self._lock:
            others, self._others = self._others, 0
        if others:
            self._tell(
                f"compiling anew: {program.name} is not among the {others} programs in {self.folder}: they "
                "may be of another version of Chorus or JAX, or of other shapes or settings"
            )

    def keep(self, program: Program, executable: Any, same: Path | None = None) -> None:
        """Write an executable, under its second name too, if that is possible; a start does not depend on
        it."""
        path = self._path(program)
        if path is None:
            return
        try:
            payload = zlib.compress(serialize_executable.serialize(executable)[0], _FAST)
        except Exception:  # not every platform, nor every program, can be written down
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sweep()
            _write(path, _MAGIC + hashlib.sha256(payload).digest() + payload)
            if same is not None:
                _name_too(path, same)
        except OSError as error:  # it costs the next start some time
            with self._lock:
                told, self._told = self._told, True
            if not told:
                self._tell(
                    f"compiled programs cannot be kept in {self.folder} ({error.strerror or error}): the "
                    "next start compiles them again; check the folder's disk and whose it is"
                )

    def _sweep(self) -> None:
        """Remove, once, what processes left that were killed while they wrote."""
        with self._lock:
            swept, self._swept = self._swept, True
        if swept:
            return
        until = time.time() - _WRITING_SECONDS
        for left in self.folder.glob(f"{_WRITING}*"):
            with contextlib.suppress(OSError):  # another process sweeps, too
                if left.stat().st_mtime < until:
                    left.unlink()

    @contextlib.contextmanager
    def alone(self, program: Program, seconds: float) -> Iterator[None]:
        """Make a program within the block while no other process that shares the folder makes it.

        Raises:
            BusyError: another one still did after `seconds`.
        """
        path = self._path(program)
        with contextlib.nullcontext() if path is None else sole_maker(path, seconds):
            yield

    def _path(self, program: Program) -> Path | None:
        described = description(program) if self.trusted else None
        if described is None:
            return None
        key = hashlib.sha256(f"{self._code}\n{self._around}\n{described}".encode()).hexdigest()
        return self.folder / f"{key}{_SUFFIX}"

    def second_name(
        self, program: Program, lowered: jax.stages.Lowered, options: Mapping[str, Any] | None
    ) -> Path | None:
        """Of what a compiler with these options makes of a program; None where that cannot be told."""
        described, used = description(program) if self.trusted else None, _used_arguments(lowered)
        if described is None or used is None:
            return None
        said = f"{self._around}\n{described}\n{options}\n{used}\n{lowered.as_text()}"
        key = hashlib.sha256(said.encode()).hexdigest()
        return self.folder / f"{key}{_LOWERED}"


def description(program: Program) -> str | None:
    """Everything of a program that its code and surroundings do not say; equal for equal programs, in every
    process. None where that cannot be told: a function with variables of its own, or several devices."""
    leaves = jax.tree.leaves((program.arguments, program.results))
    devices = set().union(
        *(where.device_set for leaf in leaves if (where := getattr(leaf, "sharding", None)))
    )
    function = _described(program.function)
    if function is None or len(devices) > 1:
        return None
    trees = [jax.tree.structure(tree) for tree in (program.arguments, program.results)]
    shapes = [(leaf.shape, str(leaf.dtype)) for leaf in leaves]
    return "\n".join(map(str, (program.name, function, *trees, shapes, program.donate)))


def _used_arguments(lowered: jax.stages.Lowered) -> list[int] | None:
    """Which of its arguments a program uses. JAX leaves out the others, and an entry knows them by number,
    but the text of what was lowered does not. None where this JAX does not say."""
    kept = getattr(getattr(lowered, "_lowering", None), "compile_args", {}).get("kept_var_idx")
    return None if kept is None else sorted(kept)


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 of all source files that a program can be made from."""
    digest = hashlib.sha256()
    for package in (chorus_server.model, chorus_server.engine):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _surroundings() -> str:
    """What else decides how a program is compiled, and whether it runs here."""
    device = jax.devices()[0]
    values: Any = jax.config.values
    said: Iterable[object] = (
        sys.version,
        platform.machine(),
        *(f"{name} {version(name)}" for name in _PACKAGES),
        *(f"{name}={os.environ.get(name)}" for name in _VARIABLES),
        *(f"{name}={value}" for name, value in sorted(values.items()) if not name.startswith(_ELSEWHERE)),
        (device.platform, device.device_kind, device.client.platform_version),
        (len(jax.devices()), cores()),
        sorted(processor_flags()),
    )  # fmt: skip
    return "\n".join(map(str, said))


def _described(value: Any) -> str | None:
    """A function, and what it was given beforehand, in words that are the same in every process."""
    if isinstance(value, partial):
        parts = [_described(each) for each in (value.func, *value.args, *value.keywords.values())]
        return None if None in parts else f"partial({parts}, {list(value.keywords)})"
    if isinstance(value, nnx.GraphDef):
        return "graph"  # made by our code from the config and layout beside it
    if isinstance(value, FunctionType):
        plain = value.__closure__ is None and "<" not in value.__qualname__
        return f"{value.__module__}.{value.__qualname__}" if plain else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: _described(getattr(value, each.name)) for each in dataclasses.fields(value)}
        return None if None in fields.values() else f"{type(value).__qualname__}({fields})"
    text = repr(value)
    return None if " at 0x" in text else text


def _restored(content: bytes, program: Program) -> Any:
    start = len(_MAGIC) + hashlib.sha256().digest_size
    payload = content[start:]
    if content[:start] != _MAGIC + hashlib.sha256(payload).digest():
        raise ValueError("its checksum differs")
    inside = jax.tree.structure((program.arguments, {}))
    return serialize_executable.deserialize_and_load(
        zlib.decompress(payload), inside, jax.tree.structure(program.results),
        execution_devices=jax.devices()[:1],
    )  # fmt: skip


def _name_too(path: Path, other: Path) -> None:
    """Give a file another name; where that cannot be, a copy has it."""
    temporary = path.with_name(f"{_WRITING}{secrets.token_hex(8)}")
    try:
        os.link(path, temporary)
    except OSError:
        _write(other, path.read_bytes())
        return
    temporary.replace(other)
    temporary.unlink(missing_ok=True)  # both were names of one file already


def _write(path: Path, content: bytes) -> None:
    """A reader sees the whole file or none. It is not synced: the checksum finds what a power cut tears.

    The umask says who may read it, as with JAX's entries beside it: who fills the folder of an image is not
    who serves from it.
    """
    temporary = path.with_name(f"{_WRITING}{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
