"""Turn a correct reply into a faulty one: refusals, broken bodies, other windows, wrong clocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs
import msgspec

from marketfetch.testing.faults.kinds import FaultKind
from marketfetch.testing.faults.rows import rows_broken_by
from marketfetch.testing.http.messages import (
    ServerReply,
    ServerRequest,
    format_http_date,
    html_reply,
    json_reply,
)
from marketfetch.testing.http.script import truncate

__all__ = ["FaultContext", "apply_response_fault"]

_MINUTE = 60_000
_HOUR = 60 * _MINUTE
_YEAR = 365 * 24 * _HOUR


@attrs.frozen
class FaultContext:
    """A request with a fault: its correct reply, and `ask`, which returns the reply to another one."""

    request: ServerRequest
    truth: ServerReply
    now: int
    ask: Callable[[ServerRequest], ServerReply]


_Fault = Callable[[FaultContext], "ServerReply | None"]


def apply_response_fault(kind: FaultKind, context: FaultContext) -> ServerReply | None:
    """Return the faulty reply; None if this fault cannot be applied to such a reply.

    Faults of the connection leave the reply unchanged: `transport` applies them.
    """
    if kind in _REPLY_FAULTS:
        return _REPLY_FAULTS[kind](context)
    return rows_broken_by(kind, context.truth)


def _json(status: int, content: object, **headers: str) -> ServerReply:
    return json_reply(content, status, {name.replace("_", "-"): value for name, value in headers.items()})


def _page(status: int, title: str, server: str) -> ServerReply:
    text = (
        f"<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {title}</h1></center>\r\n"
        f"<hr><center>{server}</center>\r\n</body>\r\n</html>\r\n"
    )
    return html_reply(status, text.encode(), Server=server)


def _is_okx(request: ServerRequest) -> bool:
    return request.path.startswith("/api/v5/")


def _too_many(context: FaultContext, **headers: str) -> ServerReply:
    if _is_okx(context.request):
        return _json(429, {"code": "50011", "msg": "Too Many Requests", "data": []}, **headers)
    text = "Too many requests; please use the websocket for live updates to avoid polling the API."
    return _json(429, {"code": -1003, "msg": text}, **headers)


def _banned(end: str = "", **headers: str) -> ServerReply:
    return _json(418, {"code": -1003, "msg": f"Way too much request weight used; IP banned{end}."}, **headers)


def _until(context: FaultContext) -> str:
    return f" until {context.now + 1000}"


def _restricted(_context: FaultContext) -> ServerReply:
    # The code is 0, as in reality: a client that looks only for negative codes would see a success.
    text = "Service unavailable from a restricted location according to 'b. Eligibility'."
    return _json(451, {"code": 0, "msg": text})


def _error_in_200(context: FaultContext) -> ServerReply:
    if _is_okx(context.request):
        return _json(200, {"code": "50011", "msg": "Too Many Requests", "data": []})
    return _json(200, {"code": -1003, "msg": "Too many requests."})


def _truncated(context: FaultContext) -> ServerReply:
    return attrs.evolve(context.truth, body=truncate(context.truth.body))


def _object(context: FaultContext) -> ServerReply:
    return _json(200, {"rows": msgspec.json.decode(context.truth.body) if context.truth.body else None})


_STARTS = ("startTime", "endTime", "after", "before")


def _moved(context: FaultContext, least: int) -> ServerReply | None:
    """Return the reply for an earlier window: at least `least` ms earlier, and not overlapping this one."""
    params = context.request.params
    bounds = {name: int(params[name]) for name in _STARTS if params.get(name, "").isdigit()}
    if not bounds:
        return None
    away = max(least, max(bounds.values()) - min(bounds.values()) + 1)
    moved = {name: str(max(0, value - away)) for name, value in bounds.items()}
    return context.ask(attrs.evolve(context.request, params={**params, **moved}))


def _since_ignored(context: FaultContext) -> ServerReply | None:
    params = {name: value for name, value in context.request.params.items() if name not in _STARTS}
    return (
        context.ask(attrs.evolve(context.request, params=params))
        if params != context.request.params
        else None
    )


def _redirect(status: int, target: str) -> ServerReply:
    return ServerReply(status, b"", {"Location": target})


def _clock(context: FaultContext, ahead: int) -> ServerReply | None:
    """Return a server time that is `ahead` ms ahead; None for routes that return no time."""
    if not context.request.path.endswith("/time"):
        return None
    if _is_okx(context.request):
        return _json(200, {"code": "0", "msg": "", "data": [{"ts": str(context.now + ahead)}]})
    return _json(200, {"serverTime": context.now + ahead})


def _dated(context: FaultContext, ahead: int) -> ServerReply:
    return attrs.evolve(
        context.truth, headers={**context.truth.headers, "Date": format_http_date(context.now + ahead)}
    )


_REPLY_FAULTS: Mapping[FaultKind, _Fault] = MappingProxyType(
    {
        FaultKind.STATUS_429: lambda context: _too_many(context, Retry_After="1"),
        FaultKind.STATUS_429_DATE: lambda context: _too_many(
            context, Retry_After=format_http_date(context.now + 1999)
        ),
        FaultKind.STATUS_429_BARE: _too_many,
        FaultKind.STATUS_429_PAST: lambda context: _too_many(
            context, Retry_After=format_http_date(context.now - _HOUR)
        ),
        FaultKind.STATUS_429_NEGATIVE: lambda context: _too_many(context, Retry_After="-30"),
        FaultKind.STATUS_429_DAYS: lambda context: _too_many(context, Retry_After="172800"),
        FaultKind.STATUS_429_ABSURD: lambda context: _too_many(context, Retry_After="1000000000"),
        FaultKind.STATUS_429_RUBBISH: lambda context: _too_many(context, Retry_After="soon"),
        FaultKind.STATUS_418: lambda context: _banned(_until(context), Retry_After="1"),
        FaultKind.STATUS_418_TEXT: lambda context: _banned(_until(context)),
        FaultKind.STATUS_418_BARE: lambda _: _banned(),
        FaultKind.STATUS_403: lambda _: _page(403, "Forbidden", "CloudFront"),
        FaultKind.STATUS_403_LOCATION: lambda _: _page(
            403, "The distribution is configured to block access from your country", "CloudFront"
        ),
        FaultKind.STATUS_451: _restricted,
        FaultKind.STATUS_451_PAGE: lambda _: _page(451, "Unavailable For Legal Reasons", "nginx"),
        FaultKind.REDIRECT_AWAY: lambda context: _redirect(
            302, f"http://127.0.0.99:9{context.request.target}"
        ),
        FaultKind.REDIRECT_LOOP: lambda context: _redirect(301, context.request.target),
        FaultKind.STATUS_500: lambda _: _page(500, "Internal Server Error", "nginx"),
        FaultKind.STATUS_502: lambda _: _page(502, "Bad Gateway", "nginx"),
        FaultKind.STATUS_503: lambda _: _page(503, "Service Temporarily Unavailable", "nginx"),
        FaultKind.ERROR_IN_200: _error_in_200,
        FaultKind.PAGE_IN_200: lambda _: _page(200, "Welcome to nginx!", "nginx"),
        FaultKind.EMPTY_BODY: lambda context: attrs.evolve(context.truth, body=b""),
        FaultKind.TRUNCATED_JSON: _truncated,
        FaultKind.OBJECT_INSTEAD_OF_LIST: _object,
        FaultKind.NULL: lambda context: attrs.evolve(context.truth, body=b"null"),
        FaultKind.WRONG_WINDOW: lambda context: _moved(context, least=24 * _HOUR),
        FaultKind.REPEATED_PAGE: lambda context: _moved(context, least=_MINUTE),
        FaultKind.SINCE_IGNORED: _since_ignored,
        FaultKind.CLOCK_HOURS_AHEAD: lambda context: _clock(context, 2 * _HOUR),
        FaultKind.CLOCK_HOURS_BEHIND: lambda context: _clock(context, -2 * _HOUR),
        FaultKind.CLOCK_YEARS_AHEAD: lambda context: _clock(context, 10 * _YEAR),
        FaultKind.CLOCK_YEARS_BEHIND: lambda context: _clock(context, -10 * _YEAR),
        FaultKind.DATE_AHEAD: lambda context: _dated(context, _YEAR),
        FaultKind.DATE_BEHIND: lambda context: _dated(context, -_YEAR),
    }
)
