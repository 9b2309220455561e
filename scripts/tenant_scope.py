"""Says which queries are not about one tenant, and refuses those that nobody has given a reason for.

    python scripts/tenant_scope.py

A query belongs into `prompts_store`, outside `database/` and `migrations/`. Each function that builds one
has a condition on the tenant, or on the key of a row that such a condition found, or is in `REASONS`. So is
each function that says `EVERY_TENANT`. This reads the source as a tree, so it finds what is forgotten, not
what is hidden on purpose; row-level security is behind it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]

BUILDERS = {"select", "insert", "update", "delete", "exists"}
# Begin a query that whoever calls them finishes.
BEGINNINGS = {"live_versions", "select_versions"}
# Give a condition on the tenant.
CONDITIONS = {"of_one"}
# What finds a row is a tenant's condition; these name that row, or the one that it belongs to.
ROW_KEYS = {
    "id", "number", "task_id", "owner_id", "ensemble_id", "ensemble_version_id", "pack_id", "pack_version_id",
    "job_number", "file_number", "version_id",
}  # fmt: skip
OPEN_TABLES = {"blobs", "blob_table", "store_identity"}
RAW = {"text", "exec_driver_sql"}
OUTSIDE = {"sqlalchemy": {"make_url"}, "prompts_store.database": {"Database"}}

_UPKEEP = "an operator's, or the server's own looking after the store"
_FINISHED = "begins a query or a condition: who calls it says whose"
REASONS = {
    "prompts_store/store.py": _UPKEEP,
    "prompts_store/upkeep/backups.py": _UPKEEP,
    "prompts_store/upkeep/checking.py": _UPKEEP,
    "prompts_store/upkeep/collector.py": _UPKEEP,
    "prompts_store/upkeep/erasing.py": _UPKEEP,
    "prompts_store/upkeep/file_checking.py": _UPKEEP,
    "prompts_store/upkeep/file_collector.py": _UPKEEP,
    "prompts_store/upkeep/holdings.py": _UPKEEP,
    "prompts_store/upkeep/identity.py": _UPKEEP,
    "prompts_store/upkeep/tenant_checking.py": _UPKEEP,
    "prompts_store/upkeep/turns.py": _UPKEEP,
    "prompts_store/upkeep/purging.py:TenantPurge.purge_tenants": _UPKEEP,
    "prompts_store/upkeep/purging.py:TenantPurge._revoke_grants_to": _UPKEEP,
    "prompts_store/audit/audit_log.py:AuditLog.audited": _UPKEEP,
    "prompts_store/audit/audit_log.py:AuditLog.drop_audit": _UPKEEP,
    "prompts_store/audit/audit_log.py:AuditLog._drop": _UPKEEP,
    "prompts_store/audit/audit_log.py:_scope": "the whole store's log belongs to no tenant",
    "prompts_store/audit/chain.py:_FIRST_HEAD": "ON CONFLICT DO NOTHING is a text; it names the log",
    "prompts_store/budgets/leases.py": "one question for all tenants that wait; rows name their own",
    "prompts_store/lists/rows.py:live_versions": _FINISHED,
    "prompts_store/lists/rows.py:list_versions": "what is listed may be another tenant's; by its list",
    "prompts_store/files/data_files.py:needed": "equal bytes are stored once for all tenants",
    "prompts_store/grants/rows.py:revoke_to": "whoever granted something to a tenant that is no more",
    "prompts_store/grants/rows.py:dangling": _UPKEEP,
    "prompts_store/grants/rows.py:_revoke": _FINISHED,
    "prompts_store/jobs/claims.py:JobClaims.claim_job": "whose turn it is depends on all tenants' jobs",
    "prompts_store/jobs/claims.py:JobClaims.jobs_of_other_matrices": "a process leaves jobs of all tenants",
    "prompts_store/jobs/claims.py:JobClaims.job_holders": "processes run jobs of all tenants",
    "prompts_store/jobs/claims.py:_next": "whose turn it is depends on all tenants' jobs",
    "prompts_store/tasks/counts.py:_RETAIN": "ON CONFLICT DO UPDATE is a text; of blobs",
    "prompts_store/tasks/counts.py:release_all": _FINISHED,
    "prompts_store/tasks/counts.py:recount": _UPKEEP,
    "prompts_store/tasks/prompts.py:Prompts._no_values": "of blobs, which belong to no tenant",
    "prompts_store/tasks/rows.py:_LAST_MOVE": _FINISHED,
    "prompts_store/tasks/rows.py:_LATEST": _FINISHED,
    "prompts_store/tasks/rows.py:_NEWEST": _FINISHED,
    "prompts_store/tenants/expiring.py:drop_expired": _UPKEEP,
    "prompts_store/tenants/sessions.py:Sessions.find_session": "what a browser has says which tenant it is",
    "prompts_store/tenants/sessions.py:Sessions.end_session": "what a browser has says which tenant it is",
    "prompts_store/tenants/feed.py": "one feed tells every process of all tenants' changes",
    "prompts_store/tenants/keys.py:Keys.create_key": "no two tenants' keys have one public part",
    "prompts_store/tenants/keys.py:Keys.find_key": "who asks is not known before the key is found",
    "prompts_store/tenants/keys.py:_FOUND": "who asks is not known before the key is found",
    "prompts_store/tenants/keys.py:Keys.holds_keys": "whether anybody needs a key",
    "prompts_store/tenants/keys.py:Keys.touch_keys": "of all keys that were used in a minute",
    "prompts_store/tenants/keys.py:_require_none": "the first key with a scope, of any tenant",
    "prompts_store/tenants/keys.py:_unused_key": "no two tenants' keys have one public part",
    "prompts_store/tenants/standing.py:stopped_tenants": "for whose turn it is",
    "prompts_store/tenants/standing.py:stopped_of": "which owners of what is shared are not served",
    "prompts_store/tenants/tenants.py:Tenants._create": "makes the tenant that it names",
    "prompts_store/tenants/tenants.py:Tenants.list_tenants": "an operator's list of tenants",
    "prompts_store/usage/usage.py:Usage.record_usage": "rows of all tenants are written at once",
    "prompts_store/usage/usage.py:Usage.usage": "an operator may ask for everybody's",
    "prompts_store/usage/usage.py:_added": "an operator may ask for everybody's",
    "prompts_store/usage/usage.py:Usage.drop_usage": _UPKEEP,
    "prompts_store/usage/usage.py:Usage._drop_rows": _UPKEEP,
    "prompts_store/usage/usage.py:Usage._drop_hours": _UPKEEP,
}
"""By `file:function`, or a whole file: why a query is not about one tenant."""


def faults(path: str, source: str, reasons: Mapping[str, str] | None = None) -> Iterator[str]:
    """What is wrong in one file, as `path:line: what`.

    Args:
        path: relative to the repository.
        reasons: in place of `REASONS`.
    """
    reasons = REASONS if reasons is None else reasons
    tree = ast.parse(source)
    if not path.startswith("prompts_store/"):
        yield from _imports(path, tree)
    elif (
        not path.startswith(("prompts_store/database/", "prompts_store/migrations/")) and path not in reasons
    ):
        for name, node in _parts(tree):
            if f"{path}:{name}" not in reasons:
                yield from (f"{path}:{line}: {name} {what}" for line, what in _queries(node))


def _imports(path: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        modules = {}
        if isinstance(node, ast.Import):
            modules = {alias.name: {""} for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = {node.module: {alias.name for alias in node.names}}
        for module, names in modules.items():
            for room, allowed in OUTSIDE.items():
                if (module == room or module.startswith(f"{room}.")) and names - allowed:
                    yield f"{path}:{node.lineno}: imports {module}: only prompts_store asks the database"


def _parts(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Functions with their names, and what a module says outside of them, by the names that it gives."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.{inner.name}", inner
        elif isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            yield ast.unparse(target), node


def _queries(node: ast.AST) -> Iterator[tuple[int, str]]:
    first: int | None = None
    tables: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and inner.id == "EVERY_TENANT":
            yield inner.lineno, "is about every tenant"
        if isinstance(inner, ast.Call):
            called = ast.unparse(inner.func).rpartition(".")[2]
            if called in RAW:
                yield inner.lineno, f"has SQL as a text, in {called}"
            if called in BUILDERS | BEGINNINGS and isinstance(inner.func, ast.Name):
                first = first or inner.lineno
                shown = (arg for arg in inner.args if isinstance(arg, ast.Name | ast.Attribute))
                tables |= {ast.unparse(arg) for arg in shown}
        if isinstance(inner, ast.Attribute) and inner.attr == "c":
            tables.add(ast.unparse(inner.value))
    if first is not None and not tables <= OPEN_TABLES and not _says_whose(node):
        yield first, "asks without the tenant"


def _says_whose(node: ast.AST) -> bool:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Compare) and isinstance(inner.ops[0], ast.Eq):
            sides = (inner.left, inner.comparators[0])
            columns = [_column(side) for side in sides]
            # Of two columns it is a join, which says nothing about whose the rows are.
            if columns.count(None) == 1 and any(_is_scope(column) for column in columns):
                return True
        if isinstance(inner, ast.Call):
            called = ast.unparse(inner.func).rpartition(".")[2]
            if called == "in_" and isinstance(inner.func, ast.Attribute):
                column = _column(inner.func.value)
                if column is not None and column[1] in ROW_KEYS | {"tenant", "grantee"}:
                    return True
            if called in CONDITIONS:
                return True
            if called == "values" and {"tenant", *ROW_KEYS} & {keyword.arg for keyword in inner.keywords}:
                return True
        if isinstance(inner, ast.Dict):
            keys = {key.value for key in inner.keys if isinstance(key, ast.Constant)}
            if {"tenant", "job_number", "ensemble_version_id", "pack_version_id"} & keys:
                return True
    return False


def _is_scope(column: tuple[str, str] | None) -> bool:
    return column is not None and (
        column[1] == "tenant" or column == ("tenants", "name") or column[1] in ROW_KEYS
    )


def _column(node: ast.expr) -> tuple[str, str] | None:
    """Table and column of `table.c.column`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "c":
        return ast.unparse(node.value.value), node.attr
    # How aliases call the column by which a version names its task or ensemble.
    if ast.unparse(node) == "family.owner":
        return "family", "owner_id"
    return None


def check(root: Path) -> list[str]:
    """What is wrong in the product, and the reasons that nothing needs any more."""
    found, unexcused = [], set()
    for room in ("server", "clients", "prompts_store"):
        for file in sorted((root / room).rglob("*.py")):
            path, source = file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")
            found += faults(path, source)
            for fault in faults(path, source, {}):
                unexcused |= {path, f"{path}:{fault.split(': ')[1].split()[0]}"}
    return found + [f"{name}: needs no reason" for name in REASONS.keys() - unexcused]


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    found = check(ROOT)
    click.echo("\n".join(found) or "every query says whose rows it is about")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
