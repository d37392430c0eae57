"""PgBouncer in transaction mode in front of a test server: each transaction may get another connection."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from psycopg.conninfo import conninfo_to_dict

from tests.support.postgres import TIMEOUT, Server, await_ready, identity, short_folder, unprivileged

PORT = 6432

# Few connections for many clients, so that clients really share them. Roles are looked up on the server,
# because tests make roles.
SETTINGS = """
[databases]
* = {server}
[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {home}
auth_type = trust
auth_file = {home}/users
auth_user = postgres
auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1
admin_users = postgres
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = {clients}
server_login_retry = 0
log_connections = 0
log_disconnections = 0
"""

# Like the server, it runs until our end of the pipe is closed. It is killed: it has no data to lose, and the
# meaning of its other signals differs between versions.
GUARD = """
"$1" "$2/pgbouncer.ini" </dev/null &
cat >/dev/null
kill -KILL $!
rm -rf "$2"
"""


def program() -> str | None:
    """Return the path of PgBouncer, None if it is not installed; its folder may not be on the PATH."""
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


@contextmanager
def before(
    server: Server, *, size: int = 3, clients: int = 200, mode: str = "transaction"
) -> Iterator[Server]:
    """Run PgBouncer in front of a server; databases are made and dropped on the server itself."""
    found, user = program(), unprivileged()
    assert found, "install pgbouncer"
    home = short_folder("mf-pool-")
    parts = {name: value for name, value in conninfo_to_dict(server.dsn).items() if name in {"host", "port"}}
    settings = SETTINGS.format(
        server=" ".join(f"{name}={value}" for name, value in parts.items()),
        port=PORT,
        home=home,
        size=size,
        clients=clients,
        mode=mode,
    )
    (home / "pgbouncer.ini").write_text(settings)
    (home / "users").write_text('"postgres" ""\n')
    if user:
        for path in (home, *home.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)
    dsn = f"host={home} port={PORT} user=postgres dbname=postgres"
    log = home / "log"
    try:
        with log.open("w") as output:
            guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "guard", found, home],
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the tests
                **identity(user),
            )
        try:
            await_ready(dsn, guard, log)
            yield attrs.evolve(server, dsn=dsn)
        finally:
            guard.communicate(timeout=TIMEOUT)  # closes the pipe, and waits for the end
    finally:
        shutil.rmtree(home, ignore_errors=True)
