"""Everything is imported, and every store filled, where the modules and functions of POSIX are absent.

What other packages import is theirs: they are imported before, and have releases for Windows.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

ABSENT = """
import asyncio, functools, importlib, os, pkgutil, signal, socket, sys, time, warnings, zoneinfo

for theirs in (
    "anyio._backends._asyncio anyio.to_thread attrs curl_cffi duckdb filelock hypothesis httptools "
    "isal.igzip_threaded matplotlib.pyplot numpy opentelemetry.metrics msgspec pandas platformdirs.unix "
    "polars prometheus_client psycopg_pool pyarrow.dataset pyarrow.parquet pytest rich.live sqlite3 "
    "subprocess tempfile trustme"
).split():
    importlib.import_module(theirs)

socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)  # Windows has another one
for module in "fcntl grp posix pty pwd readline resource spwd syslog termios tty".split():
    sys.modules[module] = None
for module, names in {
    os: "O_DIRECTORY O_NOFOLLOW WNOHANG chown fork getegid geteuid getgid getpgid getppid getuid killpg "
    "register_at_fork setsid setuid statvfs uname waitpid",
    signal: "SIGALRM SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 SIGXFSZ alarm pthread_kill setitimer",
    socket: "AF_UNIX",
    time: "CLOCK_BOOTTIME CLOCK_MONOTONIC clock_gettime clock_gettime_ns tzset",
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
sys.platform = "win32"
zoneinfo.reset_tzpath(())  # no system has fewer zones
sys.modules["tzdata"] = None
"""

EVERYTHING = """
import marketfetch

# The last one is a library in C.
skipped = {"marketfetch.__main__", "marketfetch.testing.__main__", "marketfetch.decoding._rows"}
found = [one.name for one in pkgutil.walk_packages(marketfetch.__path__, "marketfetch.")]
for name in found:
    if name not in skipped:
        importlib.import_module(name)
print(len(found))
"""

FILLED = """
import marketfetch as mf
from marketfetch.cli.main import main
from marketfetch.testing import GeneratedMarket, SimulatedExchange

warnings.filterwarnings("error", category=EncodingWarning, module="marketfetch")
warnings.filterwarnings("error", category=EncodingWarning, module="pathlib")
DAY = {"start": "2026-06-01", "end": "2026-06-02", "interval": "1m", "board": "file:turns"}
with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange:
    for store in ("sqlite:market.sqlite", "duckdb:market.duckdb", "parquet:market", mf.MemorySink()):
        asked = []
        for _ in range(2):
            before = exchange.request_log.total
            table = mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", to=store, base_url=exchange.base_url, **DAY)
            assert len(table) == len(table.to_pandas()) == len(table.to_polars()) == 1440, store
            asked.append(exchange.request_log.total - before)
        assert asked[0] > asked[1] == 0, asked
    words = ["-e", "binance-usdm", "-s", "BTCUSDT", "--base-url", exchange.base_url, "--start", "2026-06-03"]
    words += ["--end", "2026-06-04", "--to", "sqlite:market.sqlite"]
    assert main(["plan", *words]) == main(["backfill", *words]) == 0
assert main(["coverage", "--to", "parquet:market"]) == 0
assert main(["verify", "--to", "duckdb:market.duckdb"]) == 0
print("filled")
"""

SHARED = """
import anyio
import marketfetch as mf
from marketfetch.proxies.file_board import FileBoard
from marketfetch.proxies.registry import Registry
from marketfetch.testing import GeneratedMarket, SimulatedExchange

async def fetched(url, *symbols):
    rows = []
    async def one(symbol):
        query = mf.Query(symbols=symbol, interval="1m", start="2026-06-01", end="2026-06-02")
        pool = mf.RotatingProxies([], registry=Registry())
        both = {"proxies": pool, "board": "file:board", "base_url": url}
        rows.append((await mf.Pipeline("binance-usdm", query, mf.MemorySink(), **both)).rows_written)
    async with anyio.create_task_group() as group:
        for symbol in symbols:
            group.start_soon(one, symbol)
    return rows

with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"])) as exchange:
    print(*anyio.run(fetched, exchange.base_url, "BTCUSDT", "ETHUSDT"))
    print(max(exchange.request_log.statuses))
"""

SOFT = """
import sys, warnings
sys.modules["fcntl"] = None
warnings.filterwarnings("ignore", "only soft file lock is available")
from pathlib import Path

import marketfetch as mf
from marketfetch.proxies.file_board import FileBoard
from marketfetch.testing import GeneratedMarket, SimulatedExchange

try:
    FileBoard("board").change("x", lambda text, now: ("", None))
except mf.errors.SinkError as error:
    print(error)
with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange:
    table = mf.fetch(
        "binance-usdm", "ohlcv", "BTCUSDT", start="2026-06-01", end="2026-06-02", base_url=exchange.base_url
    )
print(len(table))
"""

PROACTOR = """
import asyncio, importlib, sys, warnings
import curl_cffi.aio

class Proactor(asyncio.SelectorEventLoop):
    '''A loop that does not watch sockets for others, like the default loop of Windows.'''

    def add_reader(self, *_):
        raise NotImplementedError

    add_writer = remove_reader = remove_writer = add_signal_handler = add_reader

asyncio.ProactorEventLoop = Proactor
asyncio.events.new_event_loop = asyncio.new_event_loop = Proactor
sys.platform = "win32"
importlib.reload(curl_cffi.aio)  # with what it does on Windows
sys.platform = "linux"
import marketfetch as mf
from marketfetch.testing import GeneratedMarket, SimulatedExchange

DAY = {"start": "2026-06-01", "end": "2026-06-02"}

async def run(url):
    query = mf.Query(symbols="BTCUSDT", interval="1m", **DAY)
    pipeline = mf.Pipeline("binance-usdm", query, mf.MemorySink(), board=None, base_url=url)
    return (await pipeline).rows_written

exchange = SimulatedExchange(GeneratedMarket(["BTCUSDT"]))
with exchange, warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("error")
    print(len(mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", base_url=exchange.base_url, **DAY)))
    assert not seen
    for mode in ("error", "always"):
        warnings.simplefilter(mode)
        with asyncio.Runner(loop_factory=Proactor) as runner:
            try:
                print(runner.run(run(exchange.base_url)))
            except mf.errors.ConfigurationError as error:
                print(error)
    print(*{one.category.__name__ for one in seen})
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        warnings.simplefilter("error")
        print(runner.run(run(exchange.base_url)))
"""


def printed_lines(code: str, folder: Path, *options: str) -> list[str]:
    """Run code in a process of its own and return the lines that it writes."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_everything_is_imported(tmp_path: Path) -> None:
    (count,) = printed_lines(ABSENT + EVERYTHING, tmp_path)
    assert int(count) > 200


@pytest.mark.slow
def test_every_store_is_filled_and_then_asks_for_nothing(tmp_path: Path) -> None:
    *_, last = printed_lines(ABSENT + FILLED, tmp_path, "-X", "warn_default_encoding")
    assert last == "filled"


@pytest.mark.slow
def test_two_pools_take_turns_on_a_board(tmp_path: Path) -> None:
    assert printed_lines(ABSENT + SHARED, tmp_path) == ["1440 1440", "200"]


@pytest.mark.slow
def test_without_file_locks_a_run_goes_on_alone(tmp_path: Path) -> None:
    """Soft locks outlive a process that is killed: a run would wait for it for ever."""
    first, rows = printed_lines(SOFT, tmp_path)
    assert first == "board: this Python has no file locks: write board=None, or another board"
    assert rows == "1440"


@pytest.mark.slow
def test_a_loop_that_watches_no_sockets_is_served(tmp_path: Path) -> None:
    """`fetch` has a loop of its own; on a loop of the caller curl-cffi starts a thread, and warns of it."""
    own, refused, helped, warned, other = printed_lines(PROACTOR, tmp_path)
    assert own == helped == other == "1440"
    assert warned == "CurlCffiWarning"
    assert refused.startswith(
        "the event loop: libcurl needs one that watches sockets, and Proactor does not;"
    )
