"""PgBouncer in transaction mode before a server of the tests: each transaction may get another connection."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from psycopg.conninfo import conninfo_to_dict

from tests.support.postgres import PATIENCE, Server, await_ready, identity, short_folder, unprivileged

PORT = 6432

# Few connections for many clients, so that they are really handed from one to the other. Roles are looked up
# on the server, because tests make some of their own.
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

# As with the server: it lives as long as our end of the pipe. It has nothing to lose, and what its milder
# signals mean has changed from version to version.
GUARD = """
"$1" "$2/pgbouncer.ini" </dev/null &
cat >/dev/null
kill -KILL $!
rm -rf "$2"
"""


def program() -> str | None:
    """Where PgBouncer is on this machine, None if it is not; its folder is not always on the PATH."""
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


@contextmanager
def before(
    server: Server, *, size: int = 3, clients: int = 200, mode: str = "transaction"
) -> Iterator[Server]:
    """Run PgBouncer before a server; databases are still made and dropped on the server itself."""
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
            guard.communicate(timeout=PATIENCE)  # closes the pipe, and waits for the end
    finally:
        shutil.rmtree(home, ignore_errors=True)
