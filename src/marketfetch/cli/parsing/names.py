"""The names that options take: exchanges, datasets, intervals and kinds of what is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

__all__ = ["served_names"]


@cache
def served_names() -> Mapping[str, Sequence[str]]:
    """Return the names of all that the installed exchanges serve, by the dest of the option; no request.

    >>> served_names()["kind"]
    ('spot', 'perpetual', 'future')
    """
    # Adapters take long to import: this is for the help and for completion scripts.
    from marketfetch.api.discovery import datasets, intervals
    from marketfetch.api.plugins import exchanges
    from marketfetch.values.instruments import KINDS
    from marketfetch.values.intervals import Interval

    venues = exchanges()
    served = {name for venue in venues for kind in datasets(venue) for name in intervals(venue, kind)}
    return {
        "exchange": venues,
        "dataset": sorted({name for venue in venues for name in datasets(venue)}),
        "interval": sorted(served - {"event"}, key=lambda name: Interval.parse(name).typical),
        "kind": KINDS,
    }
