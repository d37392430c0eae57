"""From symbols to data frames, cell by cell: it runs in a script and in a notebook."""

# %%
import marketfetch as mf

candles = mf.fetch(
    "binance-usdm", "ohlcv", ["BTCUSDT", "ETHUSDT"], interval="1h", start="2026-06-01", end="2026-06-08"
)
print(candles)

# %% Is anything missing, and why?
print(candles.report)

# %% One column, times × symbols
print(candles.wide("close").pct_change().corr())

# %% Longer candles of one symbol
print(candles.resample("1d")["BTC/USDT"].to_pandas(index="time")[["close", "volume", "complete"]])

# %% Funding rates are events and need no interval
funding = mf.fetch("binance-usdm", "funding_rate", "BTCUSDT", start="2026-06-01", end="2026-06-08")
print(candles["BTCUSDT"].join(funding, grid="1h").wide("funding_rate"))

# %% With a store, a second run fetches nothing
for _ in range(2):
    kept = mf.fetch(
        "binance-usdm",
        symbols="BTCUSDT",
        interval="1h",
        start="2026-06-01",
        end="2026-06-08",
        to="sqlite:market.sqlite",
    )
    print(f"{len(kept)} rows, {kept.report.requests} requests")
