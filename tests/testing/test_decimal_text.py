from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.testing.markets.decimal_text import FixedPointColumn, TextColumn, write_rows


def spelled(value: int, places: int) -> str:
    digits = f"{abs(value):0{places + 1}}"
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{text}" if value < 0 else text


@given(st.lists(st.integers(-(2**53) + 1, 2**53 - 1), min_size=1, max_size=30), st.integers(0, 12))
def test_decimals_are_spelled_in_full_and_read_back_exactly(values: list[int], places: int) -> None:
    column = FixedPointColumn(np.array(values, np.int64), places)
    texts = write_rows(len(values), column, ",").decode().split(",")[:-1]
    assert texts == [spelled(value, places) for value in values]
    assert column.floats().tolist() == [float(text) for text in texts]


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=9),
    st.lists(st.integers(0, 9), min_size=1, max_size=9),
)
def test_columns_of_different_kinds_keep_their_places_in_a_row(numbers: list[int], digits: list[int]) -> None:
    rows = min(len(numbers), len(digits))
    first, second = (
        FixedPointColumn(np.array(numbers[:rows]), 2),
        FixedPointColumn(np.array(digits[:rows]), 0),
    )
    recorded = TextColumn(np.array([b"abcde", b""][:1] * rows))
    text = write_rows(rows, "<", second, "|", first, "|", recorded, "|", second, ">").decode()
    expected = [
        f"<{d}|{spelled(n, 2)}|abcde|{d}>" for n, d in zip(numbers[:rows], digits[:rows], strict=True)
    ]
    assert text == "".join(expected)


def test_no_rows_are_no_text() -> None:
    assert write_rows(0, "x", FixedPointColumn(np.empty(0, np.int64))) == b""


def test_a_value_can_only_be_lent_between_columns_of_a_kind() -> None:
    one, other = FixedPointColumn(np.array([1, 2]), 2), FixedPointColumn(np.array([3, 4]), 3)
    assert one.with_last_value_of(FixedPointColumn(np.array([8, 9]), 2)).values.tolist() == [1, 9]
    with pytest.raises(TypeError):
        one.with_last_value_of(other)
    with pytest.raises(TypeError):
        TextColumn(np.array([b"1"])).with_last_value_of(one)
