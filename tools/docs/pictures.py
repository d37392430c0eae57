"""Draw the pictures of the documents from the simulated exchange: `python tools/docs/pictures.py`.

It writes `candles` and `coverage` as PNG and `progress` as SVG into `docs/assets`, each with `-light` and
`-dark` in its name. Only the speed and the time left in the picture of the progress depend on the machine.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, get_args

from PIL import Image
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, DIMMED_MONOKAI

import marketfetch as mf
from marketfetch.api.tables.plots import Theme
from marketfetch.events import BatchWritten, Event
from marketfetch.listeners.rich_progress import RichProgress, _bar
from marketfetch.testing import GeneratedMarket, LocalProxies, SimulatedExchange, SimulatorOptions

ASSETS = Path(__file__).parents[2] / "docs" / "assets"
_SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "BNBUSDT"]
_OUTAGE = mf.Span(1_781_060_400_000, 1_781_136_000_000)  # 22 hours of 2026-06-10
_THEMES = {"light": DEFAULT_TERMINAL_THEME, "dark": DIMMED_MONOKAI}
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""rich asks for a font from another host; without it the font of the reader is used."""


def main() -> None:
    """Write all pictures."""
    ASSETS.mkdir(exist_ok=True)
    market = GeneratedMarket(_SYMBOLS, gaps=[_OUTAGE])
    with SimulatedExchange(market) as exchange:
        draw_candles(exchange.base_url)
        draw_coverage(exchange.base_url)
    with SimulatedExchange(market, SimulatorOptions(latency=0.05)) as exchange, LocalProxies(2) as proxies:
        draw_progress(exchange.base_url, proxies.urls)


def draw_candles(base_url: str) -> None:
    """Draw candles with volumes and funding rates."""
    span: dict[str, Any] = {"start": "2026-06-11", "end": "2026-06-18", "base_url": base_url}
    candles = mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", interval="1h", **span)
    funding = mf.fetch("binance-usdm", "funding_rate", "BTCUSDT", **span)
    for theme in get_args(Theme):
        _save(candles.join(funding, grid="1h").plot(theme=theme), f"candles-{theme}")


def draw_coverage(base_url: str) -> None:
    """Draw the coverage of a store with an outage, a gap, and symbols that begin later."""
    store = mf.MemorySink()
    for number, first, last in ((0, 1, 30), (1, 3, 30), (2, 5, 14), (2, 19, 30), (3, 7, 30), (4, 9, 26)):
        mf.fetch(
            "binance-usdm",
            "ohlcv",
            _SYMBOLS[number],
            interval="1h",
            start=f"2026-06-{first:02}",
            end=f"2026-06-{last:02}",
            to=store,
            base_url=base_url,
        )
    for theme in get_args(Theme):
        _save(mf.open(store).plot_coverage(theme=theme), f"coverage-{theme}")


def draw_progress(base_url: str, proxies: list[str]) -> None:
    """Draw the bar on a terminal when two thirds of the rows are written."""
    progress, pictures = RichProgress(io.StringIO()), dict[str, str]()

    def look(event: Event) -> None:
        progress(event)
        numbers = progress._numbers  # noqa: SLF001  # the moment of the picture
        late = numbers.egresses and numbers.done > numbers.planned * 2 // 3
        if isinstance(event, BatchWritten) and late and not pictures:
            pictures.update(_terminal(progress))

    with progress:
        mf.fetch(
            "binance-usdm",
            "ohlcv",
            _SYMBOLS,
            interval="1m",
            start="2026-03-01",
            end="2026-06-01",
            base_url=base_url,
            proxies=proxies,
            settings=mf.Settings(heartbeat=0.1),
            listeners=[look],
        )
    for theme, picture in pictures.items():
        (ASSETS / f"progress-{theme}.svg").write_text(picture, "utf-8")


def _terminal(progress: RichProgress) -> dict[str, str]:
    found = {}
    for name, theme in _THEMES.items():
        console = Console(file=io.StringIO(), record=True, width=92, force_terminal=True)
        console.print(progress._render(_bar(console)))  # noqa: SLF001  # a picture of it
        drawn = console.export_svg(title="marketfetch", theme=theme, unique_id="progress")
        found[name] = _FONTS.sub("", drawn)
    return found


def _save(figure: Any, name: str) -> None:
    """Save a figure with few colours: a fifth of the bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    Image.open(drawn).convert("RGB").quantize(64).save(ASSETS / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
