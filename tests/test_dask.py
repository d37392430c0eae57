"""A query on the workers of a Dask cluster: real processes, which are killed and lack things."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
import trustme

import marketfetch as mf
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.dask import ClusterJob, ClusterRun, backfill
from marketfetch.errors import ConfigurationError, SinkUnavailable
from marketfetch.events import Event, Heartbeat
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Board
from marketfetch.proxies.dask_board import DaskBoard
from marketfetch.reports import Report
from marketfetch.testing import GeneratedMarket, LocalProxies, SimulatedExchange, SimulatorOptions
from marketfetch.testing.contracts.board import BoardContract
from marketfetch.testing.http.messages import ServerReply, ServerRequest
from tests.support.commands import Command
from tests.support.dask_cluster import Cluster, cluster
from tests.support.worlds import assert_holds, span_of

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.slow

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"]
SPAN = ("2026-05-01", "2026-05-06")
ROWS = len(SYMBOLS) * 5 * 1440
SECRET = "hunter2-5e0c71"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers for the tests that kill nothing."""
    with cluster(tmp_path_factory.mktemp("dask"), 2) as started:
        yield started


@pytest.fixture
def client(running: Cluster) -> Iterator[Any]:
    with distributed.Client(running.address, set_as_default=False) as connected:
        yield connected


@pytest.fixture(scope="module")
def market() -> GeneratedMarket:
    return GeneratedMarket(SYMBOLS)


@pytest.fixture
def exchange(market: GeneratedMarket) -> Iterator[SimulatedExchange]:
    with SimulatedExchange(market, SimulatorOptions(limits=None, latency=0.1)) as started:
        yield started


@attrs.frozen
class BackfillSetup:
    """The arguments of a back-fill."""

    exchange: SimulatedExchange
    market: GeneratedMarket
    folder: Path

    @property
    def store(self) -> mf.SQLiteSink:
        return mf.SQLiteSink(self.folder / "market.sqlite")

    def job(self, **changes: Any) -> dict[str, Any]:
        usual: dict[str, Any] = {
            "exchange": BinanceUsdm(self.exchange.base_url),
            "query": mf.Query(symbols=SYMBOLS, start=SPAN[0], end=SPAN[1]),
            "sink_url": f"sqlite:{self.folder / 'market.sqlite'}",
            "settings": mf.Settings(concurrency=2, batch_rows=1500, heartbeat=0.2),
            "board": f"file:{self.folder / 'board'}",
        }
        return usual | changes

    def pages(self) -> int:
        return sum(seen.path.endswith("klines") for seen in self.exchange.request_log.latest)

    def until_pages(self, count: int) -> None:
        give_up = time.monotonic() + 60
        while self.pages() < count:
            assert time.monotonic() < give_up
            time.sleep(0.02)

    def assert_complete(self, report: Report) -> None:
        assert report.complete, report
        ledger = self.store.ledger()
        assert len(ledger) == len(SYMBOLS)
        for series in ledger:
            assert_holds(self.store, self.market, series, span_of(*SPAN))


@pytest.fixture
def setup(exchange: SimulatedExchange, market: GeneratedMarket, tmp_path: Path) -> BackfillSetup:
    return BackfillSetup(exchange, market, tmp_path)


def test_the_workers_share_the_rows_and_the_caller_reports(client: Any, setup: BackfillSetup) -> None:
    seen: list[Event] = []
    report = backfill(client, **setup.job(listeners=[seen.append]))
    setup.assert_complete(report)
    klines = [each for each in setup.exchange.request_log.latest if each.path.endswith("klines")]
    asked = sum(int(each.params["limit"]) for each in klines)
    assert ROWS <= asked < 1.6 * ROWS, "each row once, and a few twice; apart they would ask for 2 × ROWS"
    beats = [event for event in seen if isinstance(event, Heartbeat)]
    assert any(beat.rows_fetched for beat in beats), "those of the workers"

    before = setup.pages()
    again = backfill(client, **setup.job())
    assert again.complete
    assert setup.pages() == before, "a repeated task requests no rows"


def test_a_scheduler_that_ended_before_is_named(setup: BackfillSetup, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    with cluster(folder, 0) as started:
        client = distributed.Client(started.address, set_as_default=False)
        client._timeout = 0.5  # for which it tries to connect again
        filling = ClusterRun(client, ClusterJob(**setup.job()))
    with client, pytest.raises(ConfigurationError, match="client: its scheduler does not answer: "):
        anyio.run(filling.run)
    assert setup.exchange.request_log.total == 0


def fill_while(setup: BackfillSetup, workers: int, happens: Callable[[Cluster], object]) -> None:
    """Back-fill on a cluster of its own; something happens to the cluster amid the work."""
    with (
        cluster(setup.folder / "cluster", workers) as started,
        distributed.Client(started.address, set_as_default=False) as connected,
        ThreadPoolExecutor(1) as threads,
    ):
        filling = threads.submit(backfill, connected, **setup.job())
        setup.until_pages(4)
        happens(started)
        setup.assert_complete(filling.result(timeout=250))


@pytest.mark.parametrize("killed", [1, 2])
def test_killed_workers_are_not_replaced(setup: BackfillSetup, killed: int) -> None:
    def kill(started: Cluster) -> None:
        for process in started.workers[:killed]:
            process.kill()

    fill_while(setup, 2, kill)


def test_a_scheduler_that_ends_leaves_the_work_to_the_caller(
    setup: BackfillSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketfetch.dask._PATIENCE", 1.0)
    fill_while(setup, 1, lambda started: started.scheduler.kill())


def test_a_caller_that_stops_stops_the_workers(client: Any, setup: BackfillSetup) -> None:
    """Whatever the exchange does: from the fourth page on it does not answer."""
    filling = ClusterRun(client, ClusterJob(**setup.job()))

    def hang(request: ServerRequest, reply: ServerReply) -> ServerReply:
        if setup.pages() >= 3:
            setup.exchange.latency = 600.0
        return reply

    setup.exchange.edit = hang

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(filling.run)
            while setup.pages() < 4:  # noqa: ASYNC110  # the requests come from other processes
                await anyio.sleep(0.02)
            group.cancel_scope.cancel()

    anyio.run(main)
    give_up = time.monotonic() + 120
    while any(client.run(lambda dask_worker: len(dask_worker.state.tasks)).values()):
        assert time.monotonic() < give_up, "the tasks go on"
        time.sleep(0.1)
    # A task is forgotten when its thread has ended: nobody is left who could request more.
    assert 4 <= setup.pages() < ROWS // 1500


def broken_elsewhere(error: Exception) -> CurlFetcher:
    """Return a transport that raises in every process but this one."""
    here = os.getpid()

    class BrokenElsewhere(CurlFetcher):
        def session(self) -> Any:
            if os.getpid() != here:
                raise error
            return CurlFetcher.session(self)

    return BrokenElsewhere()


@pytest.mark.parametrize(("workers", "place"), [(1, r"worker tcp://127.0.0.1:\d+"), (0, "scheduler")])
def test_a_process_of_the_cluster_without_marketfetch_is_named(
    setup: BackfillSetup, tmp_path: Path, workers: int, place: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as metadata, sys\n"
        "found = metadata.version\n"
        "def version(name):\n"
        "    if name == 'marketfetch':\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return found(name)\n"
        "metadata.version, sys.modules['marketfetch'] = version, None\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with (
        cluster(tmp_path / "cluster", workers, {"PYTHONPATH": path}) as started,
        distributed.Client(started.address, set_as_default=False) as connected,
        pytest.raises(ConfigurationError, match=place + r": lacks marketfetch; pip install '.*' there"),
    ):
        backfill(connected, **setup.job())
    assert setup.exchange.request_log.total == 0


def test_a_cluster_with_tls_fills_the_store_and_keeps_the_board(setup: BackfillSetup, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    files = {"CA_FILE": authority.cert_pem.bytes(), "CERT": chain, "KEY": issued.private_key_pem.bytes()}
    for name, text in files.items():
        (tmp_path / name).write_bytes(text)
    settings = {"default-scheme": "tls", "require-encryption": True, "tls.ca-file": str(tmp_path / "CA_FILE")}
    for who in ("client", "scheduler", "worker"):
        settings |= {f"tls.{who}.{name.lower()}": str(tmp_path / name) for name in ("CERT", "KEY")}
    environment = {
        f"DASK_DISTRIBUTED__COMM__{name.replace('.', '__').replace('-', '_').upper()}": str(value)
        for name, value in settings.items()
    }
    with (
        dask.config.set({f"distributed.comm.{name}": value for name, value in settings.items()}),
        cluster(tmp_path / "cluster", 1, environment) as started,
        distributed.Client(started.address, set_as_default=False) as connected,
    ):
        assert started.address.startswith("tls://")
        setup.assert_complete(backfill(connected, **setup.job(board=f"dask:{started.address}")))
    assert setup.pages() >= ROWS // 1500, "the worker fetched, then the caller looked"


@pytest.mark.parametrize("option", ["--dask", "--board"])
def test_tls_without_certificates_is_refused_in_one_line(
    marketfetch: Command, tmp_path: Path, option: str
) -> None:
    address = {"--dask": "tls://127.0.0.1:1", "--board": "dask:tls://127.0.0.1:1"}[option]
    store = f"sqlite:{tmp_path}/market.sqlite"
    job = (
        "-e",
        "binance-usdm",
        "-s",
        "BTCUSDT",
        "--start",
        "1d",
        "-t",
        store,
        "--base-url",
        "http://[::1]:1",
    )
    result = marketfetch("backfill", *job, option, address)
    assert result.returncode == 2
    assert result.stderr.startswith(f"marketfetch: {option}: 'tls://127.0.0.1:1' needs certificates")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("lacks", "message"),
    [
        (
            "version",
            r"worker tcp://127.0.0.1:\d+: it has marketfetch .*, the caller 0.0.0-other; install the same",
        ),
        ("file", r"worker tcp://127.0.0.1:\d+: proxies: .*cannot be read"),
        ("function", r"worker tcp://127.0.0.1:\d+: FileNotFoundError: .*proxies.txt"),
        ("module", r"worker tcp://127.0.0.1:\d+: ModuleNotFoundError: No module named 'only_here'"),
        ("package", r"worker tcp://127.0.0.1:\d+: ImportError: libduck.so: cannot open shared object file"),
    ],
)
def test_a_worker_that_cannot_take_part_is_named(  # noqa: PLR0917
    client: Any,
    setup: BackfillSetup,
    lacks: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    changes: dict[str, Any] = {}
    match lacks:
        case "version":
            monkeypatch.setattr(mf, "__version__", "0.0.0-other", raising=False)
        case "file":
            monkeypatch.chdir(tmp_path)
            (tmp_path / "proxies.txt").write_text("")
            changes["proxies"] = "proxies.txt"
        case "function":
            here = Path.cwd()

            def proxies() -> list[str]:
                return [] if Path.cwd() == here else Path("/etc/market/proxies.txt").read_text().split()

            changes["proxies"] = proxies
        case "package":
            changes["fetcher"] = broken_elsewhere(ImportError("libduck.so: cannot open shared object file"))
        case _:
            (tmp_path / "only_here.py").write_text("def proxies():\n    return []\n")
            monkeypatch.syspath_prepend(str(tmp_path))
            import only_here  # type: ignore[import-not-found]

            changes["proxies"] = only_here.proxies
    with pytest.raises(ConfigurationError, match=message):
        backfill(client, **setup.job(**changes))
    assert setup.pages() == 0


def test_an_error_of_the_run_on_a_worker_is_logged_and_the_others_go_on(
    client: Any, setup: BackfillSetup, caplog: pytest.LogCaptureFixture
) -> None:
    broken = broken_elsewhere(LookupError("no library"))
    setup.assert_complete(backfill(client, **setup.job(fetcher=broken)))
    assert re.search(r"worker tcp.*: LookupError: no library; the others go on", caplog.text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sink_url": f"postgresql://ann:{SECRET}@db/market"}, "sink_url: has a password"),
        ({"sink_url": f"postgresql://ann:p/{SECRET}@db/market"}, "sink_url: has a password"),
        ({"sink_url": f"postgresql://db/market?password={SECRET}"}, "sink_url: has a password"),
        ({"sink_url": f"postgresql:///market?user=ann&sslpassword={SECRET}"}, "sink_url: has a password"),
        ({"sink_url": f"postgresql://db/market?password={SECRET}@x"}, "sink_url: has a password"),
        ({"sink_url": f"postgresql://db/market?pass%77ord={SECRET}"}, "sink_url: has a password"),
        ({"sink_url": f"postgresql://ann%3A{SECRET}@db/market"}, "sink_url: has a password"),
        ({"sink_url": f"postgresql:host=db password = '{SECRET}'"}, "sink_url: has a password"),
        ({"sink_url": f"postgresql:host=db password={SECRET}@x"}, "sink_url: has a password"),
        ({"board": f"postgresql://ann:{SECRET}@db/market"}, "board: has a password"),
        ({"base_url": f"https://ann:{SECRET}@exchange.example"}, "base_url: has a password"),
        ({"proxies": f"http://ann:{SECRET}@10.0.0.1:3128"}, "proxies: addresses do not travel"),
        ({"proxies": [f"10.0.0.1:3128:ann:{SECRET}"]}, "proxies: addresses do not travel"),
        (
            {"proxies": mf.RotatingProxies([f"http://ann:{SECRET}@10.0.0.1:3128"])},
            "proxies: addresses do not",
        ),
        ({"sink_url": "memory:"}, "sink_url: the memory of a worker ends with it"),
        (
            {"sink_url": "sqlite:market.sqlite"},
            "sink_url: 'sqlite:market.sqlite' is another place in each working folder",
        ),
        ({"board": "file:board"}, "board: 'file:board' is another place in each working folder"),
        ({"sink_url": mf.MemorySink()}, "sink_url: objects do not travel .*, not MemorySink"),
        ({"board": DaskBoard("tcp://10.0.0.5:8786")}, "board: objects do not travel .*, not DaskBoard"),
        ({"proxies": ""}, "proxies: addresses do not travel"),
        ({"proxies": lambda: None}, "proxies: the function returned None"),
        ({"proxies": lambda: 5}, "proxies: int is not a pool"),
        (
            {"proxies": partial(list, [f"http://ann:{SECRET}@10.0.0.1:3128"])},
            "this job has a URL with a password in it",
        ),
        (
            {"proxies": partial(mf.RotatingProxies, [f"http://ann:{SECRET}@10.0.0.1:3128"])},
            "this job has a URL with a password in it",
        ),
        ({"sink_url": "nosuch:x"}, "sink: 'nosuch' is unknown; choose one of"),
        (
            {"settings": mf.Settings(clock=lambda: 1_900_000_000_000)},
            "clock: .* cannot be sent to another process",
        ),
    ],
)
def test_what_cannot_travel_is_refused(
    client: Any, setup: BackfillSetup, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as refusal:
        backfill(client, **setup.job(**changes))
    assert SECRET not in str(refusal.value)
    assert setup.exchange.request_log.total == 0


@pytest.mark.parametrize(
    "places",
    [
        {"sink_url": "postgresql://ann@db/market?passfile=/etc/pgpass"},
        {"sink_url": "postgresql://ann%40corp@db/market"},
        {"sink_url": "postgresql:host=db user=ann passfile=/etc/pgpass"},
        {"sink_url": "sqlite:/home/ann@corp/market.sqlite", "board": "file:/home/ann@corp/board"},
        {"proxies": "C:\\market\\proxies.txt"},
        {"base_url": "http://127.0.0.1:8080", "archive_url": "http://127.0.0.1:8081"},
        {"proxies": Path("/home/ann@corp/proxies.txt")},
    ],
)
def test_places_travel(places: dict[str, Any]) -> None:
    query = mf.Query(symbols=SYMBOLS, start=SPAN[0])
    job = ClusterJob("binance-usdm", query, **{"sink_url": "sqlite:/srv/market.sqlite"} | places)
    assert job.sink_url


def test_a_client_is_needed_that_blocks_and_has_workers(
    client: Any, setup: BackfillSetup, tmp_path: Path
) -> None:
    for wrong in ("tcp://127.0.0.1:1", None):
        with pytest.raises(ConfigurationError, match="client: give one that blocks"):
            backfill(wrong, **setup.job())  # type: ignore[arg-type]
    client.close()
    with pytest.raises(ConfigurationError, match="client: it is closed; give one that is connected"):
        backfill(client, **setup.job())
    folder = tmp_path / "cluster"
    with (
        cluster(folder, 0) as started,
        distributed.Client(started.address, set_as_default=False) as connected,
        pytest.raises(ConfigurationError, match="client: the cluster has no workers"),
    ):
        backfill(connected, **setup.job())


def test_the_command_line(marketfetch: Command, running: Cluster, setup: BackfillSetup) -> None:
    words = ["backfill", "-e", "binance-usdm", "--base-url", setup.exchange.base_url, "-s", *SYMBOLS]
    words += ["--start", SPAN[0], "--end", SPAN[1], "-t", f"sqlite:{setup.folder / 'market.sqlite'}"]
    words += ["--board", f"file:{setup.folder / 'board'}", "--progress", "log", "--heartbeat", "0.2"]
    done = marketfetch(*words, "--dask", running.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Complete: 0 rows written"), "the workers have written them"
    assert "rows" in done.stderr, "the heartbeats of the workers"
    refused = marketfetch(*words, "--dask", running.address, "--proxy", f"http://ann:{SECRET}@10.0.0.1:3128")
    assert refused.returncode == 2
    assert "--proxy: addresses do not travel to workers" in refused.stderr
    assert SECRET not in refused.stderr
    for wrong in ("", "nonsense", "http://10.0.0.1"):
        nobody = marketfetch(*words, "--dask", wrong)
        assert nobody.returncode == 2
        assert f"--dask: no scheduler answers at {wrong!r}" in nobody.stderr
        assert "Traceback" not in nobody.stderr


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="reads the memory of a process through /proc")
def test_secrets_stay_on_the_workers(setup: BackfillSetup, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    with LocalProxies(1, ("ann", SECRET)) as proxies, cluster(folder, 1) as started:
        (tmp_path / "proxies.txt").write_text("\n".join(proxies.urls))
        with distributed.Client(started.address, set_as_default=False) as connected:
            report = backfill(connected, **setup.job(proxies=tmp_path / "proxies.txt"))
        setup.assert_complete(report)
        assert SECRET not in started.logs()
        assert SECRET.encode() not in memory_of(started.scheduler.pid)
        assert SECRET.encode() in memory_of(started.workers[0].pid), "or nothing is shown"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="reads the memory of a process through /proc")
def test_what_a_function_raises_on_a_worker_shows_no_secret(setup: BackfillSetup, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    file, here = tmp_path / "proxies.txt", Path.cwd()
    file.write_text(f"http://ann:{SECRET}@10.0.0.1:3128")

    def proxies() -> list[str]:
        if Path.cwd() != here:
            raise LookupError(f"bad proxy {file.read_text()}")
        return []

    with cluster(folder, 1) as started:
        with (
            distributed.Client(started.address, set_as_default=False) as connected,
            pytest.raises(ConfigurationError, match=r"worker tcp.*: LookupError: bad proxy http://\*\*\*@"),
        ):
            backfill(connected, **setup.job(proxies=proxies))
        assert SECRET not in started.logs()
        assert SECRET.encode() not in memory_of(started.scheduler.pid)


def memory_of(process: int) -> bytes:
    """Return all that a process of ours may write to; it stands still meanwhile, so that nothing moves."""
    pieces = []
    os.kill(process, signal.SIGSTOP)
    try:
        while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        with Path(f"/proc/{process}/mem").open("rb", 0) as memory:
            for line in Path(f"/proc/{process}/maps").read_text().splitlines():
                found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
                if found and "[v" not in line:
                    start, end = (int(each, 16) for each in found.groups())
                    memory.seek(start)
                    pieces.append(memory.read(end - start))
    finally:
        os.kill(process, signal.SIGCONT)
    return b"".join(pieces)


@attrs.frozen
class _InOnePlace(DaskBoard):
    """A board of a test: the scheduler has the texts of all tests."""

    place: str = ""

    def change(self, name: str, step: Callable[[str | None, float], tuple[str, Any]]) -> Any:
        return super().change(f"{self.place} {name}", step)


class TestDaskBoard(BoardContract):
    @pytest.fixture(autouse=True)
    def running(self, running: Cluster) -> None:
        self.address = running.address

    def make_board(self, place: Path) -> Board:
        return _InOnePlace(self.address, place=str(place))


def test_a_board_whose_scheduler_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("dask:here", f"dask:tcp://ann:{SECRET}@10.0.0.5:8786"):
        with pytest.raises(ConfigurationError, match="board: name a scheduler, without a user") as refusal:
            DaskBoard.from_url(wrong)
        assert SECRET not in str(refusal.value)
    with pytest.raises(ConfigurationError, match=r"board: 'http://10\.0\.0\.5' is no address of a scheduler"):
        DaskBoard.from_url("dask:http://10.0.0.5").change("x", lambda text, now: ("", None))
    monkeypatch.setattr("marketfetch.proxies.dask_board._TIMEOUT", 0.5)
    board = DaskBoard.from_url("dask:tcp://127.0.0.1:1")
    with pytest.raises(SinkUnavailable, match=r"board: the scheduler at tcp://127.0.0.1:1 does not answer"):
        board.change("x", lambda text, now: ("", None))


@attrs.define
class Relay:
    """A port of ours that leads to the scheduler at `target`: the port of one may be gone before the next."""

    listening: socket.socket
    target: str = ""
    open: list[socket.socket] = attrs.field(factory=list)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.listening.getsockname()[1]}"

    def serve(self) -> None:
        """Relay each connection until the port is closed."""
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            self.open.append(client)
            try:
                server = socket.create_connection(("127.0.0.1", int(self.target.rpartition(":")[2])))
            except OSError:
                client.close()
                continue
            self.open.append(server)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay() -> Iterator[Relay]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = Relay(listening)
        thread = threading.Thread(target=found.serve)
        thread.start()
        try:
            yield found
        finally:
            listening.shutdown(socket.SHUT_RDWR)  # ends the call of accept
            thread.join()
            for each in found.open:
                each.close()


def test_a_board_outlives_its_scheduler(
    tmp_path: Path, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler that hangs is not waited for, and another one at the same address is used."""
    board = DaskBoard(relay.address)
    with cluster(tmp_path, 0) as first:
        relay.target = first.address
        assert board.change("x", lambda text, now: ("1", text)) is None
        monkeypatch.setattr("marketfetch.proxies.dask_board._TIMEOUT", 1.0)
        first.scheduler.send_signal(signal.SIGSTOP)
        with pytest.raises(SinkUnavailable, match="does not answer: no answer in 1 s"):
            board.change("x", lambda text, now: ("2", text))
    with pytest.raises(SinkUnavailable, match="does not answer"):
        board.change("x", lambda text, now: ("3", text))
    monkeypatch.setattr("marketfetch.proxies.dask_board._TIMEOUT", 60.0)
    (tmp_path / "scheduler.json").unlink(missing_ok=True)
    with cluster(tmp_path, 0) as second:
        relay.target = second.address
        assert board.change("x", lambda text, now: ("4", text)) is None
        assert board.change("x", lambda text, now: ("5", text)) == "4"
