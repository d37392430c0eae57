"""`marketfetch plan`: the work by source, limit, egress and series, at any width."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from marketfetch.cli.documents import to_text
from marketfetch.cli.main import main
from marketfetch.cli.plan_view import plan_page
from marketfetch.plans import EgressPlan, LimitPlan, Plan, SeriesPlan, Workload
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet


@pytest.fixture
def simulated() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"])) as simulated:
        yield simulated


def words(simulated: SimulatedExchange, *more: str) -> list[str]:
    what = ["-e", "binance-usdm", "-s", "BTCUSDT,ETHUSDT", "-i", "1h", "--start", "2026-06-01"]
    return ["plan", *what, "--end", "2026-06-03", "--base-url", simulated.base_url, "--board", "none", *more]


def test_a_plan_needs_no_store_and_asks_for_clock_and_listing_alone(
    simulated: SimulatedExchange, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(simulated, "--json")) == 0
    parsed = json.loads(capsys.readouterr().out)
    assert parsed["rows"] == 96
    assert [line["symbol"] for line in parsed["series"]] == ["BTCUSDT", "ETHUSDT"]
    assert parsed["limits"][0]["egresses"][0]["name"] == "Direct"
    assert {seen.path for seen in simulated.request_log.latest} == {"/fapi/v1/time", "/fapi/v1/exchangeInfo"}


def test_a_page_says_what_is_not_known(
    simulated: SimulatedExchange, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(simulated, "-s", "BTCUSD")) == 1
    page = capsys.readouterr().out
    assert page.startswith("About 96 rows of 2 series in ")
    assert "BTCUSD: unknown symbol; did you mean 'BTCUSDT' or 'ETHUSDT'?" in page


@pytest.mark.parametrize("width", [60, 100, 140])
def test_a_page_fits_the_terminal_and_long_lists_are_cut(width: int) -> None:
    day = SpanSet.of(Span(1_780_272_000_000, 1_780_358_400_000))
    load = Workload(rows=1440, requests=3, weight=12, size=2_000_000)
    series = tuple(
        SeriesPlan(
            Series.of("binance-usdm", "ohlcv", f"C{number}USDT", "1m"), day, load, Workload(), load, "listed"
        )
        for number in range(30)
    )
    egresses = tuple(EgressPlan(f"Proxy {number}", 3, 12, 100) for number in range(30))
    limit = LimitPlan("binance-futures weight", 2400, 60_000, 90, 360, 61.5, egresses)
    page = to_text(plan_page(Plan(series, (limit,), rest_seconds=61.5)), width)
    assert page.startswith("About 43,200 rows of 30 series in 90 requests of weight 360,")
    assert page.count("10 more") == 2
    assert "1 min 02 s" in page
    assert "2,400 in 60 s" in page
    # The last line is a note, which is never broken.
    assert all(len(line) <= width for line in page.splitlines()[:-1])
    assert page.splitlines()[-1].startswith("30 of 30 series begin later by the listing; if they do not")
