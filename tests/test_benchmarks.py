"""A benchmark whose sides did not produce the same rows has no result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.competitors.digest import digest
from benchmarks.competitors.job import Job
from benchmarks.harness import comparison
from benchmarks.harness.page_cache import BLOCK_ROWS, CachedKlines
from benchmarks.harness.report import line, write
from benchmarks.harness.results import at_least, at_most, interleaved, without_bar
from marketfetch.testing import GeneratedMarket, MarketRows, Window
from marketfetch.testing.venues.klines import KlineRenderer, KlineSeries
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span

JOB = Job("http://nowhere", ["A"], 0, 120_000, "1m", 1)
ROWS = [[0, "1", "2", "1", "2", "5"], [60_000, "2", "3", "2", "3", "6"]]


def answering(contents: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    """Return a replacement for the competitors' processes: `contents` maps a module to its rows."""

    def child(command: Sequence[str | Path], core: int | None) -> dict[str, Any]:
        rows, checksum = digest([contents(str(command[2]))], JOB.start, JOB.end)
        return {"seconds": 1.0, "cpu": 1.0, "rows": rows, "digest": checksum}

    return child


SIDES = {name: comparison.Competitor(name) for name in ("one", "other")}


def test_equal_rows_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "child", answering(lambda _: ROWS))
    found = comparison.compare(SIDES, JOB, rounds=2, core=None)
    assert [len(each) for each in found.values()] == [2, 2]


@pytest.mark.parametrize(
    "wrong", [ROWS[:1], [*ROWS[:1], [60_000, "2", "3", "2", "3.0000001", "6"]], ROWS[::-1], []]
)
def test_other_rows_are_an_error_instead_of_a_figure(
    wrong: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "child", answering(lambda module: wrong if "other" in module else ROWS))
    with pytest.raises(AssertionError, match="did not produce the same rows"):
        comparison.compare(SIDES, JOB, rounds=1, core=None)


def test_a_competitor_that_fails_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="No module named"):
        comparison.compare({"nobody": comparison.Competitor("nobody")}, JOB, rounds=1, core=None)


def test_sides_take_turns() -> None:
    order: list[str] = []
    interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b", "a", "b"]


def test_a_figure_says_whether_its_bar_holds() -> None:
    assert at_least("x", 2, 1).holds
    assert not at_least("x", 0, 1).holds
    assert not at_most("x", 2, 1).holds
    assert without_bar("x", 1).holds is None
    assert "≤ 10 ms" in line(at_most("lateness", 12, 10, " ms"))
    assert line(at_most("lateness", 12, 10, " ms")).endswith("DOES NOT HOLD")


class CountingMarket(GeneratedMarket):
    """A market that counts how often rows are taken from it."""

    calls = 0

    def rows(self, dataset: str, symbol: str, interval: Interval, window: Window) -> MarketRows:
        self.calls += 1
        return super().rows(dataset, symbol, interval, window)


def test_cached_candles_are_those_of_the_renderer_and_taken_from_the_market_once() -> None:
    listed_at, block = 1_577_836_800_000, BLOCK_ROWS * 60_000
    outage = Span(listed_at + block, listed_at + 4 * block)  # leaves whole blocks without a candle
    market = CountingMarket(["BTCUSDT"], gaps=[outage])
    cached, direct = CachedKlines(market), KlineRenderer(market)
    series, now = KlineSeries("ohlcv", "BTCUSDT", Interval.parse("1m")), listed_at + 6 * block
    windows = [
        Window(start, end, limit, newest=newest)
        for start in (0, listed_at - 1, listed_at + block // 2, outage.end - 1, now - 200 * 60_000)
        for end in (listed_at + 60_000, outage.start + 1, now + 1)
        for limit in (1, 99, 1500, 10_000)
        for newest in (False, True)
    ]
    for window in windows:
        assert cached.rows(series, window, now) == direct.rows(series, window, now)
    market.calls = 0
    cached.rows(series, Window(listed_at, now, 1500), now)
    assert market.calls == 0


def test_the_cache_forgets_the_block_that_was_used_longest_ago() -> None:
    market = CountingMarket(["BTCUSDT"])
    cached = CachedKlines(market, cache_bytes=2_000_000)  # two blocks of about 0.9 MB
    series, first = KlineSeries("ohlcv", "BTCUSDT", Interval.parse("1m")), 1_600_000_000_000
    for number in (0, 1, 0, 2, 0):
        cached.rows(series, Window(first + number * BLOCK_ROWS * 60_000, first * 2, 100), first * 2)
    assert market.calls == 3
    cached.rows(series, Window(first + BLOCK_ROWS * 60_000, first * 2, 100), first * 2)
    assert market.calls == 4


def test_sections_that_were_not_measured_stay_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("", "utf-8")
    write({"One": [at_least("slow", 1.0, 2.0)], "Other": [at_most("small", 3, 4), without_bar("n", 5)]}, page)
    first = page.read_text("utf-8")
    assert "- slow: 1, where the bar is ≥ 2\n" in first
    write({"One": [at_least("slow", 3.0, 2.0)]}, page)
    second = page.read_text("utf-8")
    assert "What falls short" not in second
    assert "| slow | 3 | ≥ 2 | holds |" in second
    assert first.partition("## Other")[2] == second.partition("## Other")[2]
