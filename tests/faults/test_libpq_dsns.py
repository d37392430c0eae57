"""A DSN is taken as libpq takes it; a password that ends up elsewhere is recognised, and never shown."""

from __future__ import annotations

import selectors
import socket
import threading
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool, NullConnectionPool

from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.redaction import Secret
from marketfetch.sinks.postgres import PostgresBoard, PostgresSink
from marketfetch.sinks.postgres.dsn import each_host, parse_dsn
from marketfetch.sinks.urls import sink_from
from marketfetch.values.datasets import Dataset
from tests.support.batches import EVER, batch, candles
from tests.support.postgres import Server
from tests.support.refusing_postgres import refusing

OHLCV = Dataset.parse("ohlcv")
SECRET = "zz2"


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u@h1,h2/db", "postgresql://h1,h2/db"),
        ("postgresql://u@h1:5432,h2:5433/db", "postgresql://h1:5432,h2:5433/db"),
        ("postgresql://u@h1:5432,h2/db", "postgresql://h1:5432,h2/db"),
        ("postgresql://u@h1,h2:5433,h3/db", "postgresql://h1,h2:5433,h3/db"),
        ("host=h1,h2 port=5432 dbname=db", "postgresql://h1:5432,h2:5432/db"),
        ("host=h1,h2 port=5432,5433 dbname=db", "postgresql://h1:5432,h2:5433/db"),
        ("host=@abstract dbname=db", "postgresql://%40abstract/db"),
        ("postgresql://u@%40abstract/db", "postgresql://%40abstract/db"),
        ("postgresql:///db?host=@abstract", "postgresql://%40abstract/db"),
        ("host=@abstract,h2 dbname=db", "postgresql://%40abstract,h2/db"),
        ("postgresql://%2Fvar%2Frun/db", "postgresql://%2Fvar%2Frun/db"),
        ("postgresql:///db?host=/tmp&port=5433", "postgresql://%2Ftmp:5433/db"),
        ("host=/run/pg@14 dbname=db", "postgresql://%2Frun%2Fpg%4014/db"),
        ("postgresql:///db?host=/run/pg@14", "postgresql://%2Frun%2Fpg%4014/db"),
        ("postgresql://u:p@[::1]:5432/db", "postgresql://[::1]:5432/db"),
        ("postgresql://u@[fe80::1],h2:1/db", "postgresql://[fe80::1],h2:1/db"),
        ("hostaddr=127.0.0.1 dbname=db", "postgresql://127.0.0.1/db"),
        ("postgresql:///db", "postgresql:///db"),
        ("postgresql://", "postgresql:///"),
        ("dbname=db", "postgresql:///db"),
        ("dbname='my db' user='a b'", "postgresql:///my db"),
        ("", "postgresql:///"),
        ("service=market", "postgresql:///?service=market"),
        ("postgresql://?service=market", "postgresql:///?service=market"),
        ("postgresql://h/db?passfile=/home/me/.pgpass", "postgresql://h/db"),
        ("postgresql://u@h1,h2/db?target_session_attrs=read-write", "postgresql://h1,h2/db"),
        (f"host=h dbname=db password='it''s'{''}".replace("''", "\\'"), "postgresql://h/db"),
        (f"postgresql://u@h/db?password={SECRET}@a/b", "postgresql://h/db"),
        (f"host=h dbname=db password={SECRET}@h2/x", "postgresql://h/db"),
        (f"postgresql://u:{SECRET}%40h%2Fx@h1,h2/db", "postgresql://h1,h2/db"),
        ("postgres://u@h1,h2/db", "postgresql://h1,h2/db"),
    ],
)
def test_what_libpq_takes_is_taken_and_shown_without_secrets(dsn: str, shown: str) -> None:
    assert repr(PostgresSink(dsn)) == f"PostgresSink({shown!r})"


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://ann:hun@{SECRET}@h1,h2/market",
        f"postgresql://ann:hun/{SECRET}@h1,h2/market",
        f"postgresql://ann:12/{SECRET}@h1,h2:5432/market",
        f"postgresql://ann:12,13/{SECRET}@h1/market",
        f"postgresql://ann:hun@@{SECRET}/market",
        f"postgresql://ann:hun@/{SECRET}@h1/market",
        f"postgresql://ann:12?host=/{SECRET}@h1/market",
        f"host={SECRET}@h1 dbname=market",
        f"host=h1,@a@{SECRET} dbname=market",
        f"host=h1 port={SECRET} dbname=market",
        f"host=h1 dbname=postgresql://ann:{SECRET}@h1/market",
        f"postgresql://h1:{SECRET},h2:5432/market",
    ],
)
def test_a_password_that_moved_elsewhere_is_recognised_and_not_shown(dsn: str) -> None:
    for make in (PostgresSink, PostgresSink.from_url):
        with pytest.raises(ConfigurationError, match="percent-encoded") as caught:
            make(dsn)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://ann:{SECRET}\udcff@h1/market",  # a byte of a file or argument that is no UTF-8
        f"host=h1 password={SECRET}\udcff",
        f"postgresql://ann:hun@{SECRET}@h1/market",
        f"host=h1 password='{SECRET}",
        f"postgresql://ann:{SECRET}@h1/market".encode(),
        [f"postgresql://ann:{SECRET}@h1/market"],
    ],
    ids=["no text in a URL", "no text in key=value", "moved", "unclosed", "bytes", "list"],
)
@pytest.mark.parametrize("kind", [PostgresSink, PostgresBoard])
def test_no_frame_of_a_malformed_dsn_holds_it(kind: Any, dsn: object) -> None:
    """Debuggers and error trackers show the local variables of each frame that an error passes."""
    with pytest.raises(ConfigurationError, match=r"^dsn: ") as caught:
        kind(dsn)
    assert caught.value.__cause__ is caught.value.__context__ is None
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    ours = [frame for frame in frames if frame.f_code.co_filename != __file__]
    assert ours
    assert SECRET not in "".join(
        repr(value) for frame in ours for name, value in frame.f_locals.items() if name != "self"
    )


def assert_final_without_secrets(sink: PostgresSink, place: str) -> None:
    with pytest.raises(
        SinkError, match=rf"^postgresql://{place}: cannot prepare .*correct the DSN's host: "
    ) as e:
        sink.prepare([OHLCV])
    assert type(e.value) is SinkError
    error: BaseException | None = e.value
    while error is not None:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        ours = [frame for frame in frames if frame.f_code.co_filename != __file__]
        assert SECRET not in str(error) + repr([frame.f_locals for frame in ours])
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("hosts", ["a..b", "x" * 64, f"db.{'x' * 64}.example", "a..b,c..d"], ids=len)
def test_a_host_that_cannot_exist_is_named_without_secrets(hosts: str) -> None:
    assert_final_without_secrets(PostgresSink(f"postgresql://ann:{SECRET}@{hosts}/db"), f"{hosts}/db")


def test_a_host_of_the_environment_that_cannot_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "a..b")
    assert_final_without_secrets(PostgresSink(f"postgresql://ann:{SECRET}@/db"), "/db")


@pytest.mark.parametrize("kind", [ConnectionPool, NullConnectionPool])
@pytest.mark.parametrize("hosts", ["a..b", "a..b,127.0.0.1"])
def test_a_host_of_a_pool_that_cannot_exist_is_named(kind: type[ConnectionPool[Any]], hosts: str) -> None:
    dsn = f"host={hosts} dbname=db password={SECRET}"
    with kind(dsn, min_size=0, max_size=1, timeout=0.2, open=False) as pool:
        assert_final_without_secrets(PostgresSink(pool=pool), f"{hosts}/db")


def test_beside_a_host_that_cannot_exist_the_others_decide() -> None:
    sink = PostgresSink("host=a..b,127.0.0.1 port=5432,1 connect_timeout=2")
    with pytest.raises(SinkUnavailable, match="check that the server runs"):
        sink.ledger()
    with refusing("3D000", "nowhere is no database") as server:
        sink = PostgresSink(f"host=127.0.0.1,a..b port={server.port},5432 user=ann connect_timeout=2")
        with pytest.raises(SinkError, match="make the database") as caught:
            sink.ledger()
    assert type(caught.value) is SinkError


@pytest.mark.parametrize(
    "dsn",
    [
        "host=h dbname=db user=ann",
        "postgresql://bob:hunter2@h:5432/db?application_name=x",
        "postgres://ann@H/db",
        "host=h dbname=db port=5432 connect_timeout=3",
        "user=db host=h",
    ],
)
def test_boards_in_one_place_are_one_however_it_is_written(dsn: str) -> None:
    """Two boards that differ starve each other: each takes the claims of the other for a stranger's."""
    board = PostgresBoard("postgresql://ann@h/db")
    assert PostgresBoard(dsn) == board
    assert len({PostgresBoard(dsn), board}) == 1


@pytest.mark.parametrize(
    "dsn", ["postgresql://ann@h2/db", "postgresql://ann@h:5433/db", "postgresql://ann@h/db2", "service=db"]
)
def test_boards_in_different_places_differ(dsn: str) -> None:
    board = PostgresBoard("postgresql://ann@h/db")
    assert PostgresBoard(dsn) != board
    assert PostgresBoard("postgresql://ann@h/db", schema="other") != board


def test_several_hosts_are_one_place_in_any_order() -> None:
    assert PostgresBoard("host=a,b port=1,2 dbname=m") == PostgresBoard("postgresql://b:2,a:1/m")
    assert PostgresBoard("host=a,b port=1,2 dbname=m") != PostgresBoard("postgresql://b:1,a:2/m")


_NAMES = st.text("abcxyz019-.", min_size=1, max_size=6)


@given(
    st.lists(st.tuples(_NAMES, st.none() | st.integers(1, 65_535)), min_size=1, max_size=4),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8),
)
def test_a_password_as_it_is_never_becomes_a_host(hosts: list[tuple[str, int | None]], password: str) -> None:
    """Hosts are those that were written, or the DSN is refused: whatever of a password is in it."""
    assume("%" not in password)
    written = ",".join(name if port is None else f"{name}:{port}" for name, port in hosts)
    dsn = Secret(f"postgresql://ann:{password}@{written}/market")
    try:
        parts = parse_dsn(dsn)
    except ConfigurationError:
        return
    assert [place["host"] for place in each_host(parts)] == [name for name, _ in hosts]
    assert [place.get("port") for place in each_host(parts)] == [
        None if port is None else str(port) for _, port in hosts
    ]


@pytest.mark.parametrize("first", ["/nowhere/at/all", "a..b"])
def test_the_first_host_that_can_be_had_is_taken(first: str, postgres_dsn: str) -> None:
    parts = conninfo_to_dict(postgres_dsn)
    dsn = (
        f"host={first},{parts['host']} port=5432,{parts['port']} "
        f"user={parts['user']} dbname={parts['dbname']} target_session_attrs=read-write"
    )
    sink = PostgresSink(dsn)
    sink.prepare([OHLCV])
    with sink.writer() as write:
        write(batch(candles(), [0], open=1))
    assert len(sink.read(candles(), EVER)) == 1


def test_a_service_and_a_password_file_are_those_of_libpq(
    postgres_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = conninfo_to_dict(postgres_dsn)
    service = tmp_path / "services"
    service.write_text(
        "[market]\n" + "".join(f"{name}={value}\n" for name, value in parts.items()), encoding="utf-8"
    )
    passwords = tmp_path / "passwords"
    passwords.write_text(f"*:*:*:*:{SECRET}\n", encoding="utf-8")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    assert sink_from(f"postgresql://?service=market&passfile={passwords}").ledger() == {}  # type: ignore[attr-defined]
    assert PostgresSink(f"service=market passfile={passwords}").ledger() == {}


def test_what_is_shown_of_several_hosts_is_in_the_errors_too() -> None:
    sink = PostgresSink(f"postgresql://ann:{SECRET}@127.0.0.1:1,127.0.0.1:2/market?connect_timeout=2")
    with pytest.raises(SinkUnavailable) as caught:
        sink.ledger()
    assert str(caught.value).startswith("postgresql://127.0.0.1:1,127.0.0.1:2/market: cannot ")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_an_abstract_socket_is_connected_to(postgres_server: Server, postgres_dsn: str) -> None:
    parts = conninfo_to_dict(postgres_dsn)
    name, port = f"mf-{uuid.uuid4().hex}", int(str(parts["port"]))
    with socket.socket(socket.AF_UNIX) as listening:
        try:
            listening.bind(f"\0{name}/.s.PGSQL.{port}")
        except OSError as error:
            pytest.skip(f"this system has no abstract sockets: {error}")
        listening.listen()
        with relaying(listening, f"{parts['host']}/.s.PGSQL.{port}"):
            for hosts in (f"@{name}", f"/nowhere,@{name}"):
                sink = PostgresSink(f"host={hosts} port={port} user={parts['user']} dbname={parts['dbname']}")
                sink.prepare([OHLCV])
                with sink.writer() as write:
                    write(batch(candles(), [0], open=1))
                assert len(sink.read(candles(), EVER)) == 1
    with pytest.raises(SinkUnavailable, match="check that the server runs"):
        sink.ledger()


@contextmanager
def relaying(listening: socket.socket, target: str) -> Iterator[None]:
    """Pass connections on to a socket of the file system, one after another."""

    def relay(client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as selector:
            server.connect(target)
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    source, sink = cast("socket.socket", key.fileobj), key.data
                    piece = source.recv(65_536)
                    if not piece:
                        return
                    sink.sendall(piece)

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return  # closed: the test is over
            relay(client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)  # wakes up accept()
        thread.join(10)
