from __future__ import annotations

from marketfetch.values.series import Series


def test_a_series_fits_on_a_line_though_its_dataset_has_columns() -> None:
    shown = repr(Series.of("okx", "ohlcv", "BTC-USDT", "1h"))
    assert "'ohlcv'" in shown
    assert "Column(" not in shown
