from __future__ import annotations

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.sinks.postgres.copy_binary import WireColumn, copy_body, from_timestamps, to_timestamps

records = st.lists(
    st.tuples(
        st.integers(-(2**31), 2**31 - 1), st.none() | st.floats(), st.none() | st.integers(-(2**53), 2**53)
    ),
    min_size=1,
    max_size=20,
)


@given(records)
def test_the_body_is_what_struct_would_write_row_by_row(
    rows: list[tuple[int, float | None, int | None]],
) -> None:
    expected = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
    for number, value, count in rows:
        expected += struct.pack(">hii", 3, 4, number)
        expected += struct.pack(">i", -1) if value is None else struct.pack(">id", 8, value)
        expected += struct.pack(">i", -1) if count is None else struct.pack(">iq", 8, count)
    expected += struct.pack(">h", -1)
    numbers, values, counts = zip(*rows, strict=True)
    strips = [
        WireColumn(np.array(numbers, np.int32)),
        WireColumn(np.array([0.0 if value is None else value for value in values]), _nulls(values)),
        WireColumn(np.array([0 if count is None else count for count in counts], np.int64), _nulls(counts)),
    ]
    assert b"".join(copy_body([strips])) == expected


def test_a_long_body_is_written_in_pieces_that_make_one_stream() -> None:
    numbers, null = np.arange(10_000, dtype=np.int64), np.arange(10_000) % 9_999 == 0
    pieces = [[WireColumn(numbers[at : at + 3000], null[at : at + 3000])] for at in range(0, 10_000, 3000)]
    written = list(copy_body(pieces))
    assert len(written) == 2 + len(pieces)
    assert b"".join(written) == b"".join(copy_body([[WireColumn(numbers, null)]]))
    assert len(b"".join(written)) == 19 + 10_000 * 14 - 2 * 8 + 2


def test_no_rows_make_an_empty_stream() -> None:
    assert b"".join(copy_body([])) == b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\xff\xff"


@given(st.lists(st.integers(-(2**42), 2**42)))
def test_times_survive_the_wire(times: list[int]) -> None:
    there = to_timestamps(np.array(times, np.int64))
    assert from_timestamps(there).tolist() == times


def _nulls(values: tuple[float | None, ...]) -> np.ndarray | None:
    null = np.array([value is None for value in values])
    return null if null.any() else None
