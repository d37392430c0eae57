"""Your own listener: counters for a monitoring system, from the events of a run.

A listener is called on the event loop and must return at once. If it raises, it is not called again.
"""

import asyncio
from collections import Counter

import marketfetch as mf
from marketfetch.events import BatchWritten, PageFetched, RequestFailed


class Counters:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, event: mf.events.Event) -> None:
        match event:
            case PageFetched():
                self.counts[f"rows fetched through {event.egress}"] += event.rows
                for reason, rows in event.rejected.items():
                    self.counts[f"rows rejected, {reason}"] += rows
            case RequestFailed():
                self.counts[f"requests failed, {event.cause}"] += 1
            case BatchWritten():
                self.counts["rows stored"] += event.batch.rows


async def main() -> None:
    query = mf.Query(symbols=["BTCUSDT", "ETHUSDT"], interval="1h", start="2026-06-01", end="2026-06-08")
    counters = Counters()
    await mf.Pipeline("binance-usdm", query, mf.MemorySink(), listeners=[counters])
    for name, count in sorted(counters.counts.items()):
        print(f"{name}: {count}")


if __name__ == "__main__":
    asyncio.run(main())
