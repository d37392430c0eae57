"""Text of Binance's metrics files: whose end or start a time is, and the shares that follow from a ratio."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.adapters.binance_coinm import CoinmOpenInterestFiles
from marketfetch.adapters.binance_usdm import LongShortRatioFiles, OpenInterestFiles
from marketfetch.decoding.layouts import DecodedRows
from marketfetch.errors import DecodeError
from marketfetch.sources import Archive
from marketfetch.values.series import Series
from tests.support.worlds import MINUTE, span_of

HEADER = (
    "create_time,symbol,sum_open_interest,sum_open_interest_value,count_toptrader_long_short_ratio,"
    "sum_toptrader_long_short_ratio,count_long_short_ratio,sum_taker_long_short_vol_ratio"
)


def decoded(archive: Archive, day: str, lines: Iterable[str], symbol: str = "BTCUSDT") -> DecodedRows:
    """Decode the file of a day with a header and some lines."""
    market = "binance-coinm" if symbol.endswith("_PERP") else "binance-usdm"
    series = Series.of(market, archive.dataset, symbol, "5m")
    period = archive.period_of(series, f"{symbol}-metrics-{day}.zip")
    assert period is not None
    text = "\n".join([HEADER, *lines]).encode()
    (rows,) = archive.layout.decode([text], series, period.span)
    return rows


def line(time: str, symbol: str = "BTCUSDT", ratio: str = "1.5") -> str:
    return f"{time},{symbol},98666.163,2236289208.1972670000000000,0.7666,1.1363,{ratio},0.9253"


def moments(*times: str) -> list[int]:
    return [span_of(f"{time}Z", "2030-01-01").start for time in times]


def test_a_time_becomes_the_end_of_its_period() -> None:
    ends = decoded(
        OpenInterestFiles(), "2026-06-24", [line("2026-06-24 00:05:00"), line("2026-06-25 00:00:00")]
    )
    assert ends.columns.times.tolist() == moments("2026-06-24T00:05", "2026-06-25T00:00")
    starts = decoded(
        OpenInterestFiles(), "2026-06-25", [line("2026-06-25 00:00:00"), line("2026-06-25 23:55:00")]
    )
    assert starts.columns.times.tolist() == moments("2026-06-25T00:05", "2026-06-26T00:00")


def test_coin_margined_files_always_have_starts_and_base_coin_is_field_3() -> None:
    rows = decoded(
        CoinmOpenInterestFiles(), "2022-06-24", [line("2022-06-24 00:00:00", "BTCUSD_PERP")], "BTCUSD_PERP"
    )
    assert rows.columns.times.tolist() == moments("2022-06-24T00:05")
    assert rows.columns.values[0].tolist() == [2236289208.197267]
    assert np.isnan(rows.columns.values[1]).all()


@pytest.mark.parametrize(
    ("day", "times", "kind"),
    [
        ("2026-06-24", ["2026-06-24 00:00:00", "2026-06-24 23:55:00"], "ends"),
        ("2026-06-25", ["2026-06-25 00:05:00", "2026-06-26 00:00:00"], "starts"),
    ],
)
def test_a_file_with_times_of_the_other_kind_is_refused(day: str, times: list[str], kind: str) -> None:
    """A file that is issued anew may have the other kind: five minutes of look-ahead in each row."""
    with pytest.raises(DecodeError, match=f"expected times of the {kind} of periods"):
        decoded(OpenInterestFiles(), day, map(line, times))


def test_one_row_of_the_day_before_makes_no_other_kind() -> None:
    times = ["2026-06-24 00:00:00", "2026-06-24 00:05:00", "2026-06-25 00:00:00"]
    assert len(decoded(OpenInterestFiles(), "2026-06-24", map(line, times)).columns) == 3


def test_a_file_of_one_row_a_day_is_refused() -> None:
    with pytest.raises(DecodeError, match="expected a time as field 0, found '2023-01-21,BTCUSDT"):
        decoded(OpenInterestFiles(), "2023-01-21", [line("2023-01-21")])


def test_blank_fields_are_no_values() -> None:
    rows = decoded(LongShortRatioFiles(), "2024-01-21", [line("2024-01-21 00:05:00", ratio="")])
    assert np.isnan(rows.columns.values).all()
    broken = decoded(LongShortRatioFiles(), "2026-07-21", [line("2026-07-21 00:00:00", ratio="n/a")])
    assert [row.time for row in broken.broken] == moments("2026-07-21T00:05")


@given(long=st.integers(0, 9_999))
def test_shares_follow_from_the_ratio(long: int) -> None:
    """The ratio has more decimals in files than in answers of the API, whose shares have four."""
    ratio = f"{long / (10_000 - long):.8f}"
    rows = decoded(LongShortRatioFiles(), "2024-01-21", [line("2024-01-21 00:05:00", ratio=ratio)])
    assert rows.columns.values[:, 0].tolist() == [float(ratio), long / 10_000, (10_000 - long) / 10_000]


@given(long=st.integers(3_000, 9_900))
def test_a_ratio_of_four_decimals_gives_the_shares_of_the_api_to_one_unit(long: int) -> None:
    ratio = f"{long / (10_000 - long):.4f}"
    rows = decoded(LongShortRatioFiles(), "2024-01-21", [line("2024-01-21 00:05:00", ratio=ratio)])
    _, first, second = rows.columns.values[:, 0]
    assert abs(round(first * 10_000) - long) <= 1
    assert round((first + second) * 10_000) == 10_000


@pytest.mark.parametrize("ratio", ["-1", "1e999", "NaN", "-0.5"])
def test_a_wrong_ratio_gives_no_warning_and_stays_wrong(ratio: str) -> None:
    rows = decoded(LongShortRatioFiles(), "2024-01-21", [line("2024-01-21 00:05:00", ratio=ratio)])
    assert rows.columns.values[0, 0] < 0 or np.isinf(rows.columns.values[0, 0])


def test_the_day_of_a_file_ends_with_the_row_of_midnight() -> None:
    archive = OpenInterestFiles()
    series = Series.of("binance-usdm", "open_interest", "BTCUSDT", "5m")
    period = archive.period_of(series, "BTCUSDT-metrics-2024-01-21.zip")
    assert period is not None
    assert period.span.start == moments("2024-01-21T00:00")[0] + 5 * MINUTE
    assert archive.folder(series, "day") == "data/futures/um/daily/metrics/BTCUSDT/"
    assert not archive.grains(Series.of("binance-usdm", "open_interest", "BTCUSDT", "1h").interval)
