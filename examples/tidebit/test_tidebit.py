"""The test of an adapter: its author gives real answers, the contract class has the checks."""

from tidebit import Tidebit

from marketfetch.testing.contracts.exchange import ExchangeContract, Recording

BARS = (
    b'{"bars":{"t":[1780272000,1780272060],"o":["71.5","71.8"],"h":["72","71.9"],"l":["71.4","70"],"c":["71.8","70.2"],'
    b'"v":["12.5","3"]}}'
)
FUNDING = b'{"events":[{"at":1780300800,"rate":"-0.0001"},{"at":1780272000,"rate":"0.00025"}]}'


class TestTidebit(ExchangeContract):
    exchange = Tidebit
    symbol = "BTC_USD"
    listing_body = b'{"markets":[{"name":"BTC_USD","base":"BTC","quote":"USD"}]}'
    recordings = (
        Recording("ohlcv", BARS, start="2026-06-01T00:00:00Z", end="2026-06-01T00:02:00Z"),
        Recording("funding_rate", FUNDING, start="2026-06-01", end="2026-06-02"),
    )
