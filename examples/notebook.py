"""From symbols to data frames, cell by cell: it runs in a script and in a notebook."""

# %%
import marketfetch as mf

candles = mf.fetch(
    "binance-usdm", "ohlcv", ["BTCUSDT", "ETHUSDT"], interval="1h", start="2026-06-01", end="2026-06-08"
)
print(candles)

# %% Is anything missing, and why?
print(candles.report.complete, [line.missing for line in candles.report.series])

# %% A plain frame, with one row for each symbol and hour
closes = candles.to_pandas().pivot_table(index="open_time", columns="symbol", values="close")
print(closes.pct_change().corr())

# %% Funding rates are events and need no interval
funding = mf.fetch("binance-usdm", "funding_rate", "BTCUSDT", start="2026-06-01", end="2026-06-08")
print(funding.to_pandas()[["open_time", "funding_rate"]])

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
