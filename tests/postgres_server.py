"""A real PostgreSQL server for tests: its own cluster in a temporary folder, on a Unix socket only."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import URL

from prompts_store.database import (
    Database,
    audit_tables,  # noqa: F401 - their tables join the metadata
    budget_tables,  # noqa: F401
    job_tables,  # noqa: F401
)
from prompts_store.database.tables import metadata
from tether import tethered

REQUIREMENTS_18 = Path(__file__).parent / "postgres_18.txt"

WAITING_FOR_ROWS = """
SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE NOT granted AND datname = current_database() AND locktype IN ('tuple', 'transactionid')
"""
"""How many transactions of this database wait for another's row, and for nothing else."""

_USER = "chorus"


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL's programs; None where none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


@contextmanager
def readable_copy(folder: Path, *parts: str) -> Iterator[Path]:
    """Parts of a folder where the server's account may read them; it may not read root's home."""
    with tempfile.TemporaryDirectory(prefix="chorus-pg18-") as name:
        copy = Path(name)
        copy.chmod(0o755)
        for part in parts:
            shutil.copytree(folder / part, copy / part, symlinks=True, copy_function=_linked)
        yield copy


def _linked(source: str, target: str) -> None:
    """A second name where that is possible: there are 3,500 files."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)


class PostgresServer:
    """A server, from construction until `stop`. Nothing of it survives, and nothing is synced.

    Names sort by a language's rules here, not by their bytes: what relies on byte order must say so.

    Args:
        languages: whether the programs know such rules.

    Attributes:
        languages: the same.
    """

    def __init__(self, programs: Path, *, languages: bool = True) -> None:
        self._programs = programs
        self.languages = languages
        self._databases = 0
        self._shared: str | None = None
        # PostgreSQL does not run as root, pytest's own folders are closed to others, and a socket's path is
        # at most 107 characters.
        self._account = "postgres" if os.getuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="chorus-pg-"))
        if self._account:
            shutil.chown(self._folder, self._account)
        try:
            locale = _LOCALE if languages else _LOCALE[:1]
            self._run("initdb", "-D", "data", "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync", *locale)
            self._process = self._start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        """Not through `pg_ctl`, which would untie the server from this process."""
        options = (
            "-k",
            self._folder,
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "shared_buffers=16MB",
        )
        command = [self._programs / "postgres", "-D", self._folder / "data", *options]
        with (self._folder / "log").open("wb") as log:
            process = subprocess.Popen(
                tethered(command, self._account or ""),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        pause = threading.Event()
        while not self._answers():
            if process.poll() is not None:
                raise RuntimeError(f"postgres failed: {(self._folder / 'log').read_text()}")
            pause.wait(0.02)
        return process

    def _answers(self) -> bool:
        try:
            psycopg.connect(host=str(self._folder), user=_USER, dbname="postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def create(self) -> str:
        """An empty database; answers with its URL."""
        self._databases += 1
        name = f"chorus{self._databases}"
        with psycopg.connect(
            host=str(self._folder), user=_USER, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://{_USER}@/{name}?host={self._folder}"

    def fence(self, url: str) -> None:
        """Make the roles of row-level security, if there are none yet, and give them a database."""
        with psycopg.connect(url) as connection:
            connection.execute(_ROLES.read_bytes())

    def emptied(self, role: str = "chorus_app") -> str:
        """The URL of one and the same database, with the store's tables and nothing in them, for a role of
        row-level security or the superuser `chorus`.

        Making a database a test takes longer than the tests.
        """
        if self._shared is None:
            self._shared = self.create()
            self.fence(self._shared)
            Database.open(self._folder, as_role(self._shared, "chorus_migrate")).close()
        # TRUNCATE gives every table a new file, which takes longer than most tests. As a replica, the server
        # runs no triggers, which would keep the audit log.
        empty = [f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)]
        begin_anew = "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"
        with psycopg.connect(self._shared) as connection:
            connection.execute("; ".join([_AS_REPLICA, *empty, begin_anew]))  # type: ignore[arg-type]
        return as_role(self._shared, role)

    def stop(self) -> None:
        """Stop the server and remove everything."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "-t", "600", "stop")
        self._process.wait()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command,
            cwd=self._folder,
            user=self._account,
            group=self._account,
            extra_groups=[] if self._account else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr and done.stderr.decode()}")


def as_role(url: str, role: str) -> str:
    """The URL of the same database for another login."""
    return url.replace(f"//{_USER}@", f"//{role}@")


def as_superuser(url: URL) -> str:
    """The URL, for the driver itself, of the same database for the superuser, whom no fence holds."""
    return url.set(drivername="postgresql", username=_USER).render_as_string()


_ROLES = Path(__file__).parents[1] / "deploy" / "postgresql" / "roles.sql"
_AS_REPLICA = "SET LOCAL session_replication_role = replica"
_LOCALE = ("--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US")
