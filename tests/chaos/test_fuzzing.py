"""The quick form of what `chaos.trials.fuzzing` tries, and whether it would notice."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from chaos.fuzz import sanitized
from chaos.fuzz.mutating import mutations
from chaos.fuzz.sound import sound_instrument, sound_moment, sound_page
from chaos.fuzz.targets import CORPUS, START, Target, targets
from chaos.harness.trials import Effort, Result
from chaos.trials import fuzzing
from marketfetch.decoding.layouts import Decoded
from marketfetch.values.instruments import Instrument
from marketfetch.values.pages import Columns, Page
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

QUICK = Effort("quick", seed=1)
PART = Slice(Series.of("okx", "mark_price", "BTC-USDT", "1m"), Span(START, START + 600_000), rows=10)


@pytest.mark.parametrize("promise", [fuzzing.corpus, fuzzing.large, fuzzing.mutated, fuzzing.memory])
def test_what_strangers_send_is_read_soundly_or_refused(promise: Callable[[Effort], Result]) -> None:
    result = promise(QUICK)
    assert result.holds, "\n".join(result.failures[:10])


def test_every_target_has_inputs_that_it_reads_and_inputs_that_it_refuses() -> None:
    for target in targets().values():
        texts = islice(mutations(target.seeds(), random.Random(1), 600), 500)
        assert {target.read(text) for text in texts} >= (
            {"read"} if target.name == "redaction" else {"read", "refused"}
        )


def test_the_corpus_is_small() -> None:
    sizes = [file.stat().st_size for file in CORPUS.glob("*/*")]
    assert max(sizes) < 4_000
    assert sum(sizes) < 100_000


def test_mutations_are_the_same_for_the_same_seed() -> None:
    one, two = ([*islice(mutations([b'[[1,"2"]]'], random.Random(5), 50), 300)] for _ in range(2))
    assert one == two
    assert len(set(one)) > 150
    assert max(map(len, one)) <= 50


def test_a_reader_that_trips_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def trips(text: bytes) -> str:
        return {b"[": "read"}[text[:1]]

    monkeypatch.setattr(fuzzing, "targets", lambda: {"trips": Target("trips", "rows-plain", trips)})
    for promise in (fuzzing.corpus, fuzzing.large, fuzzing.mutated):
        result = promise(QUICK)
        assert not result.holds
        assert "KeyError" in result.failures[0]


def test_the_guided_fuzzer_counts_what_it_tries() -> None:
    pytest.importorskip("atheris", reason="no wheel of atheris for this system or Python")
    found = fuzzing._guide(targets()["okx time"], runs=3_000, seed=1)
    assert found.failure is None
    assert found.counts.total() == 3_000
    assert found.counts["read"] > 0
    assert found.edges > 0


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("values[line * rows + row] =", "values[line * rows + row + 1] ="),
        ("&times[row]", "&times[row - 1]"),
        ("while (is_digit(*at))\n            at++;", "while (*at)\n            at++;\n        at++;"),
        ("return c <= ',' && (c < ' ' || c == ',' || c == '\"');", "return c == ',';"),
        ("< 2 * WINDOW + LOOK_AHEAD", "< WINDOW"),
        ("enum { WINDOW = 64, LOOK_AHEAD = 24 };", "enum { WINDOW = 64, LOOK_AHEAD = -8 };"),
    ],
    ids=["beyond values", "before times", "beyond the text", "beyond a line", "beyond a window", "far ahead"],
)
def test_a_decoder_that_leaves_its_memory_is_noticed(right: str, wrong: str, tmp_path: Path) -> None:
    text = sanitized.SOURCE.read_text("utf-8")
    assert right in text
    source = tmp_path / "faulty.c"
    source.write_text(text.replace(right, wrong), "utf-8")
    program = sanitized.build(tmp_path, source)
    if isinstance(program, str):
        pytest.skip(program)
    done = sanitized.drive(
        program, 100_000, 1, sorted([*CORPUS.glob("rows-plain/*"), *CORPUS.glob("csv-lines/*")])
    )
    assert isinstance(done, str)
    # AddressSanitizer has no name for a read that begins inside a block and ends outside.
    assert "heap-buffer-overflow" in done or "unknown-crash" in done


def page(**changes: Any) -> Page:
    times = np.array([START, START + 60_000])
    rows = np.array([[1.0, 1.0], [2.0, 2.0], [1.0, 1.0], [2.0, 1.5]])
    return attrs.evolve(Page(Columns(times, rows), received=2), **changes)


def columns(times: list[int], value: float = 1.0) -> Columns:
    return Columns(np.array(times, np.int64), np.full((4, len(times)), value))


def test_a_sound_page_is_called_sound() -> None:
    sound_page(page(), Decoded(page().columns), PART)


@pytest.mark.parametrize(
    "unsound",
    [
        page(columns=columns([START + 60_000, START])),
        page(columns=columns([START, START])),
        page(columns=columns([START, START + 1])),
        page(columns=columns([START - 60_000, START])),
        page(columns=columns([START, START + 600_000])),
        page(columns=columns([START, START + 60_000], float("nan"))),
        page(columns=columns([START, START + 60_000], float("inf"))),
        page(columns=columns([START, START + 60_000], -1.0)),
        page(columns=Columns(page().columns.times, page().columns.values[::-1])),
        page(rejected={"duplicate": 1}),
        page(received=1),
        page(has_rows_outside=True),
        page(without_sound_row=SpanSet.of(Span(START, START + 60_000))),
    ],
    ids=[
        *("unsorted", "repeated", "off the grid", "too early", "too late", "null", "infinite", "negative"),
        *(
            "low above high",
            "miscounted",
            "too few received",
            "rows outside without one",
            "present and without a sound row",
        ),
    ],
)
def test_an_unsound_page_is_not(unsound: Page) -> None:
    with pytest.raises(AssertionError):
        sound_page(unsound, Decoded(page().columns), PART)


def test_what_is_no_time_and_no_name_is_not_sound() -> None:
    for moment in (-1, 10**30, True):
        with pytest.raises(AssertionError):
            sound_moment(moment)
    for symbol in ("", None, 5):
        with pytest.raises((AssertionError, ValueError)):
            sound_instrument(Instrument(symbol, "BTC", "USDT"))  # type: ignore[arg-type]
