"""The quick form of what `chaos.trials.fuzzing` tries, and whether it would notice."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

import chaos.fuzz.__main__ as command
from chaos.fuzz import sanitized, searching
from chaos.fuzz.mutating import mutations
from chaos.fuzz.searching import Search, Turn, searches
from chaos.fuzz.sound import sound_instrument, sound_moment, sound_page
from chaos.fuzz.targets import CORPUS, START, Target, addressed, families, targets
from chaos.harness.trials import Effort, Result
from chaos.trials import fuzzing
from marketfetch.decoding.layouts import DecodedRows
from marketfetch.values.instruments import Instrument
from marketfetch.values.pages import Columns, Page
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

QUICK = Effort("quick", seed=1)

pytestmark = pytest.mark.slow
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


@pytest.fixture
def search(tmp_path: Path) -> Search:
    pytest.importorskip("atheris", reason="no wheel of atheris for this system or Python")
    return next(search for search in searches(tmp_path) if search.family == "csv-lines")


def test_the_guided_fuzzer_counts_what_it_tries(search: Search) -> None:
    turn = search.turn(runs=3_000, seed=0)
    assert (turn.failures, turn.tried) == ((), 3_000)
    assert turn.edges > 0
    assert turn.kept == len([*search.folder.joinpath("inputs").iterdir()]) > 0
    assert {*search.counts()} == {"CSV: flow", "CSV: symbol", "CSV: dates"}
    assert all(verdicts["read"] and verdicts["refused"] for verdicts in search.counts().values())


def test_the_next_turn_continues(search: Search) -> None:
    first, second = (search.turn(runs=3_000, seed=0) for _ in range(2))
    assert search.tried() == first.tried + second.tried == 6_000
    assert first.kept <= second.kept < 1.5 * first.kept, "it grows with every turn"
    assert second.edges >= first.edges


def test_an_input_that_fails_is_kept(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    harmful = search.folder / "inputs" / "harmful"
    harmful.parent.mkdir(parents=True)
    harmful.write_bytes(b"\x01harmful")
    program = """
import chaos.fuzz.archives as archives, chaos.fuzz.guided as guided
def trips(layout, text):
    assert text != b"harmful"
    return "refused"
archives._lines = trips
guided.main()
"""
    monkeypatch.setattr(searching, "PROGRAM", ("-c", program))
    for _ in range(2):
        (failure,) = search.turn(runs=500, seed=0).failures
        assert failure.startswith("CSV: symbol, ")
        assert "b'harmful'" in failure
        assert "AssertionError" in failure
    harmful.unlink()
    assert search.turn(runs=500, seed=0).failures, "libFuzzer kept the input that failed"
    monkeypatch.undo()
    assert not search.turn(runs=500, seed=0).failures


def test_what_was_kept_is_given_to_the_whole_family(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    def trips(text: bytes) -> str:
        return {b"": "refused"}[text[:1]]

    relative = Target("relative", "csv-lines", trips)
    (failure, *_) = attrs.evolve(search, members=(*search.members, relative)).turn(runs=200, seed=0).failures
    assert failure.startswith("relative, ")
    assert "KeyError" in failure


def test_the_first_byte_of_an_input_chooses_the_decoder() -> None:
    members = families()["csv-lines"]
    for message, name in ((b"\x00a", "flow"), (b"\x02a", "dates"), (b"\x04a", "symbol")):
        target, text = addressed(members, message)
        assert (target.name, text) == (f"CSV: {name}", b"a")
    assert addressed(members, b"") == (members[0], b"")


def test_the_command_continues_and_counts_anew_for_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def turn(self: Search, runs: int, seed: int) -> Turn:
        before = self.tried()
        (self.folder / "inputs").mkdir(parents=True, exist_ok=True)
        (self.folder / "inputs" / str(before)).touch()
        counts = {target.name: {"read": 0, "refused": 0} for target in self.members}
        counts[self.members[0].name] = {"read": before, "refused": runs}
        (self.folder / "counts.json").write_text(json.dumps(counts), "utf-8")
        return Turn(self.family, runs, 1, 1, 0, ())

    def counted(inputs: int) -> list[int]:
        assert command.main(["--inputs", str(inputs), "--folder", str(tmp_path)]) == 0
        return [search.tried() for search in searches(tmp_path)]

    monkeypatch.setattr(Search, "turn", turn)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    many = len(families())
    assert counted(10 * many) == [10] * many
    assert counted(20 * many) == [20] * many
    assert counted(20 * many) == [20] * many
    assert f"{20 * many} inputs so far, {10 * many} of them read; 0 or more" in capsys.readouterr().out
    (tmp_path / "code").write_text("of another version", "utf-8")
    assert counted(10 * many) == [10] * many
    assert "The code has changed" in capsys.readouterr().out
    assert len([*tmp_path.glob("*/inputs/*")]) == 2 * many


def test_the_command_says_that_it_needs_atheris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        command.main(["--folder", str(tmp_path)])
    assert "atheris is not installed" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_what_failed_before_the_command_was_stopped_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def turns(waiting: Sequence[Search], runs: int, seed: int) -> Iterator[Turn]:
        yield Turn(waiting[0].family, 5, 1, 1, 0, ("it trips",))
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(command, "turns", turns)
    assert command.main(["--folder", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "FAILED: it trips" in output
    assert f"0 or more for each of {len(targets())} decoders" in output


def test_the_command_ends_with_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(Search, "turn", lambda self, runs, seed: Turn(self.family, 5, 1, 1, 0, ("it trips",)))
    assert command.main(["--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("FAILED: it trips") == len(families())


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("values[line * stride] = whole", "values[line * stride + 1] = whole"),
        ("&values[line * stride] : &unused", "&values[line * stride + 1] : &unused"),
        ("&times[row]", "&times[row - 1]"),
        ("while (is_digit(*at))\n            at++;", "while (*at)\n            at++;\n        at++;"),
        ("return c <= ',' && (c < ' ' || c == ',' || c == '\"');", "return c == ',';"),
        ("< 2 * WINDOW + LOOK_AHEAD", "< WINDOW"),
        ("enum { WINDOW = 64, LOOK_AHEAD = 24 };", "enum { WINDOW = 64, LOOK_AHEAD = -8 };"),
    ],
    ids=[
        "beyond values",
        "beyond values, quickly",
        "before times",
        "beyond the text",
        "beyond a line",
        "beyond a window",
        "far ahead",
    ],
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
    sound_page(page(), DecodedRows(page().columns), PART)


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
        sound_page(unsound, DecodedRows(page().columns), PART)


def test_what_is_no_time_and_no_name_is_not_sound() -> None:
    for moment in (-1, 10**30, True):
        with pytest.raises(AssertionError):
            sound_moment(moment)
    for symbol in ("", None, 5):
        with pytest.raises((AssertionError, ValueError)):
            sound_instrument(Instrument(symbol, "BTC", "USDT"))  # type: ignore[arg-type]
