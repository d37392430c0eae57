"""All parts and parameters of a run."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from marketfetch.engine.discovery import check_query
from marketfetch.engine.session import SessionState
from marketfetch.engine.writers import Deliver
from marketfetch.errors import ConfigurationError
from marketfetch.events import Listener
from marketfetch.exchange import Exchange
from marketfetch.protocols import Fetcher, ProxyPool, Sharing, Sink, Store
from marketfetch.values.pages import Batch
from marketfetch.values.query import Query
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span

__all__ = ["RunConfig"]


async def _sink_only(batch: Batch) -> None:
    """Deliver a batch to nobody: the sink has it already."""


@attrs.frozen(eq=False)
class RunConfig:
    """All parts and parameters of a run."""

    exchange: Exchange
    query: Query
    sink: Sink
    session: SessionState
    """The pool, the fetcher, and what is known from earlier runs."""
    settings: Settings
    emit: Listener
    deliver: Deliver = _sink_only
    """Called with every durable batch; the writer thread waits until it returns."""
    sharing: Sharing = attrs.field(factory=Sharing)
    """The other processes with which the pool's addresses are shared."""
    spans: Mapping[Series, Span] = attrs.field(factory=dict)
    """The series of which only a part of the query's span is wanted."""

    @property
    def pool(self) -> ProxyPool:
        """The proxy pool."""
        return self.session.pool

    @property
    def fetcher(self) -> Fetcher:
        """The transport."""
        return self.session.fetcher

    def check(self) -> None:
        """Raise ConfigurationError for a query that is certain to fail, before any request is made."""
        check_query(self.query, self.exchange, self.settings.clock())
        datasets = self.query.datasets
        if self.query.sources == "archive" and not any(map(self.exchange.archive, datasets)):
            raise ConfigurationError(
                f"sources: {self.exchange.name} at {self.exchange.base_url} has no archive of "
                f"{', '.join(map(str, datasets))}; write sources='auto'"
                f"{self.exchange.where_files_are(datasets)}"
            )
        if self.query.composites and not isinstance(self.sink, Store):
            raise ConfigurationError(
                "composites: need a sink that can be read back, such as DuckDB or PostgreSQL"
            )
