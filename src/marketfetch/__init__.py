"""marketfetch fills a store with market history from crypto exchanges and keeps it complete.

    import marketfetch as mf

    candles = mf.fetch("binance-usdm", "ohlcv", ["BTCUSDT"], start="2026-06-01", end="2026-07-01")
    frame = candles.to_pandas()

The names at the root are listed in `__init__.pyi`. Each is loaded when it is first used, so that importing
the package stays cheap. The other public names are in `marketfetch.adapter`, `.dask`, `.errors`, `.events`,
`.listeners`, `.plans`, `.protocols`, `.reports`, `.sinks` and `.testing`.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # takes ten times as long to import as all the rest

        return version("marketfetch")
    return _load(name)
