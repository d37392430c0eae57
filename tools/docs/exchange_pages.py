"""Write a page in Markdown about an exchange, from its adapter.

python -m tools.docs.exchange_pages okx    # any installed exchange
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime
from inspect import cleandoc

from marketfetch.adapter import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Archive,
    CalendarPeriod,
    Endpoint,
    Exchange,
    Grain,
    Interval,
    LimitPool,
    Request,
    Series,
    Slice,
    Span,
)
from marketfetch.api.discovery import intervals
from marketfetch.api.plugins import exchange_from, exchanges

__all__ = ["MARK", "built_in", "page", "pages", "table_of_exchanges"]

MARK = "<!-- the table of exchanges -->"
"""What stands in a page where the site has the table of exchanges."""
Row = tuple[str, ...]

_UNITS = ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (SECOND, "second"))
_SOME_DAY = date(2026, 6, 1)
"""The day in the examples of paths."""


def table_of_exchanges(link: Callable[[str], str] | None = None) -> str:
    """Return the table of the built-in exchanges and their datasets; `link` gives the address of a page."""
    rows = (
        (f"[`{name}`]({link(name)})" if link else f"`{name}`", _codes(_datasets(name))) for name in built_in()
    )
    return _table(("exchange", "datasets"), rows)


def pages() -> dict[str, str]:
    """Return the pages of the built-in exchanges, and of all of them together, by their paths."""
    index = f"""# Exchanges

{table_of_exchanges(lambda name: f"{name}.md")}

`marketfetch exchanges` lists what is installed. You can [add an exchange](../adapters.md).
"""
    each = {f"exchanges/{name}.md": page(exchange_from(name)) for name in built_in()}
    return {"exchanges/index.md": index, **each}


def page(exchange: Exchange) -> str:
    """Return the page about an exchange."""
    endpoints = [exchange.endpoint(name) for name in _datasets(exchange)]
    archives = [found for each in endpoints if (found := exchange.archive(each.dataset_type)) is not None]
    symbol = next(iter(exchange.symbol_examples.values()), "SYMBOL")
    parts = [
        f"# {exchange.name}",
        _first_paragraph(exchange),
        _example(exchange, endpoints[0], symbol),
        *_spellings(exchange),
        "## Datasets",
        _table(("dataset", "intervals", "history", "published after"), _served(exchange, endpoints)),
        _table(
            ("dataset", "requested from", "columns"),
            (
                (f"`{each.dataset}`", f"`{_route(exchange, each, symbol)}`", _codes(each.dataset_type.names))
                for each in endpoints
            ),
        ),
        "## Limits",
        f"Each address has these limits at `{exchange.default_url}`{_counted_with(exchange, endpoints)}:",
        _table(("limit", "units", "counted", "header with the used part"), _limits(exchange)),
        "Rows are requested in pages. `marketfetch plan` says what a job costs.",
        _table(("what is requested", "rows in a page", "units of", "cost"), _costs(exchange, endpoints)),
        *_archives(exchange, archives, symbol),
        *_quirks(exchange),
    ]
    return "\n\n".join(parts) + "\n"


def built_in() -> list[str]:
    """Return the names of the exchanges that come with marketfetch."""
    inside = "marketfetch.adapters."
    return [name for name in exchanges() if type(exchange_from(name)).__module__.startswith(inside)]


def _datasets(exchange: str | Exchange) -> list[str]:
    """Return the datasets in the order in which the adapter has them."""
    sources = exchange_from(exchange).sources
    return [kind.dataset for kind in sources if issubclass(kind, Endpoint)]


def _first_paragraph(exchange: Exchange) -> str:
    return " ".join((type(exchange).__doc__ or "").partition("\n\n")[0].split())


def _example(exchange: Exchange, endpoint: Endpoint, symbol: str) -> str:
    served = intervals(exchange, endpoint.dataset)
    interval = "1h" if "1h" in served else served[0]
    start, end = date(2026, 6, 1), date(2026, 6, 8)
    return f"""```console
$ marketfetch backfill -e {exchange.name} -s {symbol} -d {endpoint.dataset} -i {interval} \\
      --start 20d -t sqlite:market.sqlite
```

```python
import marketfetch as mf

table = mf.fetch(
    "{exchange.name}", "{endpoint.dataset}", "{symbol}", interval="{interval}", start="{start}", end="{end}"
)
```"""


def _spellings(exchange: Exchange) -> Iterator[str]:
    if exchange.symbol_examples:
        yield "## Symbols"
        yield "Both spellings are understood; the store has that of the exchange."
        rows = ((f"`{unified}`", f"`{symbol}`") for unified, symbol in exchange.symbol_examples.items())
        yield _table(("unified", "exchange"), rows)


def _route(exchange: Exchange, endpoint: Endpoint, symbol: str) -> str:
    request = endpoint.request(_some_slice(exchange, endpoint, symbol))
    return f"{request.method} {request.path}"


def _some_slice(exchange: Exchange, endpoint: Endpoint, symbol: str) -> Slice:
    interval = intervals(exchange, endpoint.dataset)[0]
    end = round(datetime.combine(_SOME_DAY, datetime.min.time(), UTC).timestamp() * 1000)
    series = Series.of(exchange.name, endpoint.dataset, symbol, interval)
    return Slice(series, Span(end - DAY, end), endpoint.page_sizes[0])


def _served(exchange: Exchange, endpoints: Iterable[Endpoint]) -> Iterator[Row]:
    return _grouped(
        (
            f"`{each.dataset}`",
            (
                _codes(intervals(exchange, each.dataset)),
                "all" if each.retention is None else _at_most(each.retention),
                _duration(each.publish_delay),
            ),
        )
        for each in endpoints
    )


def _limits(exchange: Exchange) -> Iterator[Row]:
    costs = [exchange.endpoint(name).cost(1) for name in _datasets(exchange)]
    costs += [request.cost for request in _other_requests(exchange).values()]
    for pool in dict.fromkeys(cost.pool for cost in costs):
        counted = "in each" if pool.window == "clock" else "in any"
        header = f"`{pool.used_header}`" if pool.used_header else "none"
        shorter = [] if pool.burst is None else [(pool.burst.capacity, pool.burst.period, "none")]
        for capacity, period, told in ((pool.capacity, pool.period, header), *shorter):
            span = f"{counted} {_duration(period).removeprefix('1 ')}"
            yield _short_name(exchange, pool), f"{capacity:,}", span, told


def _costs(exchange: Exchange, endpoints: Iterable[Endpoint]) -> Iterator[Row]:
    yield from _grouped(
        (
            f"`{each.dataset}`",
            (
                " / ".join(f"{size:,}" for size in each.page_sizes),
                _short_name(exchange, each.cost(1).pool),
                " / ".join(str(each.cost(size).weight) for size in each.page_sizes),
            ),
        )
        for each in endpoints
    )
    for name, request in _other_requests(exchange).items():
        yield name, "", _short_name(exchange, request.cost.pool), str(request.cost.weight)


def _other_requests(exchange: Exchange) -> dict[str, Request]:
    """Return the requests for the listing and the clock."""
    listing, clock = exchange.listing_requests(), exchange.time_request()
    found = {"the listing of symbols": listing[0]} if listing else {}
    return found if clock is None else {**found, "the clock": clock}


def _short_name(exchange: Exchange, pool: LimitPool) -> str:
    return pool.name.partition(" ")[2] if pool.hosts else pool.name.removeprefix(exchange.name).strip()


def _counted_with(exchange: Exchange, endpoints: list[Endpoint]) -> str:
    """Name the other hosts whose requests some of the limits count, too."""
    pools = {each.cost(1).pool for each in endpoints}
    hosts = {host for pool in pools for host in pool.hosts} - {exchange.default_url}
    return "".join(f"; weight and statistics are counted together with `{host}`" for host in sorted(hosts))


def _archives(exchange: Exchange, archives: list[Archive], symbol: str) -> Iterator[str]:
    if not archives:
        return
    yield "## Files"
    yield "Months of history come from public files where that is sooner; see [archives](../archives.md)."
    yield _table(
        ("dataset", "intervals", "a file has", "example"),
        (row for archive in archives for row in _files(exchange, archive, symbol)),
    )
    lines = dict.fromkeys(line for archive in archives for line in _facts(exchange, archive))
    yield "\n".join(f"- {line}" for line in lines)


def _files(exchange: Exchange, archive: Archive, symbol: str) -> Iterator[Row]:
    """Yield a row of the table for the intervals that have the same kinds of files."""
    by_grains: dict[tuple[Grain, ...], list[str]] = {}
    for name in archive.intervals:
        by_grains.setdefault(tuple(archive.grains(Interval.parse(name))), []).append(name)
    for grains, names in by_grains.items():
        series = Series.of(exchange.name, archive.dataset, symbol, names[0])
        period = CalendarPeriod(_SOME_DAY, grains[-1], archive.utc_offset)
        what = " or ".join(f"a {grain}" for grain in grains)
        yield f"`{archive.dataset}`", _codes(names), what, f"`{archive.key(series, period)}`"


def _facts(exchange: Exchange, archive: Archive) -> Iterator[str]:
    yield f"Files are at `{archive.files_url}`" + (
        f", their list at `{archive.listing_url}`." if archive.listing_url else "; there is no list of them."
    )
    series = Series.of(exchange.name, archive.dataset, "SYMBOL", next(iter(archive.intervals)))
    period = CalendarPeriod(_SOME_DAY, archive.grains(series.interval)[-1], archive.utc_offset)
    digest = archive.checksum_request(archive.key(series, period))
    yield "Each file has a published SHA-256, which is checked." if digest else "There are no digests."
    if archive.since:
        yield f"The oldest file is of {datetime.fromtimestamp(archive.since / 1000 + 86_400, UTC):%B %Y}."
    if archive.publish_delay:
        yield f"A file is requested {_duration(archive.publish_delay)} after its end, not sooner."
    cost = archive.cost()
    published = "a published limit" if cost.pool.published else "a limit of ours, since none is published"
    yield f"{cost.pool.capacity:,} requests in {_duration(cost.pool.period)} to the files: {published}."


def _quirks(exchange: Exchange) -> Iterator[str]:
    lists = [vars(kind).get("quirks", "") for kind in type(exchange).__mro__]
    if any(lists):
        yield "## What to know"
        yield "\n".join(cleandoc(each) for each in lists if each)


def _at_most(ms: int) -> str:
    """Return a depth of history in days, rounded up."""
    return f"{-(-ms // DAY)} days"


def _duration(ms: int) -> str:
    """Return a duration in the largest unit that has no fraction.

    >>> _duration(0), _duration(60_000), _duration(300_000)
    ('at once', '1 minute', '5 minutes')
    """
    if ms == 0:
        return "at once"
    for unit, name in _UNITS:
        if ms % unit == 0:
            return f"{ms // unit} {name}{'s' if ms > unit else ''}"
    return f"{ms:,} ms"


def _codes(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


def _grouped(rows: Iterable[tuple[str, Row]]) -> Iterator[Row]:
    """Merge the rows that differ in nothing but their names."""
    names: dict[Row, list[str]] = {}
    for name, rest in rows:
        names.setdefault(rest, []).append(name)
    for rest, alike in names.items():
        yield " ".join(alike), *rest


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = (f"| {' | '.join(line)} |" for line in (head, *rows))
    return "\n".join((next(lines), f"|{'---|' * len(head)}", *lines))


if __name__ == "__main__":
    print(page(exchange_from(sys.argv[1])))
