"""Create fresh stores of every kind by URL, and find files and sessions that a run left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import psycopg

from tests.support import postgres

__all__ = ["KINDS", "StoreFixture", "files_of", "left_over", "store_fixture"]

KINDS = ("sqlite", "duckdb", "parquet", "postgresql")


@attrs.frozen
class StoreFixture:
    """Creates fresh stores of one kind, each in its own folder or database."""

    kind: str
    folder: Path
    server: postgres.Server | None = None
    _numbers: Iterator[int] = attrs.field(factory=count)
    _databases: ExitStack = attrs.field(factory=ExitStack)

    def fresh(self) -> str:
        """Return the URL of a store that does not exist yet."""
        if self.server is not None:
            return self._databases.enter_context(self.server.database())
        home = self.folder / f"{self.kind}-{next(self._numbers)}"
        home.mkdir()
        return f"{self.kind}:{home / 'market'}"


@contextmanager
def store_fixture(kind: str, server: postgres.Server | None = None) -> Iterator[StoreFixture]:
    """Open a fixture for stores of one kind; starts a PostgreSQL server if it needs one and none is given."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="marketfetch-chaos-")))
        if kind == "postgresql" and server is None:
            server = stack.enter_context(postgres.running(postgres.sources("auto")[0]))
        databases = stack.enter_context(ExitStack())
        yield StoreFixture(kind, folder, server if kind == "postgresql" else None, databases=databases)


def left_over(url: str) -> list[str]:
    """Return what a closed store still has beside its data: temporary files, logs, busy sessions.

    Idle sessions are left out: a connection pooler keeps them on purpose.
    """
    kind, _, path = url.partition(":")
    if kind == "postgresql":
        with psycopg.connect(url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT application_name || ' ' || coalesce(state, '') FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND backend_type = 'client backend' AND state <> 'idle'"
            ).fetchall()
        return [name for (name,) in found]
    files = files_of(url)
    if kind == "parquet":
        return [name for name in files if not name.endswith(".parquet")]
    return [name for name in files if name != Path(path).name]


def files_of(url: str) -> dict[str, Path]:
    """Return all files in the folder of a file-based store, by their relative names."""
    path = Path(url.partition(":")[2])
    home = path if url.startswith("parquet:") else path.parent
    return {str(file.relative_to(home)): file for file in sorted(home.rglob("*")) if file.is_file()}
