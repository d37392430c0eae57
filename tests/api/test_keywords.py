"""Arguments that other libraries have: the error names ours; every public function that fetches has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import marketfetch as mf

FETCHING = {"symbols": "BTCUSDT", "start": "2026-06-01"}


@pytest.mark.parametrize("function", [mf.fetch, mf.plan, mf.follow])
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("symbol", "symbols"),
        ("tickers", "symbols"),
        ("timeframe", "interval"),
        ("tf", "interval"),
        ("since", "start"),
        ("proxy", "proxies"),
        ("store", "to"),
    ],
)
def test_the_argument_of_another_library(function: Callable[..., Any], wrong: str, right: str) -> None:
    with pytest.raises(mf.errors.ConfigurationError) as caught:
        function("binance-usdm", **{wrong: "BTCUSDT"})
    assert str(caught.value) == (f"{function.__name__}: there is no argument {wrong!r}; write {right}=...")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mf.fetch("okx", until="2026-06-01"), "fetch: there is no argument 'until'; write end=..."),
        (lambda: mf.fetch("okx", limit=100), "fetch: there is no argument 'limit'; rows are counted from"),
        (lambda: mf.fetch("okx", timeout=5), "write settings=Settings(timeout=...)"),
        (
            lambda: mf.fetch("okx", symbls="BTC"),
            "fetch: 'symbls' is not an argument; did you mean 'symbols'?",
        ),
        (
            lambda: mf.Query(symbol="BTC", start="1d"),
            "Query: there is no argument 'symbol'; write symbols=...",
        ),
        (lambda: mf.Query(symbols="BTC", start="1d", tf="1h"), "Query: there is no argument 'tf'; write int"),
        (lambda: mf.Pipeline("okx", mf.Query(**FETCHING), proxy="http://a:1"), "write proxies=..."),
        (
            lambda: mf.verify("memory:", symbol="BTC"),
            "verify: there is no argument 'symbol'; write symbols=...",
        ),
        (lambda: mf.forget("memory:", until="2026"), "forget: there is no argument 'until'; write end=..."),
        (
            lambda: mf.update("memory:", proxy="http://a:1"),
            "update: there is no argument 'proxy'; write prox",
        ),
        (lambda: mf.refetch("memory:", since="1d"), "refetch: there is no argument 'since'; write start=..."),
        (lambda: mf.export("memory:", "x.csv", since="1d"), "export: there is no argument 'since'; write st"),
        (lambda: mf.instruments("okx", type="swap"), "instruments: "),
        (lambda: mf.open("memory:").table("ohlcv", tf="1h"), "there is no argument 'tf'; write interval=..."),
        (lambda: mf.open("memory:").latest(limit=5), "there is no argument 'limit'; write n=..."),
    ],
)
def test_other_functions(call: Callable[[], object], message: str) -> None:
    with pytest.raises(mf.errors.ConfigurationError) as caught:
        call()
    assert message in str(caught.value)


def test_plan_refuses_a_sink_that_fetch_refuses(tmp_path: Path) -> None:
    class WriteOnly:
        max_writers = 1

        def prepare(self, datasets: object) -> None: ...

        def writer(self) -> None: ...

    def refused(function: Callable[..., object]) -> str:
        with pytest.raises(mf.errors.ConfigurationError) as caught:
            function("binance-usdm", "ohlcv", "BTCUSDT", start="2026-06-01", to=WriteOnly())
        return str(caught.value)

    assert refused(mf.plan) == refused(mf.fetch)
    assert refused(mf.plan).startswith("to: WriteOnly does not know what it holds; ")
