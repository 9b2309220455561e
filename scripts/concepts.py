"""Counts how many places a change touches, in a Markdown table: what a newcomer has to know about.

    python scripts/concepts.py            this tree
    python scripts/concepts.py FOLDER     another one: git archive COMMIT | tar -x -C FOLDER

*Files that name it.* One thing stands for each kind of thing (`PICKS`), and the product's files that name it
are counted: server/, prompts_store/ and clients/chorus/, but neither tests nor docs. A file names a thing if
a word of an identifier, a keyword, an imported module or a string is its name. Comments and docstrings do not
count.

*Public names that stand twice.* Classes, functions, types and constants at the top level of a module of
server/ that do not begin with an underscore and that another module defines too. A name that is only imported
counts once, where it is defined.

*Returns.* Imports by which a chain of imports enters a package (a folder, or a module at the root of a
top-level package) in which it began and which it had left: somebody who follows calls that way comes back.
They are counted over the whole product, and among those with an end in tuning.

The count cannot know: whether a file that names a thing would have to change with it (a file that only passes
it on by name counts like one that decides about it); what is passed on without a name, as `**fields` or in a
whole object; whether two things of the same name are the same thing (`temperature` in a prompt's settings and
in a request); calls that follow no import, such as those of a callback or a protocol.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PICKS = {
    "(a) a sampling option": ("top_p",),
    "(b) an artifact format": ("npy",),
    "(c) a route": ("neighbors",),
    # The series, and its name where it is counted: once a hook, now a counter.
    "(d) a metric": ("chorus_tuning_checkpoints_total", "checkpoint_written", "checkpoints_written"),
    "(e) a recipe knob": ("clip_rms",),
    "(e') a job field": ("ensemble_name",),
}
# Names that every module may define for itself.
OWN = ("TypeVar", "ParamSpec", "getLogger", "Router")
TUNING = ("chorus_server.tuning", "chorus_server.api.tuning", "server.tuning", "server.api.tuning")


def tops(root: Path) -> tuple[str, ...]:
    """The folders of the product. The server's package was once called `server`, as the folder still is."""
    server = "server/chorus_server"
    return (server if (root / server).is_dir() else "server", "prompts_store", "clients/chorus")


def product(root: Path) -> dict[Path, ast.Module]:
    """The product's files, parsed, by their path below the root."""
    files = sorted(file for top in tops(root) for file in (root / top).rglob("*.py"))
    return {file.relative_to(root): ast.parse(file.read_text()) for file in files}


def naming(files: dict[Path, ast.Module], names: tuple[str, ...]) -> list[Path]:
    """The files that contain one of these names."""
    either = "|".join(re.escape(name) for name in names)
    word = re.compile(rf"(?<![a-z])(?:{either})(?![a-z])", re.IGNORECASE)
    return [file for file, tree in files.items() if any(word.search(text) for text in _words(tree))]


def _words(tree: ast.Module) -> Iterator[str]:
    """Identifiers, keywords, imported modules and strings, without docstrings."""
    described = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    prose: set[ast.AST] = set()
    for node in ast.walk(tree):
        for statement in node.body if isinstance(node, described) else ():
            if isinstance(statement, ast.Expr):
                prose.add(statement.value)
    for node in ast.walk(tree):
        if node in prose:
            continue
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str | bytes):
                yield node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            continue
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value


def lines(root: Path) -> dict[str, int]:
    """Lines of each package, including those of the packages in it."""
    found: dict[str, int] = defaultdict(int)
    for top in tops(root):
        for file in (root / top).rglob("*.py"):
            size = len(file.read_text().splitlines())
            inside = file.parent.relative_to(root).as_posix()
            for package in {top, "/".join(inside.split("/")[: len(top.split("/")) + 1])}:
                found[package] += size
    return dict(sorted(found.items()))


def twice(files: dict[Path, ast.Module]) -> dict[str, list[str]]:
    """Public names of the server that more than one module defines, with these modules."""
    found: dict[str, list[str]] = defaultdict(list)
    for file, tree in files.items():
        if file.parts[0] == "server":
            for name in _defined(tree):
                found[name].append(file.as_posix())
    return {name: where for name, where in sorted(found.items()) if len(where) > 1}


def _defined(tree: ast.Module) -> set[str]:
    names = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        made = getattr(getattr(node, "value", None), "func", None)
        if getattr(made, "id", getattr(made, "attr", None)) in OWN:
            continue
        names |= {each.id for each in targets if isinstance(each, ast.Name) and each.id[0].isupper()}
    return {name for name in names if not name.startswith("_")}


def settings(files: dict[Path, ast.Module], *, deprecated: bool = False) -> int:
    """Fields of the settings' classes: of those that are for use, or of the deprecated ones."""
    return sum(
        isinstance(field, ast.AnnAssign)
        for file, tree in files.items()
        if file.as_posix().startswith(("server/chorus_server/settings", "server/settings"))
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name.endswith("Settings")
        if node.name.startswith("Deprecated") == deprecated
        for field in node.body
    )


def returns(files: dict[Path, ast.Module]) -> list[tuple[str, str]]:
    """Imports that enter a package again: (module, imported module)."""
    package = {}
    for file in files:
        name = _module(file)
        folder = name if file.name == "__init__.py" else name.rpartition(".")[0]
        package[name] = folder if "." in folder else name
    modules = {_module(file): tree for file, tree in files.items()}
    onward = {name: {to for to in _imported(tree, modules) if to != name} for name, tree in modules.items()}
    # For each package: the modules that a chain of imports from it reaches.
    reached: dict[str, set[str]] = defaultdict(set)
    for name in modules:
        reached[package[name]] |= _reached(name, onward)
    edges = sorted((name, to) for name, found in onward.items() for to in found)
    return [(name, to) for name, to in edges if package[name] != package[to] and name in reached[package[to]]]


def _module(file: Path) -> str:
    parts = file.with_suffix("").parts
    outside = parts[0] == "clients" or parts[:2] == ("server", "chorus_server")
    parts = parts[1:] if outside else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.Module, modules: dict[str, ast.Module]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                inner = f"{node.module}.{each.name}"
                if inner in modules or node.module in modules:
                    yield inner if inner in modules else node.module


def _reached(start: str, onward: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for each in onward.get(ahead.pop(), set()) - found:
            found.add(each)
            ahead.append(each)
    return found


def table(root: Path) -> list[tuple[str, int]]:
    """What is counted, and the numbers."""
    files = product(root)
    again = returns(files)
    tuning = [edge for edge in again if any(end.startswith(TUNING) for end in edge)]
    return [
        *(
            (f"files that name {kind}: {', '.join(f'`{name}`' for name in names)}", len(naming(files, names)))
            for kind, names in PICKS.items()
        ),
        *((f"lines of `{name}/`", size) for name, size in lines(root).items()),
        ("public names of the server that stand twice", len(twice(files))),
        ("settings", settings(files)),
        ("deprecated settings that still work", settings(files, deprecated=True)),
        (
            "modules at the root of `prompts_store/`",
            sum(file.name != "__init__.py" for file in (root / "prompts_store").glob("*.py")),
        ),
        ("returns", len(again)),
        ("returns with an end in tuning", len(tuning)),
    ]


if __name__ == "__main__":
    rows = table(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
    for line in ("| what | now |", "| --- | ---: |", *(f"| {what} | {count} |" for what, count in rows)):
        sys.stdout.write(line + "\n")
