"""The exchange of examples/lunaris, as its adapter describes it: over HTTP, and as a function."""

from __future__ import annotations

import json
import time
from collections import deque
from threading import Lock
from typing import Any

import attrs
from werkzeug import Request, Response

import marketfetch.adapter as mf

__all__ = ["SYMBOLS", "LunarisServer"]

STEPS = {"M1": 60, "M10": 600, "H1": 3600, "D1": 86_400}
SYMBOLS = [f"{base}-USD" for base in ("ADA", "BTC", "ETH", "SOL", "XRP")]
ZONE = 8 * 3600


@attrs.define
class LunarisServer:
    """It counts the requests of the last second and of the last minute."""

    cursors_end: bool = True
    refused: int = 0
    served: int = 0
    _recent: deque[float] = attrs.field(factory=deque)
    _lock: Lock = attrs.field(factory=Lock)

    def respond(self, request: Request) -> Response:
        """Answer over HTTP."""
        asked = json.loads(request.data) if request.data else dict(request.args)
        found = self.content(request.path, asked) if self._counted() else {"ok": False, "code": 1002}
        if request.data and request.headers["content-type"] != "application/json":
            found = {"ok": False, "code": 1003}
        return Response(json.dumps(found, separators=(",", ":")), content_type="application/json")

    def answer(self, request: mf.Request) -> bytes:
        """Answer a Request as if it had been sent."""
        asked = json.loads(request.body) if request.body else dict(request.params)
        return json.dumps(self.content(request.path, asked), separators=(",", ":")).encode()

    def content(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the content of an answer."""
        if path == "/v1/time":
            return {"ok": True, "data": {"now": 1_780_272_000}}
        if path == "/v1/symbols":
            return {"ok": True, "data": self._symbols(int(asked.get("cursor", 0)))}
        if asked["symbol"] not in SYMBOLS:
            return {"ok": False, "code": 1001}
        return {"ok": True, "data": {"candles": self._candles(asked)}}

    def _counted(self) -> bool:
        with self._lock:
            now = time.monotonic()
            while self._recent and self._recent[0] < now - 60:
                self._recent.popleft()
            if len(self._recent) >= 200 or sum(moment > now - 1 for moment in self._recent) >= 20:
                self.refused += 1
                return False
            self._recent.append(now)
            self.served += 1
            return True

    def _symbols(self, at: int) -> dict[str, Any]:
        entries = [{"id": name, "base": name[:3], "quote": "USD"} for name in SYMBOLS[at : at + 2]]
        following = str(at + 2) if at + 2 < len(SYMBOLS) else None
        return {"symbols": entries, "next": following if self.cursors_end else "2"}

    @staticmethod
    def _candles(asked: dict[str, Any]) -> list[dict[str, str]]:
        step = STEPS[asked["resolution"]]
        zone = ZONE if step == STEPS["D1"] else 0
        first = -(-(asked["from"] + zone) // step) * step - zone
        times = range(first, asked["to"] + 1, step)[-min(100, asked["limit"]) :]
        return [
            {
                "ts": str(at),
                "o": "10",
                "h": "12",
                "l": "9",
                "c": f"{10 + at // step % 7 / 10}",
                "v": f"{at % 11}",
            }
            for at in reversed(times)
        ]
