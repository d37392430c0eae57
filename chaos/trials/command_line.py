"""Run the command line against a faulty exchange: its exit code and report must be true."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from chaos.harness.trials import Effort, Result, Trial
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.testing import FaultKind, Faults, GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.worlds import assert_same, span_of, truth

__all__ = ["command_line"]

_QUICK = tuple(
    kind
    for kind in FaultKind
    # These make a client wait for minutes or its deadline; hostile_exchange tries them in accelerated time.
    if not kind.startswith(("status_4", "hang", "slow"))
)
_KLINES = ("/fapi/v1/klines", "/fapi/v1/markPriceKlines")
_SPAN = span_of("2026-06-01", "2026-06-02")
_SERIES = tuple(
    Series.of("binance-usdm", dataset, symbol, "1m")
    for dataset in ("ohlcv", "mark_price")
    for symbol in ("BTCUSDT", "ETHUSDT")
)


def command_line(effort: Effort) -> Result:
    """Run with transient faults, and with rows that stay impossible: kept (exit 0) or retried (exit 1)."""
    trial = Trial("the command line: exit 0 and all rows, or exit 1 and the missing spans", unit="runs")
    market = GeneratedMarket(["BTCUSDT", "ETHUSDT"], seed=5)
    with SimulatedExchange(market, SimulatorOptions(limits=None)) as exchange:
        for number in range(effort.choose(3, 6)):
            lasting, policy = number % 3 > 0, "retry" if number % 3 == 2 else "keep"
            kinds = [FaultKind.IMPOSSIBLE_ROW] if lasting else _QUICK
            faults = Faults(
                rate=1 if lasting else 0.3,
                kinds=kinds,
                seed=effort.seed + number,
                times=1000 if lasting else 1,
                paths=_KLINES if lasting else (),
            )
            name = f"seed {faults.seed}, lasting: {lasting}, {policy}"
            with trial.attempt(name), TemporaryDirectory() as folder:
                exchange.faults = faults
                path = Path(folder) / "market.sqlite"
                code, report = _backfill(exchange.base_url, path, policy)
                assert code == int(policy == "retry"), f"exit code {code}: {report}"
                assert bool(report["unusable_moments"]) == lasting, f"{report}"
                _assert_right(market, path, report)
    return trial.result()


def _backfill(base_url: str, path: Path, policy: str) -> tuple[int, dict[str, Any]]:
    words = [
        "backfill",
        "--exchange",
        "binance-usdm",
        "--base-url",
        base_url,
        "--to",
        f"sqlite:{path}",
        "--unusable",
        policy,
        "--json",
    ]
    words += ["--interval", "1m", "--start", "2026-06-01", "--end", "2026-06-02"]
    for symbol in ("BTCUSDT", "ETHUSDT"):
        words += ["--symbol", symbol]
    for dataset in ("ohlcv", "mark_price"):
        words += ["--dataset", dataset]
    done = subprocess.run(
        [sys.executable, "-m", "marketfetch", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in {0, 1}, f"exit code {done.returncode}: {done.stderr}"
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def _assert_right(market: GeneratedMarket, path: Path, report: dict[str, Any]) -> None:
    """Fail unless the store has the true rows of all moments reported neither missing nor unusable."""
    lines = {(line["dataset"], line["symbol"]): line for line in report["series"]}
    store = SQLiteSink(path)
    for series in _SERIES:
        line = lines[series.dataset.name, series.symbol]
        missing = SpanSet(tuple(_spans(line["missing"])))
        assert all(gap["reason"] for gap in line["missing"])
        unusable = SpanSet(tuple(_spans(line["unusable"])))
        assert store.coverage([series])[series].missing(_SPAN) == missing - unusable
        rows = truth(market, series, _SPAN)
        kept = np.array([time not in missing | unusable for time in rows.times.tolist()])
        assert_same(store.read(series, _SPAN), rows.take(kept))
    assert report["complete"] == (not any(line["missing"] for line in lines.values()))


def _spans(gaps: Sequence[dict[str, str]]) -> Iterator[Span]:
    for gap in gaps:
        yield span_of(gap["start"], gap["end"])
