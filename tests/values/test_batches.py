"""A batch that is split says the same as before, in two parts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.rejected_rows import RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import MINUTE, START, candles

FILE = Provenance("a.zip", Span(0, 1), 1, 0, "9f86d0", verified=True)
EVENTS = Series.of("binance-usdm", "funding_rate", "BTCUSDT", "event")


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Batches of candles and of events whose minutes are present, empty, unusable or missing."""
    series = draw(st.sampled_from([candles(), EVENTS]))
    verdicts = draw(st.lists(st.sampled_from("peu-"), min_size=2, max_size=30))
    minutes = [Span(START + MINUTE * n, START + MINUTE * (n + 1)) for n in range(len(verdicts))]
    spans = {
        verdict: SpanSet.of(*(span for span, one in zip(minutes, verdicts, strict=True) if one in verdict))
        for verdict in ("p", "e", "u", "peu")
    }
    times = np.array(
        [span.start for span, one in zip(minutes, verdicts, strict=True) if one == "p"], np.int64
    )
    if series is EVENTS:
        times += 7  # amid what is covered
    values = np.tile(np.arange(len(times), dtype=float), (len(series.dataset.columns), 1))
    rejected = [
        RejectedRow(span.start + 3, "off the grid", "[]")
        for span, one in zip(minutes, verdicts, strict=True)
        if one == "u"
    ]
    coverage = Coverage(spans["peu"], spans["e"], spans["u"])
    return Batch(
        series, Columns(times, values), coverage, tuple(rejected), draw(st.sampled_from([None, FILE]))
    )


@given(batches().filter(lambda batch: batch.rows > 1), st.data())
def test_the_parts_of_a_batch_are_the_batch(whole: Batch, data: st.DataObject) -> None:
    first, second = whole.split(rows := data.draw(st.integers(1, whole.rows - 1)))
    assert first.rows == rows
    joined = Columns.join([first.columns, second.columns])
    assert np.array_equal(joined.times, whole.columns.times)
    assert np.array_equal(joined.values, whole.columns.values)
    assert (first.coverage | second.coverage) == whole.coverage
    assert not first.coverage.covered & second.coverage.covered
    assert first.rejected + second.rejected == whole.rejected
    for part in (first, second):
        assert part.series == whole.series
        assert part.provenance is whole.provenance
        assert all(int(time) in part.coverage.present for time in part.columns.times)
        assert all(row.time in part.coverage.unusable for row in part.rejected)
