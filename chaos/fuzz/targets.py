"""The fuzz targets: each decoder of foreign bytes as one function of bytes.

A target returns "read" or "refused", and raises if the decoder did anything else. It calls the decoder as
the engine does, inside `decode_errors_as`, which turns a KeyError, TypeError, ... into a DecodeError.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs

from chaos.fuzz import answers, archives, differing
from chaos.fuzz.sound import sound_instrument, sound_moment, sound_page
from marketfetch.adapters.binance_coinm import BinanceCoinm
from marketfetch.adapters.binance_metrics import MetricsLayout
from marketfetch.adapters.binance_spot import BinanceSpot
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.adapters.okx import Okx
from marketfetch.archives.file_reader import FileContent
from marketfetch.archives.periods import CalendarPeriod
from marketfetch.decoding.layouts import decode_errors_as
from marketfetch.decoding.validation import validate_page
from marketfetch.engine.discovery import read_time
from marketfetch.errors import DecodeError
from marketfetch.exchange import Exchange
from marketfetch.sources import Archive, Endpoint
from marketfetch.values.intervals import Interval
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span

__all__ = ["CORPUS", "Target", "addressed", "families", "targets"]

CORPUS = Path(__file__).with_name("corpus")
"""The first inputs of every run: good ones, and former failures named after their peculiarity."""

START = 1_780_272_000_000
"""A Monday that begins a month, 2026-06-01T00:00Z: on the grid of every interval."""
_ROWS = 10


@attrs.frozen
class Target:
    """One decoder of foreign bytes, and the folder of its inputs in the corpus."""

    name: str
    corpus: str
    read: Callable[[bytes], str]

    def seeds(self) -> list[bytes]:
        """Return the inputs of its corpus folder, sorted by file name."""
        return [file.read_bytes() for file in sorted(CORPUS.joinpath(self.corpus).iterdir())]


def targets() -> dict[str, Target]:
    """Return all targets by name."""
    found = [*_of_exchange(BinanceUsdm(), "binance"), *_of_exchange(BinanceSpot(), "binance")]
    found += [*_of_exchange(BinanceCoinm(), "binance"), *_of_exchange(Okx(), "okx")]
    found += [Target(f"rows: {name}", f"rows-{name}", read) for name, read in differing.layouts().items()]
    found += [Target(name, corpus, read) for name, (corpus, read) in answers.readers().items()]
    found += [Target(name, corpus, read) for name, (corpus, read) in archives.readers().items()]
    return {target.name: target for target in found}


def families() -> dict[str, tuple[Target, ...]]:
    """Return the targets by the name of their corpus: those of one family read one format.

    They run the same functions with another table of columns, and so reach the same branches.
    """
    found = defaultdict[str, tuple[Target, ...]](tuple)
    for target in targets().values():
        found[target.corpus] += (target,)
    return dict(found)


def addressed(members: Sequence[Target], message: bytes) -> tuple[Target, bytes]:
    """Split an input of a family: its first byte says which member reads the rest."""
    return members[(message[:1] or b"\x00")[0] % len(members)], message[1:]


def _of_exchange(exchange: Exchange, family: str) -> Iterator[Target]:
    for kind in exchange.sources:
        if issubclass(kind, Archive):
            yield _file(exchange, kind)
        if not issubclass(kind, Endpoint):
            continue
        endpoint = exchange.endpoint(kind.dataset)
        for series in _series(exchange, endpoint):
            interval = "" if series.interval.is_event else f" {series.interval}"
            name = f"{exchange.name} {kind.dataset}{interval}"
            yield Target(name, f"{family}-{_shape(endpoint)}", partial(_page, endpoint, _part(series)))
    yield Target(f"{exchange.name} time", f"{family}-time", partial(_time, exchange))
    yield Target(f"{exchange.name} listing", f"{family}-listing", partial(_listing, exchange))
    yield Target(f"{exchange.name} check", "answers", partial(answers.check, exchange))


def _file(exchange: Exchange, kind: type[Archive]) -> Target:
    """Return the target for the files of a dataset: a day of the smallest interval."""
    interval = Interval.parse(next(iter(kind.intervals)))
    series = Series.of(exchange.name, kind.dataset, _symbol(exchange), interval.name)
    day = CalendarPeriod.parse("2026-06-01", utc_offset=kind.utc_offset)
    read = partial(archives.read_file, FileContent(series, day, kind.layout))
    corpus = "archive-file"
    if exchange.name == "okx" or isinstance(kind.layout, MetricsLayout):
        corpus = "okx-file" if exchange.name == "okx" else "metrics-file"
    return Target(f"{exchange.name} {kind.dataset} file", corpus, read)


def _symbol(exchange: Exchange) -> str:
    return {"okx": "BTC-USDT-SWAP", "binance-coinm": "BTCUSD_PERP"}.get(exchange.name, "BTCUSDT")


def _series(exchange: Exchange, endpoint: Endpoint) -> Iterator[Series]:
    """Yield a 1m series, and for candles a 1M series, whose grid has unequal steps."""
    symbol = _symbol(exchange)
    names = list(endpoint.intervals) or ["event"]
    chosen = ["1m", "1M"] if endpoint.dataset == "ohlcv" else ["1m" if "1m" in names else names[0]]
    for name in chosen:
        yield Series(exchange.name, endpoint.dataset_type, symbol, Interval.parse(name))


def _shape(endpoint: Endpoint) -> str:
    """Name the format of an endpoint's answers: all kinds of klines share one, and so do all ratios."""
    kind = endpoint.dataset
    if kind in {"ohlcv", "premium_index", "mark_price", "index_price"}:
        return "klines"
    return "funding" if kind == "funding_rate" else "statistics"


def _part(series: Series) -> Slice:
    day = 24 * 3_600_000
    end = START + 100 * day if series.interval.is_event else series.interval.shift(START, _ROWS)
    return Slice(series, Span(START, end), rows=_ROWS)


def _page(endpoint: Endpoint, part: Slice, body: bytes) -> str:
    try:
        with decode_errors_as("a page"):
            decoded = endpoint.decode(body, part)
            page = validate_page(decoded, part)
    except DecodeError:
        return "refused"
    sound_page(page, decoded, part)
    return "read"


def _time(exchange: Exchange, body: bytes) -> str:
    try:
        with decode_errors_as("the time"):
            moment = read_time(exchange, body)
    except DecodeError:
        return "refused"
    sound_moment(moment)
    return "read"


def _listing(exchange: Exchange, body: bytes) -> str:
    try:
        with decode_errors_as("a listing"):
            found = tuple(exchange.decode_listing(body))
    except DecodeError:
        return "refused"
    for instrument in found:
        sound_instrument(instrument)
    return "read"
