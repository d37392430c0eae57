"""Spans before now, in the spellings that people and other libraries use."""

from __future__ import annotations

import pytest

from marketfetch.errors import ConfigurationError
from marketfetch.values.spans import format_utc
from marketfetch.values.times import parse_time

NOW = 1_780_228_800_123  # 2026-05-31T12:00:00.123Z


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *((text, "2026-05-11T12:00:00.123Z") for text in ("20d", "20 days", "20 Days ago", "20 day ago UTC")),
        *((text, "2026-05-31T10:30:00.123Z") for text in ("90m", "90min", "90 minutes ago")),
        *((text, "2026-05-31T10:00:00.123Z") for text in ("2h", "2 hrs", "2H")),
        *((text, "2026-05-17T12:00:00.123Z") for text in ("2w", "2wk", "2 weeks")),
        # April has 30 days, and February 28.
        *((text, "2026-04-30T12:00:00.123Z") for text in ("1mo", "1mon", "1 month ago")),
        ("3mo", "2026-02-28T12:00:00.123Z"),
        ("12 months", "2025-05-31T12:00:00.123Z"),
        *((text, "2025-05-31T12:00:00.123Z") for text in ("1y", "1yr", "1 year ago UTC")),
    ],
)
def test_spans_before_now(written: str, meant: str) -> None:
    assert format_utc(parse_time("start", written, NOW)) == meant


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("1M", "start: '1M' may be minutes or months; write '1min' or '1mo'"),
        ("3q", "start: '3q' has no unit of time; write s, min, h, d, w, mo or y, as in 20d"),
        ("900mo", "start: 900mo ago is before 1970; write a date such as 2026-06-01"),
        ("ytd", "start: 'ytd' is not a time; write 2026-06-01, 2026-06-01T12:00:00Z, 20d, 3mo or 1y (before"),
    ],
)
def test_what_is_ambiguous_or_unknown_is_refused(written: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_time("start", written, NOW)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "written", ["9" * 5000, "9" * 5000 + "d", "9" * 5000 + "-01"], ids=["number", "ago", "month"]
)
def test_a_number_of_thousands_of_digits_is_refused_briefly(written: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^start: '9{59} … is not a time; write 2026-06-01"
    ) as raised:
        parse_time("start", written, NOW)
    assert len(str(raised.value)) < 250


def test_a_long_address_in_the_place_of_a_time_shows_no_password() -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_time("start", f"postgresql://user:{'secret' * 30}@host/market", NOW)
    assert "secret" not in str(raised.value)
