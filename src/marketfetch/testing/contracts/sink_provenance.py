"""The store contract for provenance: which files of archives the rows of a series came from."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from marketfetch.protocols import Store, SupportsForget, SupportsProvenance
from marketfetch.testing.contracts.sink_cases import (
    EVER,
    batch_of,
    batch_without_rows,
    minutes,
    series_of,
    write,
)
from marketfetch.values.archives import Provenance
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet

__all__ = ["ProvenanceContract"]


class ProvenanceContract:
    """Tests 32 to 36 of `SinkContract`, skipped for stores without SupportsProvenance."""

    lasting: ClassVar[bool]

    def make_store(self, place: Path) -> Store:
        """Return the store of a path; see `SinkContract`."""
        raise NotImplementedError("override make_store(place)")

    def test_32_the_files_of_rows_are_known_with_the_rows(self, store: Store, place: Path) -> None:
        """One entry for each file, sorted by span, of this series alone; rows of an API add none."""
        keeper, series, other = _provenance_store(store), series_of(), series_of(symbol="ETHUSDT")
        late, early = _file('b\'s "2".zip', 60, 120), _file("数据/a.zip", 0, 60)
        write(store, _from_file(series, late), _from_file(series, early), _from_file(other, early))
        write(store, batch_of(series, range(120, 130)), _from_file(series_of(interval="1h"), None))
        assert list(keeper.provenance(series)) == [early, late]
        assert list(keeper.provenance(other)) == [early]
        assert list(keeper.provenance(series_of(symbol="XRPUSDT"))) == []
        assert list(keeper.provenance(series_of(interval="1h"))) == []
        if self.lasting:
            assert list(_provenance_store(self.make_store(place)).provenance(series)) == [early, late]

    def test_33_a_file_that_was_issued_anew_replaces_its_entry(self, store: Store) -> None:
        """Batches of one file have one entry; the same batch again changes nothing."""
        keeper, series, other = _provenance_store(store), series_of(), _file("b.zip", 60, 120)
        first = _file("a.zip", 0, 60)
        again = attrs.evolve(first, size=7, modified=first.modified + 1, digest="0b" * 32, verified=False)
        write(store, _from_file(series, first), _from_file(series, other), _from_file(series, first))
        assert list(keeper.provenance(series)) == [first, other]
        for _ in range(2):
            write(store, _from_file(series, again))
            assert list(keeper.provenance(series)) == [again, other]

    def test_34_a_file_without_rows_is_known(self, store: Store) -> None:
        """A file may tell that moments are empty, also beside rows that were stored before."""
        keeper, series = _provenance_store(store), series_of()
        empty = [_file("a.zip", 0, 60), _file("b.zip", 60, 120)]
        for number, entry in enumerate(empty):
            if number:
                write(store, batch_of(series, range(30)))
            nothing = batch_without_rows(series, empty=[entry.span])
            write(store, attrs.evolve(nothing, provenance=entry))
        assert list(keeper.provenance(series)) == empty

    @pytest.mark.parametrize("rows", [False, True])
    def test_35_a_file_is_forgotten_with_its_whole_span(self, store: Store, *, rows: bool) -> None:
        """A file of which a part is forgotten stays known, with or without its rows."""
        keeper, series, other = _provenance_store(store), series_of(), series_of(dataset="mark_price")
        if not isinstance(store, SupportsForget):
            pytest.skip("this store cannot forget")
        files = [_file(f"{hour}.zip", 60 * hour, 60 * hour + 60) for hour in range(4)]
        write(store, *(_from_file(series, entry) for entry in files), _from_file(other, files[0]))
        store.forget(series, SpanSet.of(minutes(0, 59), minutes(60, 121), minutes(190, 191)), rows=rows)
        assert list(keeper.provenance(series)) == [files[0], files[2], files[3]]
        store.forget(series, SpanSet.of(EVER), rows=rows)
        assert list(keeper.provenance(series)) == []
        assert list(keeper.provenance(other)) == files[:1]
        write(store, _from_file(series, files[1]))
        assert list(keeper.provenance(series)) == files[1:2]

    def test_36_what_is_known_of_many_files_is_kept(self, store: Store) -> None:
        """Hundreds of daily files are hundreds of entries."""
        keeper, series = _provenance_store(store), series_of(interval="1h")
        files = [_file(f"{day:04}.zip", 1440 * day, 1440 * day + 1440) for day in range(300)]
        write(
            store,
            *(attrs.evolve(batch_without_rows(series, empty=[one.span]), provenance=one) for one in files),
        )
        assert list(keeper.provenance(series)) == files
        if isinstance(store, SupportsForget):
            store.forget(series, SpanSet.of(minutes(0, 1440 * 299)))
            assert list(keeper.provenance(series)) == files[299:]


def _provenance_store(store: Store) -> SupportsProvenance:
    if not isinstance(store, SupportsProvenance):
        pytest.skip("this store keeps no provenance")
    return store


def _file(key: str, first: int, end: int) -> Provenance:
    """Return the entry of a file of some minutes, counted from START."""
    span = minutes(first, end)
    return Provenance(key, span, 1_000_000_000_000 + first, span.end + 123, "9f" * 32, verified=True)


def _from_file(series: Series, entry: Provenance | None) -> Batch:
    """Return a batch with some rows of the file."""
    first = 0 if entry is None else (entry.span.start - minutes(0, 1).start) // 60_000
    return attrs.evolve(batch_of(series, range(first, first + 60, 20)), provenance=entry)
