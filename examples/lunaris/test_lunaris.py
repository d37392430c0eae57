"""The test of an adapter whose answers were recorded with MARKETFETCH_RECORD=1."""

from pathlib import Path
from typing import ClassVar

from lunaris import Lunaris

import marketfetch.adapter as mf
from marketfetch.testing.contracts.exchange import ExchangeContract


class TestLunaris(ExchangeContract):
    exchange = Lunaris
    symbol = "BTC-USD"
    start = "2026-06-01T16:00Z"
    answers_folder = Path(__file__).parent / "answers"
    error_bodies: ClassVar = {
        b'{"ok":false,"code":1001}': mf.BadSymbol,
        b'{"ok":false,"code":1002}': mf.RateLimitExceeded,
    }
