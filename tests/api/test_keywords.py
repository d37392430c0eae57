"""Arguments that other libraries have: the error names ours; every public function that fetches has it."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

import marketfetch as mf
from marketfetch.common.keywords import _MADE_WITH, _SYNONYMS


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


WRONG: list[tuple[Callable[..., Any], dict[str, object], str]] = [
    (mf.fetch, {"until": "2026"}, "fetch: there is no argument 'until'; write end=..."),
    (mf.fetch, {"limit": 100}, "fetch: there is no argument 'limit'; rows are counted from start to end"),
    (mf.fetch, {"timeout": 5}, "there is no argument 'timeout'; write fetcher=CurlFetcher(timeout=...)"),
    (mf.update, {"heartbeat": 5}, "there is no argument 'heartbeat'; write settings=Settings(heartbeat=...)"),
    (mf.fetch, {"symbolss": "BTC"}, "fetch: 'symbolss' is not an argument; did you mean 'symbols'?"),
    (mf.Query, {"symbol": "BTC"}, "Query: there is no argument 'symbol'; write symbols=..."),
    (mf.Query, {"tf": "1h"}, "Query: there is no argument 'tf'; write interval=..."),
    (mf.Pipeline, {"proxy": "http://a:1"}, "Pipeline: there is no argument 'proxy'; write proxies=..."),
    (mf.verify, {"symbol": "BTC"}, "verify: there is no argument 'symbol'; write symbols=..."),
    (mf.verify_sources, {"tf": "1h"}, "verify_sources: there is no argument 'tf'; write interval=..."),
    (mf.forget, {"until": "2026"}, "forget: there is no argument 'until'; write end=..."),
    (mf.update, {"proxy": "http://a:1"}, "update: there is no argument 'proxy'; write proxies=..."),
    (mf.refetch, {"since": "1d"}, "refetch: there is no argument 'since'; write start=..."),
    (mf.export, {"since": "1d"}, "export: there is no argument 'since'; write start=..."),
    (mf.instruments, {"knd": "spot"}, "instruments: 'knd' is not an argument; did you mean 'kind'?"),
    (mf.StoreReader.table, {"tf": "1h"}, "StoreReader.table: there is no argument 'tf'; write interval=..."),
    (mf.StoreReader.latest, {"limit": 5}, "StoreReader.latest: there is no argument 'limit'; write n=..."),
]


@pytest.mark.parametrize(("function", "given", "message"), WRONG)
def test_other_functions(function: Callable[..., Any], given: dict[str, object], message: str) -> None:
    with pytest.raises(mf.errors.ConfigurationError) as caught:
        function(**given)
    assert message in str(caught.value)


@pytest.mark.parametrize(("argument", "kind"), [("settings", mf.Settings), ("fetcher", mf.CurlFetcher)])
def test_the_remedy_is_an_argument_of_the_class_that_it_names(argument: str, kind: type[object]) -> None:
    assert _MADE_WITH[argument] == kind.__name__
    assert {*_SYNONYMS[argument].split()} <= signature(kind).parameters.keys()


def test_the_options_of_an_update_are_arguments() -> None:
    with pytest.raises(mf.errors.ConfigurationError, match="holds nothing of that kind yet"):
        mf.update("memory:", proxies=[], board=None)


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
