"""A final refusal of a connection is distinguished from a passing one, in any language."""

from __future__ import annotations

import os
import resource
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest
from psycopg.conninfo import make_conninfo

from marketfetch.errors import SinkError, SinkUnavailable
from marketfetch.events import WaitingForStore
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.settings import RetryPolicy, Settings
from tests.support import pgbouncer
from tests.support.postgres import Server
from tests.support.refusing_postgres import refusing
from tests.support.worlds import World

PASSWORD = "hunter2-$7x"

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="libpq notes a conversation on Linux only")


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def sink_on(port: int, **more: str) -> PostgresSink:
    return PostgresSink(
        make_conninfo("", host="127.0.0.1", port=port, user="ann", password=PASSWORD, dbname="market", **more)
    )


@on_linux
@pytest.mark.parametrize("password", [False, True])
@pytest.mark.parametrize(
    ("state", "message", "remedy"),
    [
        ("28P01", "Passwort-Authentifizierung für Benutzer »ann« fehlgeschlagen", "correct the DSN"),
        ("28000", "kein pg_hba.conf-Eintrag für Host »127.0.0.1«".replace("pg_hba", "Zugang"), "pg_hba.conf"),
        ("28000", "Rolle »ann« existiert nicht", "make the role"),
        ("3D000", "la base de données « market » n'existe pas", "make the database"),
        ("42501", 'データベース"market"へのアクセスが拒否されました', "GRANT CONNECT"),
        ("55000", 'база данных "market" не принимает подключения в данный момент', "ALLOW_CONNECTIONS"),
        ("22023", "valeur incorrecte pour le paramètre « work_mem »", "correct the options"),
        ("42704", "nicht erkannter Konfigurationsparameter »x«", "correct the options"),
    ],
)
def test_a_refusal_is_final_whatever_it_is_called(
    state: str, message: str, remedy: str, *, password: bool
) -> None:
    with (
        refusing(state, message, severity="ВАЖНО", password=password) as server,
        pytest.raises(SinkError) as caught,
    ):
        sink_on(server.port).ledger()
    assert not isinstance(caught.value, SinkUnavailable)
    assert message in str(caught.value)
    assert remedy in str(caught.value)
    assert server.connections <= 2
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@on_linux
@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("53300", "tut mir leid, schon zu viele Verbindungen"),
        ("57P03", "das Datenbanksystem fährt hoch"),
        ("57P01", "Verbindung wird abgebrochen aufgrund von Anweisung des Administrators"),
        ("53200", "Speicher aufgebraucht"),
    ],
)
def test_what_may_pass_may_pass_in_every_language(state: str, message: str) -> None:
    with refusing(state, message) as server, pytest.raises(SinkUnavailable, match=message):
        sink_on(server.port).ledger()


@on_linux
def test_a_run_with_a_wrong_password_is_over_at_once() -> None:
    with (
        refusing("28P01", "Passwort-Authentifizierung fehlgeschlagen", password=True) as server,
        SimulatedExchange(GeneratedMarket()) as exchange,
    ):
        world = World(exchange, settings=Settings(retries=RetryPolicy(initial=0.001, cap=0.001)))
        with pytest.raises(SinkError, match="correct the DSN"):
            anyio.run(world.pipeline(sink_on(server.port)).run)
    assert not world.events_of(WaitingForStore)
    assert server.connections <= 2
    assert not world.asked()


@pytest.mark.parametrize(
    "options",
    [
        {"sslmode": "sometimes"},
        {"service": "nowhere"},
        {"channel_binding": "perhaps"},
        {"target_session_attrs": "anything"},
        {"gssencmode": "maybe"},
        {"connect_timeout": "soon"},
        {"require_auth": "smile"},
        {"load_balance_hosts": "please"},
    ],
    ids=str,
)
def test_options_that_libpq_refuses_are_not_tried_again(options: dict[str, str]) -> None:
    port = free_port()
    with pytest.raises(SinkError, match=r"correct the options of the DSN") as caught:
        sink_on(port, **options).ledger()
    assert not isinstance(caught.value, SinkUnavailable)


@pytest.mark.parametrize(
    "place",
    [
        {"host": "no.such.host.invalid"},
        {"host": "/nowhere/at/all"},
        {"host": "127.0.0.1", "port": "1"},
        {"host": "@mf-nobody-listens"},
        {"host": "/nowhere,127.0.0.1", "port": "1,1"},
    ],
    ids=str,
)
def test_a_server_that_is_not_there_may_come_back(place: dict[str, str]) -> None:
    with pytest.raises(SinkUnavailable, match="check that the server runs"):
        PostgresSink(make_conninfo(dbname="market", user="ann", connect_timeout=5, **place)).ledger()


@on_linux
def test_of_several_hosts_one_that_may_come_back_is_enough() -> None:
    with refusing("28P01", "Passwort falsch") as wrong, refusing("57P03", "fährt gerade hoch") as starting:
        dsn = "host=127.0.0.1,127.0.0.1 port={},{} user=ann password=x dbname=market"
        with pytest.raises(SinkUnavailable):
            PostgresSink(dsn.format(wrong.port, starting.port)).ledger()
        with pytest.raises(SinkError, match="correct the DSN") as caught:
            PostgresSink(dsn.format(wrong.port, wrong.port)).ledger()
        assert not isinstance(caught.value, SinkUnavailable)


def test_a_pooler_that_has_no_transactions_is_named(postgres_server: Server) -> None:
    if pgbouncer.program() is None or postgres_server.pooled:
        pytest.skip("needs PgBouncer, right before the server")
    with pgbouncer.before(postgres_server, mode="statement") as pooled:
        with pytest.raises(SinkError, match=r"pool_mode = transaction") as caught:
            PostgresSink(pooled.dsn).ledger()
        assert not isinstance(caught.value, SinkUnavailable)


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no other file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    highest = os.open(os.devnull, os.O_RDONLY)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(highest + 8, hard), hard))
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in [highest, *held]:
            os.close(descriptor)


def test_a_process_out_of_files_is_not_told_to_look_at_the_server(postgres_dsn: str) -> None:
    """The message names the limit of this process, and not the server."""
    sink = PostgresSink(postgres_dsn)
    with no_more_files():
        try:
            sink.ledger()
            raised: Exception | None = None
        except SinkUnavailable as error:
            raised = error
    assert "too many open files: raise ulimit -n (now " in str(raised)
    assert "check that the server runs" not in str(raised)
    assert sink.ledger() == {}


def test_a_server_without_ssl_is_named_where_the_dsn_wants_it() -> None:
    with refusing("28000", "unused") as server, pytest.raises(SinkError, match="correct the DSN's sslmode"):
        sink_on(server.port, sslmode="require").ledger()


def test_a_server_without_channel_binding_is_not_asked_again(postgres_server: Server) -> None:
    dsn = make_conninfo(postgres_server.dsn, channel_binding="require")
    with pytest.raises(SinkError, match="correct the DSN's channel_binding") as raised:
        PostgresSink(dsn).ledger()
    assert not isinstance(raised.value, SinkUnavailable)
