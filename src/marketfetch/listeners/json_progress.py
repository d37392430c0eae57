"""Progress of a run as JSON, one object a line, for programs."""

from __future__ import annotations

from typing import Any

import msgspec

from marketfetch.events import (
    ClockSkewDetected,
    Event,
    FileRejected,
    Heartbeat,
    RequestFailed,
    RoundStarted,
    RunFinished,
    SeriesRefused,
    StoreRecovered,
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.listeners.background import StreamWriter
from marketfetch.listeners.text import describe_event
from marketfetch.redaction import redact

__all__ = ["JsonProgress"]


class JsonProgress(StreamWriter):
    """Writes one JSON object a line for every event but pages, files and batches, which are too many.

    Every object has `event` and `message`, the event in one line of text. The other keys:

    | event | keys |
    |---|---|
    | `round_started` | `round`, `series`, `rows`: what is missing, `events` of it a guess |
    | `heartbeat` | `elapsed_s`, `rows_fetched`, `rows_written`, `rows_planned`, `rows_crossed`, `requests`, \
`seconds_left` or null, `waiting`: what requests wait for and how long, or empty |
    | `request_failed` | `cause`, `egress`, `attempt`, `final`, `give_up_in_s` |
    | `waiting_for_store` | `attempt`, `wait_s` |
    | `store_recovered` | none |
    | `symbol_unknown` | `symbol` |
    | `series_refused`, `file_rejected` | `exchange`, `dataset`, `symbol`, `interval` |
    | `clock_skew_detected` | `ahead_ms` |
    | `run_finished` | `complete`, `rows_written`, `requests` |

    >>> import sys
    >>> with JsonProgress(sys.stdout) as progress:
    ...     progress(SymbolUnknown("BTCUSD", "unknown symbol; did you mean 'BTCUSDT'?"))
    {"event":"symbol_unknown","message":"BTCUSD: unknown symbol; did you mean 'BTCUSDT'?","symbol":"BTCUSD"}
    """

    def __call__(self, event: Event) -> None:
        """Queue the line of an event, if it has one."""
        if found := _plain(event):
            name, keys = found
            message = redact(describe_event(event))
            line = msgspec.json.encode({"event": name, "message": message, **keys})
            self.submit(f"{line.decode()}\n")


def _plain(event: Event) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the numbers of an event; None for events that are not shown."""
    match event:
        case RoundStarted():
            return "round_started", {
                "round": event.round,
                "series": event.series,
                "rows": event.rows,
                "events": event.events,
            }
        case Heartbeat():
            return "heartbeat", {
                "elapsed_s": round(event.elapsed, 3),
                "rows_fetched": event.rows_fetched,
                "rows_written": event.rows_written,
                "rows_planned": event.rows_planned,
                "rows_crossed": event.rows_crossed,
                "requests": event.requests,
                "seconds_left": event.seconds_left,
                "waiting": event.waiting,
            }
        case RequestFailed():
            return "request_failed", {
                "cause": event.cause,
                "egress": event.egress,
                "attempt": event.attempt,
                "final": event.final,
                "give_up_in_s": round(event.give_up_in, 3),
            }
        case WaitingForStore():
            return "waiting_for_store", {"attempt": event.attempt, "wait_s": round(event.wait, 3)}
        case StoreRecovered():
            return "store_recovered", {}
        case SymbolUnknown():
            return "symbol_unknown", {"symbol": event.symbol}
        case SeriesRefused() | FileRejected():
            name = "series_refused" if isinstance(event, SeriesRefused) else "file_rejected"
            return name, event.series.as_dict()
        case ClockSkewDetected():
            return "clock_skew_detected", {"ahead_ms": event.ahead}
        case RunFinished():
            report = event.report
            return "run_finished", {
                "complete": report.complete,
                "rows_written": report.rows_written,
                "requests": report.requests,
            }
        case _:
            return None
