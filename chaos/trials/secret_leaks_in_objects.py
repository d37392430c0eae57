"""Search objects that hold credentials, and errors raised near them: repr, copies, pickles, log records."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pprint import pformat
from types import TracebackType
from typing import Any
from urllib.parse import quote

import attrs

from chaos.harness.trials import Result, Trial
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.errors import MarketfetchError
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.proxies.parsing import parse_proxy
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.urls import sink_from
from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.values.http import Egress
from marketfetch.values.query import Query
from marketfetch.values.settings import RetryPolicy, Settings

__all__ = ["objects_are_silent"]


def objects_are_silent(passwords: Sequence[str], piece: str) -> Result:
    """Create every object that holds a credential, let it fail, and search everything it shows."""
    trial = Trial("no object, error, note, cause, frame or log record shows a credential", "objects")
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"]), SimulatorOptions(limits=None)) as exchange:
        for password in passwords:
            for make in (_proxy, _pool, _sink, _proxied, _stored):
                with trial.attempt(f"{make.__name__} with {password!r}"), _records() as records:
                    _look(make(exchange.base_url, password), piece)
                    _search(records, piece, "log")
            for fail in (_bad_proxy, _bad_pool, _bad_dsn, _other_dsn, _dead_proxies, _dead_store):
                with trial.attempt(f"{fail.__name__} with {password!r}"), _records() as records:
                    _look_at_error(fail, exchange.base_url, password, piece)
                    _search(records, piece, "log")
    return trial.result()


def _proxy(url: str, password: str) -> object:
    return Egress("Proxy 1", parse_proxy(f"10.0.0.1:3128:anna:{quote(password, safe='')}", "entry 1"))


def _pool(url: str, password: str) -> object:
    return RotatingProxies([f"10.0.0.1:3128:anna:{quote(password, safe='')}", "10.0.0.2:1"])


def _sink(url: str, password: str) -> object:
    return sink_from(f"postgresql://anna:{quote(password, safe='')}@127.0.0.1:1/market")


def _proxied(url: str, password: str) -> Any:
    proxies = RotatingProxies([f"anna:{quote(password, safe='')}@127.0.0.1:1"], direct=False, max_wait=0.1)
    return _pipeline(url, MemorySink(), proxies)


def _stored(url: str, password: str) -> Any:
    return _pipeline(url, _sink(url, password), RotatingProxies(()))


def _pipeline(url: str, sink: Any, proxies: RotatingProxies) -> Pipeline:
    return Pipeline(
        BinanceUsdm(url),
        Query(symbols="BTCUSDT", start="2026-06-01", end="2026-06-02"),
        sink,
        proxies=proxies,
        fetcher=CurlFetcher(),
        settings=Settings(retries=RetryPolicy(attempts=2, initial=0.01, cap=0.02)),
    )


def _bad_proxy(url: str, password: str) -> object:
    return parse_proxy(f"http://anna:{password}@nowhere", "entry 1")


def _bad_pool(url: str, password: str) -> object:
    return RotatingProxies(["10.0.0.1:1", f"anna:{password}"])


def _bad_dsn(url: str, password: str) -> object:
    return sink_from(f"postgresql://anna:{password}/x@h:port/db")


def _other_dsn(url: str, password: str) -> object:
    return sink_from(f"sqlite://anna:{password}@db.example/market")


def _dead_proxies(url: str, password: str) -> object:
    return asyncio.run(_proxied(url, password).run(), debug=True)


def _dead_store(url: str, password: str) -> object:
    return asyncio.run(_stored(url, password).run(), debug=True)


def _look(thing: Any, piece: str) -> None:
    """Search what a debugger, a log line, a copy or a pickle shows of an object and its attributes."""
    for held in (thing, *vars(thing).values()) if hasattr(thing, "__dict__") else (thing,):
        for show in (repr, str, format, pformat, ascii):
            _search(show(held), piece, show.__name__)
        if attrs.has(type(held)):
            _search(repr(attrs.asdict(held)), piece, "attrs.asdict")
        # Pickling may be refused; if it succeeds, the bytes must not hold the password.
        with suppress(TypeError, AttributeError, pickle.PicklingError):
            _search(repr(pickle.dumps(held)), piece, "pickle")
    if isinstance(thing, Egress):
        assert copy.deepcopy(thing) == copy.copy(thing) == thing


def _look_at_error(fail: Callable[[str, str], object], url: str, password: str, piece: str) -> None:
    try:
        report: Any = fail(url, password)
    except MarketfetchError as error:
        _search("".join(traceback.format_exception(error)), piece, "traceback")
        for each in _related(error):
            _search(f"{each!r} {each.args} {getattr(each, '__notes__', ())}", piece, "error")
            if fail is not _other_dsn:  # its URL names a file, where a credential is not recognized
                _search(_frames(each.__traceback__), piece, "frames of the library")
        _search(repr(getattr(error, "report", None)), piece, "report")
    else:
        _search(repr(report), piece, "report")


def _related(error: BaseException) -> Iterator[BaseException]:
    """Yield the error with all its causes and contexts, also suppressed ones."""
    yield error
    for other in (error.__cause__, error.__context__):
        if other is not None:
            yield from _related(other)


def _frames(trace: TracebackType | None) -> str:
    """Return the local variables of the library's frames, as error trackers record them."""
    shown: list[str] = []
    for frame, _ in traceback.walk_tb(trace):
        if "/marketfetch/" in frame.f_code.co_filename:
            for value in frame.f_locals.values():
                with suppress(Exception):  # the repr of a half-initialized object may fail
                    shown.append(f"{frame.f_code.co_name}: {value!r}")
    return "\n".join(shown)


def _search(shown: object, piece: str, where: str) -> None:
    text = str(shown)
    at = text.find(piece)
    assert at < 0, f"in {where}: …{text[max(0, at - 200) : at + 40]}…"


@contextmanager
def _records() -> Iterator[list[str]]:
    """Collect all log records of the block."""
    lines: list[str] = []
    root, handler = logging.getLogger(), logging.Handler(logging.DEBUG)
    handler.emit = lambda record: lines.append(f"{record.getMessage()} {record.__dict__}")  # type: ignore[method-assign]
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
