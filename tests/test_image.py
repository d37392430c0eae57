"""What the images do, without containers: the wheel, a user without rights, one folder to write into."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import attrs
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from marketfetch.testing import GeneratedMarket, SimulatedExchange
from tests.conftest import absent
from tests.support import pgbouncer
from tests.support.postgres import Server, await_ready, identity, short_folder, unprivileged

PROJECT = Path(__file__).parents[1]
DEPLOY = PROJECT / "examples" / "deploy"
IMAGE = dict(re.findall(r"^([A-Z]+) (.*)$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE))
PASSWORD = """it's a "pass\\word" """
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
BACKFILL = ("backfill", "-e", "binance-usdm", "-s", "BTCUSDT", "-i", "1h", "--start", "2d")
TWO_DAYS = (46, 47, 48)  # from the next full hour; the last hour is requested a minute after its end

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the images are Linux")


@attrs.frozen
class Container:
    """A virtual environment with the wheel, and a folder that stands for the volume of the image."""

    root: Path
    data: Path
    user: tuple[str, ...]
    """What makes the command after it one of the user of the image."""

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the entry point as the user of the image, in a folder in which that user cannot write."""
        program = json.loads(IMAGE["ENTRYPOINT"])[0]
        name, _, value = IMAGE["ENV"].partition("=")
        return subprocess.run(
            [*self.user, self.root / "bin" / program, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.root,
            env={name: self.of(value), "HOME": str(self.root), "PATH": os.defpath, **environment},
        )

    def of(self, path: str) -> str:
        """Return where a path of the image is here."""
        return path.replace(IMAGE["VOLUME"], str(self.data))

    def files(self) -> set[Path]:
        """Return all files outside the volume."""
        return {path for path in self.root.rglob("*") if path.is_file()}


def _user() -> tuple[str, ...]:
    """Return what makes a command one of the user of the image, who reads what we can read.

    That is a namespace. Where the system has none for us, we are without rights too, unless we are root.
    """
    number = IMAGE["USER"]
    namespace = ("unshare", "--user", f"--map-user={number}", f"--map-group={number}")
    try:
        subprocess.run([*namespace, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        if os.geteuid() == 0:
            absent("No user namespaces: run the tests as another user than root")
        return ()
    return namespace


def _own(root: Path) -> list[Path]:
    """Return a folder and all in it but links, which lead to the Python of the machine."""
    return [path for path in (root, *root.rglob("*")) if not path.is_symlink()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in a copy: a build writes the compiled decoder into its tree."""
    tree = tmp_path_factory.mktemp("wheel")
    for name in ("src", "tools"):
        shutil.copytree(PROJECT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, tree)
    subprocess.run(
        [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tree, tree], check=True
    )
    (built,) = tree.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def container(wheel: Path) -> Iterator[Container]:
    root, data = short_folder("mf-image-"), short_folder("mf-data-")
    try:
        # What marketfetch depends on is that of the tests, so that nothing is fetched.
        venv.create(root, symlinks=True)
        python = root / "bin" / "python"
        subprocess.run([*PIP, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
        (site,) = root.glob("lib/python*/site-packages")
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
        for path in _own(root):
            path.chmod(path.stat().st_mode & ~0o222)
        yield Container(root, data, _user())
    finally:
        for path in _own(root):
            path.chmod(path.stat().st_mode | 0o200)
        shutil.rmtree(root)
        shutil.rmtree(data)


@pytest.fixture
def exchange() -> Iterator[str]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as simulated:
        yield simulated.base_url


@pytest.mark.slow
def test_image_fills_a_store_and_writes_into_its_volume_alone(container: Container, exchange: str) -> None:
    before = container.files()
    store = container.of("duckdb:/data/market.duckdb")
    filled = container.run(*BACKFILL, "-t", store, "--base-url", exchange, "--sources", "rest", "--json")
    assert filled.returncode == 0, filled.stderr
    assert json.loads(filled.stdout)["rows_written"] in TWO_DAYS
    shown = container.run("coverage", "-t", store, "--json")
    assert shown.returncode == 0, shown.stderr
    assert [series["symbol"] for series in json.loads(shown.stdout)] == ["BTCUSDT"]
    assert container.files() == before
    assert {path.name for path in container.data.iterdir()} >= {"market.duckdb", "state"}


@pytest.mark.slow
def test_image_has_the_wheel_and_not_the_source_tree(container: Container, wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    assert container.run("--version").stdout.splitlines()[0] == f"marketfetch {version}"
    assert list(container.root.glob("lib/python*/site-packages/marketfetch/cli/main.py"))


def test_image_without_a_command_says_what_it_can_do(container: Container) -> None:
    assert "follow" in container.run(*json.loads(IMAGE["CMD"])).stdout


@contextmanager
def pooled(server: Server) -> Iterator[int]:
    """Run PgBouncer as its image does, in front of a server of the tests; yield its port."""
    if pgbouncer.program() is None:
        absent("No PgBouncer: install the package pgbouncer of your distribution")
    with ExitStack() as stack:
        for attempt in range(1, 6):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            try:
                stack.enter_context(pooled_at(port, server))
                break
            except RuntimeError:  # it has ended: another program may have taken the port meanwhile
                if attempt == 5:
                    raise
        yield port


@contextmanager
def pooled_at(port: int, server: Server) -> Iterator[None]:
    """Run PgBouncer on a port that was free a moment ago; RuntimeError if it does not start."""
    program, user = pgbouncer.program(), unprivileged()
    home = short_folder("mf-bouncer-")
    place = conninfo_to_dict(server.direct)
    for name, changes in (
        (
            "pgbouncer.ini",
            {
                "host=postgres port=5432": f"host={place['host']} port={place['port']}",
                "listen_addr = *": "listen_addr = 127.0.0.1",
                "listen_port = 6432": f"listen_port = {port}",
                "/tmp/users": f"{home}/users",
            },
        ),
        ("start.sh", {"/tmp/users": f"{home}/users", "pgbouncer /etc/pgbouncer": f"{program} {home}"}),
    ):
        (home / name).write_text(_changed((DEPLOY / "pgbouncer" / name).read_text("utf-8"), changes))
    if user:
        os.chown(home, user.pw_uid, user.pw_gid)
    try:
        with (home / "log").open("w") as log:
            process = subprocess.Popen(
                ["/bin/sh", home / "start.sh"],
                env={"POSTGRES_PASSWORD": PASSWORD, "PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **identity(user),
            )
        try:
            dsn = f"host=127.0.0.1 port={port} user=market password={_in_dsn(PASSWORD)} dbname=postgres"
            await_ready(dsn, process, home / "log")
            if process.poll() is not None:
                raise RuntimeError("another program answers at the port")
            yield
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(home)


def _changed(text: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def _in_dsn(password: str) -> str:
    return "'{}'".format(password.replace("\\", "\\\\").replace("'", "\\'"))


@pytest.mark.heavy
@pytest.mark.slow
def test_services_of_compose_fill_postgresql_through_pgbouncer_with_a_password(
    container: Container, exchange: str, postgres_server: Server, postgres_dsn: str
) -> None:
    if postgres_server.source.programs is None:
        pytest.skip("A server that was given may want a password of the role that is made here")
    direct = postgres_server.past_the_pooler(postgres_dsn)
    database = str(conninfo_to_dict(direct)["dbname"])
    with psycopg.connect(direct, autocommit=True) as connection:
        connection.execute("CREATE ROLE market LOGIN")
        connection.execute(f"ALTER DATABASE {database} OWNER TO market".encode())
    try:
        with pooled(postgres_server) as port:
            environment = {
                "MARKETFETCH_STORE": f"postgresql://market@127.0.0.1:{port}/{database}",
                "PGPASSWORD": PASSWORD,
            }
            filled = container.run(*BACKFILL, "--base-url", exchange, "--json", **environment)
            assert filled.returncode == 0, filled.stderr
            rows = json.loads(filled.stdout)["rows_written"]
            assert rows in TWO_DAYS
            # The health check of the service, and a client without the password.
            assert container.run("status", "--max-lag=3h", **environment).returncode == 0
            refused = container.run("status", **{**environment, "PGPASSWORD": quote(PASSWORD)})
            assert refused.returncode == 2
            assert PASSWORD not in refused.stderr
        with psycopg.connect(direct) as connection:
            assert connection.execute("SELECT count(*) FROM ohlcv").fetchone() == (rows,)
    finally:
        with psycopg.connect(direct, autocommit=True) as connection:
            connection.execute("REASSIGN OWNED BY market TO postgres")
            connection.execute("DROP OWNED BY market")
            connection.execute("DROP ROLE market")
