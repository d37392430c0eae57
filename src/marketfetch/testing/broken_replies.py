"""What each kind of fault makes of a truthful answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import attrs
import orjson

from marketfetch.testing.delivery import End, Script, head_of
from marketfetch.testing.faults import FaultKind
from marketfetch.testing.messages import Reply, Request, http_date

__all__ = ["Hit", "broken_reply", "broken_script"]

_Row: TypeAlias = Any  # a list of a kline or an object of a statistic, as JSON gives it


@attrs.frozen
class Hit:
    """One request that a fault hits: the truthful answer, and a way to ask for another one."""

    request: Request
    truth: Reply
    now: int
    ask: Callable[[Request], Reply]


_Fault = Callable[[Hit], "Reply | None"]
_RowsFault = Callable[[list[_Row]], "list[_Row] | None"]


def broken_reply(kind: FaultKind, hit: Hit) -> Reply | None:
    """Return the answer a fault makes of the truth; None if this fault cannot happen to such an answer.

    The faults of the connection leave the answer as it is: they are in `broken_script`.
    """
    if kind in _ROWS_FAULTS:
        return _with_rows(hit.truth, _ROWS_FAULTS[kind])
    return _REPLY_FAULTS[kind](hit) if kind in _REPLY_FAULTS else hit.truth


def broken_script(kind: FaultKind | None, reply: Reply, now: int) -> Script | None:
    """Return how a fault of the connection sends an answer; None for all other faults."""
    fault = None if kind is None else _WIRE_FAULTS.get(kind)
    return None if fault is None else fault(reply, now)


def _json(status: int, content: object, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, orjson.dumps(content), {"Content-Type": "application/json", **named})


def _page(status: int, title: str, server: str) -> Reply:
    text = (
        f"<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {title}</h1></center>\r\n"
        f"<hr><center>{server}</center>\r\n</body>\r\n</html>\r\n"
    )
    return Reply(status, text.encode(), {"Content-Type": "text/html", "Server": server})


def _too_many(**headers: str) -> Reply:
    text = "Too many requests; please use the websocket for live updates to avoid polling the API."
    return _json(429, {"code": -1003, "msg": text}, **headers)


def _banned(hit: Hit) -> Reply:
    text = f"Way too much request weight used; IP banned until {hit.now + 1000}."
    return _json(418, {"code": -1003, "msg": text}, Retry_After="1")


def _restricted(_hit: Hit) -> Reply:
    # The code is 0: a client that looks for negative codes only takes this for a success.
    text = "Service unavailable from a restricted location according to 'b. Eligibility'."
    return _json(451, {"code": 0, "msg": text})


def _error_in_200(hit: Hit) -> Reply:
    if hit.request.path.startswith("/api/v5/"):
        return _json(200, {"code": "50011", "msg": "Too Many Requests", "data": []})
    return _json(200, {"code": -1003, "msg": "Too many requests."})


def _truncated(hit: Hit) -> Reply:
    return attrs.evolve(hit.truth, body=_half(hit.truth.body))


def _half(body: bytes) -> bytes:
    # Behind a comma between rows, if there is one: a lenient reader takes what is left for the whole.
    middle = len(body) // 2
    cut = body.rfind(b"],", 0, middle)
    return body[: cut + 1] if cut > 0 else body[:middle]


def _object(hit: Hit) -> Reply:
    return _json(200, {"rows": orjson.loads(hit.truth.body) if hit.truth.body else None})


_STARTS = ("startTime", "endTime", "after", "before")


def _wrong_window(hit: Hit) -> Reply | None:
    params = hit.request.params
    bounds = {name: int(params[name]) for name in _STARTS if params.get(name, "").isdigit()}
    if not bounds:
        return None
    away = max(86_400_000, max(bounds.values()) - min(bounds.values()))
    moved = {name: str(max(0, value - away)) for name, value in bounds.items()}
    return hit.ask(attrs.evolve(hit.request, params={**params, **moved}))


def _since_ignored(hit: Hit) -> Reply | None:
    params = {name: value for name, value in hit.request.params.items() if name not in _STARTS}
    return hit.ask(attrs.evolve(hit.request, params=params)) if params != hit.request.params else None


_REPLY_FAULTS: Mapping[FaultKind, _Fault] = MappingProxyType(
    {
        FaultKind.STATUS_429: lambda _: _too_many(Retry_After="1"),
        FaultKind.STATUS_429_DATE: lambda hit: _too_many(Retry_After=http_date(hit.now + 1999)),
        FaultKind.STATUS_429_BARE: lambda _: _too_many(),
        FaultKind.STATUS_418: _banned,
        FaultKind.STATUS_403: lambda _: _page(403, "Forbidden", "CloudFront"),
        FaultKind.STATUS_451: _restricted,
        FaultKind.STATUS_500: lambda _: _page(500, "Internal Server Error", "nginx"),
        FaultKind.STATUS_502: lambda _: _page(502, "Bad Gateway", "nginx"),
        FaultKind.STATUS_503: lambda _: _page(503, "Service Temporarily Unavailable", "nginx"),
        FaultKind.ERROR_IN_200: _error_in_200,
        FaultKind.EMPTY_BODY: lambda hit: attrs.evolve(hit.truth, body=b""),
        FaultKind.TRUNCATED_JSON: _truncated,
        FaultKind.OBJECT_INSTEAD_OF_LIST: _object,
        FaultKind.NULL: lambda hit: attrs.evolve(hit.truth, body=b"null"),
        FaultKind.WRONG_WINDOW: _wrong_window,
        FaultKind.SINCE_IGNORED: _since_ignored,
    }
)


def _with_rows(truth: Reply, fault: _RowsFault) -> Reply | None:
    content = orjson.loads(truth.body)
    envelope = content if isinstance(content, dict) else None
    rows = content if envelope is None else envelope.get("data")
    broken = fault(rows) if isinstance(rows, list) and rows else None
    if broken is None:
        return None
    body: object = broken if envelope is None else {**envelope, "data": broken}
    return attrs.evolve(truth, body=orjson.dumps(body))


def _time_key(row: _Row) -> Any:
    if isinstance(row, list):
        return 0
    return next((name for name in ("fundingTime", "timestamp") if name in row), None)


def _later(row: _Row, ms: int) -> _Row | None:
    key = _time_key(row)
    if key is None:
        return None
    changed = row.copy()
    changed[key] = type(row[key])(int(row[key]) + ms)
    return changed


def _is_decimal(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def _value_keys(row: _Row) -> list[Any]:
    """Return where a row holds its values: the places of decimal text that is not its time."""
    items = enumerate(row) if isinstance(row, list) else row.items()
    return [key for key, value in items if key != _time_key(row) and _is_decimal(value)]


def _with_value(text: str) -> _RowsFault:
    def fault(rows: list[_Row]) -> list[_Row] | None:
        row = rows[len(rows) // 2].copy()
        keys = _value_keys(row)
        if not keys:
            return None
        row[keys[min(3, len(keys) - 1)]] = text
        return [*rows[: len(rows) // 2], row, *rows[len(rows) // 2 + 1 :]]

    return fault


def _moved_row(ms: int) -> _RowsFault:
    def fault(rows: list[_Row]) -> list[_Row] | None:
        row = _later(rows[-1], ms)
        return None if row is None else [*rows[:-1], row]

    return fault


def _impossible(rows: list[_Row]) -> list[_Row] | None:
    if not isinstance(rows[0], list):
        return None
    row = rows[len(rows) // 2].copy()
    row[2], row[3] = row[3], row[2]
    if row[2] == row[3]:
        row[3] = str(2 * float(row[3]) + 1)
    return [*rows[: len(rows) // 2], row, *rows[len(rows) // 2 + 1 :]]


def _negative_volume(rows: list[_Row]) -> list[_Row] | None:
    if not isinstance(rows[0], list) or len(rows[0]) <= 5:
        return None
    row = rows[len(rows) // 2].copy()
    row[5] = "-1.5"
    return [*rows[: len(rows) // 2], row, *rows[len(rows) // 2 + 1 :]]


def _plain_numbers(rows: list[_Row]) -> list[_Row]:
    changed = [row.copy() for row in rows]
    for row in changed:
        for key in _value_keys(row):
            row[key] = float(row[key])
    return changed


_DECADE = 10 * 365 * 86_400_000
_ROWS_FAULTS: Mapping[FaultKind, _RowsFault] = MappingProxyType(
    {
        FaultKind.REVERSED_ORDER: lambda rows: rows[::-1] if len(rows) > 1 else None,
        FaultKind.SHORT_PAGE: lambda rows: rows[: len(rows) // 2] if len(rows) > 1 else None,
        FaultKind.EMPTY_PAGE: lambda _: [],
        FaultKind.REPEATED_ROWS: lambda rows: [*rows[:1], *rows[:1], *rows[1:], *rows[-1:]],
        FaultKind.UNSORTED_ROWS: lambda rows: [*rows[1::2], *rows[::2]] if len(rows) > 2 else None,
        FaultKind.OFF_GRID_ROW: _moved_row(1),
        FaultKind.OUT_OF_RANGE_ROW: _moved_row(_DECADE),
        FaultKind.IMPOSSIBLE_ROW: _impossible,
        FaultKind.NEGATIVE_VOLUME: _negative_volume,
        FaultKind.NAN_TEXT: _with_value("NaN"),
        FaultKind.HUGE_NUMBER: _with_value("1e400"),
        FaultKind.PLAIN_NUMBERS: _plain_numbers,
    }
)


def _slow_drip(reply: Reply, now: int) -> Script:
    size = max(1, -(-len(reply.body) // 10))
    pieces = [reply.body[at : at + size] for at in range(0, len(reply.body), size)]
    steps: list[bytes | float | End] = [head_of(reply, now, Content_Length=str(len(reply.body)))]
    for piece in pieces:
        steps += [0.1, piece]
    return tuple(steps)


def _cut_body(reply: Reply, now: int) -> Script:
    return (head_of(reply, now, Content_Length=str(len(reply.body))) + _half(reply.body), End.CLOSE)


def _cut_chunks(reply: Reply, now: int) -> Script:
    half = _half(reply.body)
    return (head_of(reply, now, Transfer_Encoding="chunked") + b"%x\r\n%b\r\n" % (len(half), half), End.CLOSE)


def _reset(reply: Reply, now: int) -> Script:
    head = head_of(reply, now, Content_Length=str(len(reply.body)))
    # The pause lets the first half arrive: a reset discards what the other side has not read yet.
    return (head + _half(reply.body), 0.02, End.RESET)


_WIRE_FAULTS: Mapping[FaultKind, Callable[[Reply, int], Script]] = MappingProxyType(
    {
        FaultKind.HANG: lambda _reply, _now: (End.HANG,),
        FaultKind.SLOW_DRIP: _slow_drip,
        FaultKind.CUT_BODY: _cut_body,
        FaultKind.CUT_CHUNKS: _cut_chunks,
        FaultKind.RESET: _reset,
    }
)
