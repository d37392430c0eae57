"""Decides whether `fetch` returns one table, or a table for each of several datasets and intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import attrs

from marketfetch.api.tables.table import Table
from marketfetch.common.name_lists import names_of
from marketfetch.errors import ConfigurationError
from marketfetch.redaction import redact
from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import EVENT, Interval
from marketfetch.values.query import Query

__all__ = ["TableKeys", "Tables"]

Tables = Table | dict[str, Table] | dict[tuple[str, str], Table]


@attrs.frozen
class TableKeys:
    """The datasets and intervals of a call, and which of the two were given as lists.

    >>> TableKeys.of(["ohlcv", "funding_rate"], "1h").by_dataset
    True
    """

    datasets: tuple[Dataset, ...]
    intervals: tuple[Interval, ...]
    by_dataset: bool
    by_interval: bool

    @classmethod
    def of(cls, dataset: object, interval: object) -> Self:
        """Read the arguments of a call.

        Raises ConfigurationError for unknown names, for empty lists, and for a text with several names.
        """
        kinds, by_dataset = _several("dataset", dataset, str | Dataset)
        _refuse_text_of_several("dataset", dataset)
        steps, by_interval = _several("interval", interval, str | Interval)
        if isinstance(interval, str) and "," in interval:  # not '1 h', which has one meaning
            _refuse_text_of_several("interval", interval)
        datasets = dict.fromkeys(map(Dataset.parse, kinds))
        intervals = dict.fromkeys(map(Interval.parse, steps))
        return cls(tuple(datasets), tuple(intervals), by_dataset, by_interval)

    def queries(self, query: Query) -> list[Query]:
        """Return the query for each interval; event datasets have no interval, and are in the first one."""
        grids = tuple(dataset for dataset in self.datasets if not dataset.event)
        later = self.intervals[1:] if grids else ()
        return [query, *(attrs.evolve(query, interval=interval, datasets=grids) for interval in later)]

    def arrange(self, tables: Mapping[tuple[Dataset, Interval], Table]) -> Tables:
        """Return one table, or a dictionary by dataset, by interval, or by both, as the call was."""
        wanted = dict.fromkeys(
            (dataset, EVENT if dataset.event else interval)
            for dataset in self.datasets
            for interval in self.intervals
        )
        found = {(dataset.name, interval.name): tables[dataset, interval] for dataset, interval in wanted}
        if self.by_dataset and self.by_interval:
            return found
        if self.by_dataset or self.by_interval:
            return {key[0 if self.by_dataset else 1]: table for key, table in found.items()}
        return next(iter(found.values()))


def _several(argument: str, given: object, single: Any) -> tuple[list[Any], bool]:
    """Return the values of an argument as a list, and whether the caller gave several.

    Example: `"1m"` is `(["1m"], False)`, and `["1m"]` is `(["1m"], True)`.
    """
    if isinstance(given, single) or not isinstance(given, Iterable):
        return [given], False
    several = list(given)
    if not several:
        raise ConfigurationError(f"{argument}: the list is empty; name one or more")
    return several, True


def _refuse_text_of_several(argument: str, given: object) -> None:
    if isinstance(given, str) and len(names := names_of(argument, given)) > 1:
        raise ConfigurationError(
            f"{argument}: {redact(repr(given))} names {len(names)}, and a table holds one; "
            f"for a table of each write a list: {list(names)}"
        )
