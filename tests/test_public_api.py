"""The public names and their signatures are those of tests/public_api.txt."""

from __future__ import annotations

from difflib import unified_diff

from tools.public_api import SNAPSHOT, public_api, unexplained

BEFORE = """\
marketfetch.Report.rows: int
marketfetch.fetch(symbol: str) -> Table
marketfetch.plan(symbol: str) -> Plan
"""
AFTER = """\
marketfetch.Report.rows: int
marketfetch.fetch(symbols: str) -> Table
marketfetch.open(store: str) -> StoreReader
"""


def test_public_names_are_those_of_the_snapshot() -> None:
    written, found = SNAPSHOT.read_text("utf-8"), public_api()
    difference = "\n".join(unified_diff(written.splitlines(), found.splitlines(), lineterm="", n=0))
    assert written == found, (
        f"{difference}\nIf that is meant: say it under [Unreleased] in CHANGELOG.md, then run\n"
        "    .venv/bin/python tools/public_api.py"
    )


def test_snapshot_has_functions_members_constants_bases_and_other_import_paths() -> None:
    lines = SNAPSHOT.read_text("utf-8").splitlines()
    assert len(lines) > 1000
    for line in (
        "marketfetch.Span.intersect(other: Span) -> Span | None",
        "marketfetch.adapter.SECOND = 1000",
        "marketfetch.adapter.BadSymbol < FatalFetchError",
        "marketfetch.sinks.SQLiteSink = marketfetch.SQLiteSink",
    ):
        assert line in lines
    assert any(line.startswith("marketfetch.fetch(exchange: str | Exchange, ") for line in lines)


def test_a_private_base_class_gives_its_members_and_is_not_named() -> None:
    lines = [line for line in SNAPSHOT.read_text("utf-8").splitlines() if ".SQLiteSink" in line]
    assert "marketfetch.SQLiteSink.prepare(datasets: Sequence[Dataset]) -> None" in lines
    assert not [line for line in lines if " < " in line]


def test_what_is_removed_or_changed_has_to_be_in_the_changelog_and_what_is_added_need_not() -> None:
    assert unexplained(BEFORE, AFTER, "") == ["marketfetch.fetch", "marketfetch.plan"]
    assert unexplained(BEFORE, AFTER, "- `fetch` takes `symbols`.") == ["marketfetch.plan"]
    assert unexplained(BEFORE, AFTER, "- `fetch(symbols)`; `mf.plan` is gone.") == []


def test_a_part_of_a_word_in_the_changelog_explains_nothing() -> None:
    assert unexplained(BEFORE, AFTER, "- `refetch` is new, and so are two `plans`.") == [
        "marketfetch.fetch",
        "marketfetch.plan",
    ]
