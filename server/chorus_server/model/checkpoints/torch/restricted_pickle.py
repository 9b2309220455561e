"""Interprets the pickle of a torch state dict without unpickling it.

A pickle is a program. `pickle.Unpickler` with a strict `find_class` still runs it: REDUCE calls, BUILD sets
state, and every permitted name is a real callable. Here the few opcodes that a state dict uses work on inert
data: a global is a record of two strings, a call is a record of its arguments, and both are accepted only in
the exact forms below. Nothing is imported, looked up or called. docs/decisions says what was considered.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chorus_server.errors import InvalidModelError

MAX_PICKLE_BYTES = 4 * 1024 * 1024
MAX_OPERATIONS = 1_000_000
"""T5 XXL's state dict needs 100 KB and 20,000 operations. A list of a billion empty lists would fill the
memory."""


class RefusedPickleError(InvalidModelError):
    """The pickle does something that a state dict does not."""

    default_code = "refused_torch_file"


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle mentions. Never imported."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage: torch's class name for its type, its key in the archive, its number of elements."""

    kind: str
    key: str
    elements: int


@dataclass(frozen=True, slots=True)
class TorchTensor:
    """A view of a storage; offset and strides are in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


STORAGES = frozenset(
    f"{kind}Storage"
    for kind in ("Float", "BFloat16", "Half", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
)
ORDERED_DICT = Global("collections", "OrderedDict")
REBUILD_TENSOR = Global("torch._utils", "_rebuild_tensor_v2")
REBUILD_PARAMETER = Global("torch._utils", "_rebuild_parameter")
_GLOBALS = {ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER} | {Global("torch", name) for name in STORAGES}
_MARK = object()


def read_state_dict(data: bytes) -> dict[str, TorchTensor]:
    """The tensors of a state dict, by name.

    Raises:
        RefusedPickleError: the pickle has an opcode, a name, a call or a value that a state dict does not
            have, or is not a state dict.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise RefusedPickleError(
            f"data.pkl has {len(data)} bytes; a state dict's has at most {MAX_PICKLE_BYTES}"
        )
    result = _Machine().run(data)
    if not isinstance(result, dict) or not result:
        raise RefusedPickleError("the file does not contain a state dict")
    for name, value in result.items():
        if type(name) is not str or not isinstance(value, TorchTensor):
            raise RefusedPickleError(
                f"the state dict maps {_kind(name)} to {_kind(value)}; expected names to tensors"
            )
    return result


class _Machine:
    """The stack, the memo, and a method for each permitted opcode."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
                if count > MAX_OPERATIONS:
                    raise RefusedPickleError("the pickle has too many operations")
                if opcode.name == "STOP":
                    return self._finish()
                step = _STEPS.get(opcode.name)
                if step is None:
                    raise RefusedPickleError(
                        f"the pickle uses {opcode.name}, which a state dict does not need"
                    )
                step(self, argument)
        except RefusedPickleError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, UnicodeDecodeError, OverflowError) as error:
            raise RefusedPickleError(f"the pickle is damaged ({type(error).__name__})") from error
        raise RefusedPickleError("the pickle has no end")

    def _finish(self) -> Any:
        if len(self._stack) != 1:
            raise RefusedPickleError("the pickle leaves more than one value")
        return self._stack[0]

    def skip(self, _: Any) -> None:
        """PROTO and FRAME mean nothing here."""

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def none(self, _: Any) -> None:
        self._stack.append(None)

    def true(self, _: Any) -> None:
        self._stack.append(True)

    def false(self, _: Any) -> None:
        self._stack.append(False)

    def empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def empty_list(self, _: Any) -> None:
        self._stack.append([])

    def empty_tuple(self, _: Any) -> None:
        self._stack.append(())

    def tuple_marked(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def tuple1(self, _: Any) -> None:
        self._stack.append(tuple(self._pop(1)))

    def tuple2(self, _: Any) -> None:
        self._stack.append(tuple(self._pop(2)))

    def tuple3(self, _: Any) -> None:
        self._stack.append(tuple(self._pop(3)))

    def put(self, index: int) -> None:
        self._memo[index] = self._top()

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def set_item(self, _: Any) -> None:
        self._update(self._pop(2))

    def set_items(self, _: Any) -> None:
        self._update(self._since_mark())

    def append(self, _: Any) -> None:
        self._extend(self._pop(1))

    def appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def global_name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_global(module, name)

    def stack_global(self, _: Any) -> None:
        module, name = self._pop(2)
        self._push_global(module, name)

    def persistent(self, _: Any) -> None:
        (key,) = self._pop(1)
        self._stack.append(_storage(key))

    def reduce(self, _: Any) -> None:
        function, arguments = self._pop(2)
        if type(arguments) is not tuple:
            raise RefusedPickleError("the pickle calls something without a tuple of arguments")
        self._stack.append(_rebuilt(function, arguments))

    def build(self, _: Any) -> None:
        """torch attaches `_metadata`, the versions of modules, to the dictionary. It is dropped."""
        (state,) = self._pop(1)
        if not isinstance(self._top(), dict) or not isinstance(state, dict) or set(state) != {"_metadata"}:
            raise RefusedPickleError("the pickle sets the state of an object")

    def _push_global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str or Global(module, name) not in _GLOBALS:
            raise RefusedPickleError(
                f"the pickle names {_brief(module)}.{_brief(name)}, which a state dict does not need"
            )
        self._stack.append(Global(module, name))

    def _update(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            raise RefusedPickleError("the pickle sets an item of something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise RefusedPickleError(f"the pickle has a dictionary key that is {_kind(key)}")
            if key in target:
                raise RefusedPickleError(f"the state dict has {_brief(key)} twice")
            target[key] = value

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise RefusedPickleError("the pickle appends to something that is not a list")
        target.extend(items)

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise RefusedPickleError("the pickle reads past its stack")
        return self._stack[-1]

    def _pop(self, count: int) -> list[Any]:
        items = self._stack[-count:]
        if len(items) < count or any(item is _MARK for item in items):
            raise RefusedPickleError("the pickle reads past its stack")
        del self._stack[-count:]
        return items

    def _since_mark(self) -> list[Any]:
        for position in range(len(self._stack) - 1, -1, -1):
            if self._stack[position] is _MARK:
                items = self._stack[position + 1 :]
                del self._stack[position:]
                return items
        raise RefusedPickleError("the pickle reads past its stack")


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.skip,
    "FRAME": _Machine.skip,
    "MARK": _Machine.mark,
    "NONE": _Machine.none,
    "NEWTRUE": _Machine.true,
    "NEWFALSE": _Machine.false,
    "EMPTY_DICT": _Machine.empty_dict,
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_TUPLE": _Machine.empty_tuple,
    "TUPLE": _Machine.tuple_marked,
    "TUPLE1": _Machine.tuple1,
    "TUPLE2": _Machine.tuple2,
    "TUPLE3": _Machine.tuple3,
    "MEMOIZE": _Machine.memoize,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(
        ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _Machine.push
    ),
}


def _storage(key: Any) -> Storage:
    """A persistent id: `("storage", torch.FloatStorage, "0", "cpu", 512)`."""
    if type(key) is not tuple or len(key) != 5 or key[0] != "storage":
        raise RefusedPickleError("the pickle has a persistent id that is not a storage")
    _, kind, name, _, elements = key
    if not isinstance(kind, Global) or kind.module != "torch" or type(name) is not str:
        raise RefusedPickleError("the pickle has a persistent id that is not a storage")
    if not _is_count(elements):
        raise RefusedPickleError("the pickle has a storage of an impossible size")
    return Storage(kind.name, name, elements)


def _rebuilt(function: Any, arguments: tuple[Any, ...]) -> Any:
    """The inert record for a permitted call."""
    if function == ORDERED_DICT and arguments == ():
        return {}
    if function == REBUILD_TENSOR and len(arguments) in (6, 7):
        return _tensor(*arguments[:4])
    if function == REBUILD_PARAMETER and len(arguments) == 3 and isinstance(arguments[0], TorchTensor):
        return arguments[0]
    raise RefusedPickleError(f"the pickle calls {_kind(function)} in a way that a state dict does not")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> TorchTensor:
    sizes_valid = type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides) <= 8
    if not isinstance(storage, Storage) or not sizes_valid:
        raise RefusedPickleError("the pickle has a tensor that is not valid")
    if not all(_is_count(value) for value in (offset, *shape, *strides)):
        raise RefusedPickleError("the pickle has a tensor of an impossible size")
    return TorchTensor(storage, offset, shape, strides)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _kind(value: Any) -> str:
    """What a value is, without its content, which may be nested without bound."""
    if isinstance(value, Global):
        return f"{value.module}.{value.name}"
    return type(value).__name__


def _brief(value: Any) -> str:
    return repr(value[:60]) if type(value) is str else _kind(value)
