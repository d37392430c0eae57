"""Complaints of the command line speak of options as they are typed, and no value is lost silently."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

import pytest

from marketfetch.cli.commands.registry import COMMANDS
from marketfetch.cli.main import main
from marketfetch.cli.parsing.command_line import parse, parsers_of

GOOD: dict[str, list[str]] = {
    "backfill": [
        "--exchange",
        "binance-usdm",
        "--symbol",
        "BTCUSDT",
        "--start",
        "2026-06-01",
        "--to",
        "memory:",
    ],
    "plan": ["--exchange", "binance-usdm", "--symbol", "BTCUSDT", "--start", "2026-06-01"],
    "update": ["--to", "memory:"],
    "follow": [
        *("--exchange", "binance-usdm", "--symbol", "BTCUSDT"),
        *("--start", "2026-06-01", "--to", "memory:"),
    ],
    "refetch": ["--to", "memory:"],
    "export": ["--to", "memory:", "--out", "rows.csv"],
    "coverage": ["--to", "memory:"],
    "verify": ["--to", "memory:"],
    "forget": ["--to", "memory:"],
    "demo": [],
    "status": ["--to", "memory:"],
    "exchanges": [],
    "symbols": ["--exchange", "okx"],
    "datasets": ["--exchange", "okx"],
    "completion": ["bash"],
}
OPTIONS = {command: parser.options for command, parser in parsers_of(COMMANDS).items()}


def refused(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    try:
        code: object = main(words)
    except SystemExit as exit_:  # how argparse refuses
        code = exit_.code
    out, err = capfd.readouterr()
    assert (code, out) == (2, ""), err
    assert err.startswith("marketfetch: ")
    assert len(err.splitlines()) == 1
    return err


@pytest.mark.parametrize(
    ("command", "words", "expected_message"),
    [
        ("backfill", ["--direct"], "'--direct' is not an option of backfill; did you mean '--no-direct'?"),
        ("backfill", ["--symbols", "BTCUSDT"], "did you mean '--symbol'"),
        ("backfill", ["--datasets", "ohlcv"], "did you mean '--dataset'?"),
        ("backfill", ["--strat", "5d"], "did you mean '--start'"),
        ("backfill", ["--all-symbol"], "did you mean '--all-symbols'"),
        ("backfill", ["--no-Direct"], "did you mean '--no-direct'?"),
        ("backfill", ["--hush"], "'--hush' is not an option of backfill; see marketfetch backfill --help"),
        (
            "backfill",
            ["--keep", "x"],
            "'--keep' is not an option of backfill; it belongs to demo, and backfill has --all",
        ),
        ("backfill", ["--rows"], "it belongs to forget, and backfill has"),
        (
            "coverage",
            ["--start", "5d"],
            "it belongs to backfill, plan, follow, refetch, forget and export, and coverage has",
        ),
        (
            "coverage",
            ["--proxy=http://anna:hunter2@h:1"],
            "'--proxy' is not an option of coverage; it belongs to backfill, ",
        ),
        ("verify", ["--dry-run"], "it belongs to backfill, refetch and forget"),
        ("demo", ["--day", "3"], "'--day' is not an option of demo; did you mean '--days'?"),
        ("coverage", ["--symbol"], "argument --symbol: expected at least one argument"),
        ("backfill", ["--end", "--verbose"], "argument --end: expected one argument"),
        (
            "coverage",
            ["BTCUSDT"],
            "arguments: word 4 (after --to) belongs to no option; put the name of its option before",
        ),
        ("coverage", ["-x"], "'-x' is not an option; see marketfetch coverage --help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_option_that_is_none(
    capfd: pytest.CaptureFixture[str], command: str, words: Sequence[str], expected_message: str
) -> None:
    message = refused(capfd, command, *GOOD[command], *words)
    assert expected_message in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("words", "expected_message"),
    [
        (
            ["--to", "memory:", "coverage"],
            "options come after the command, which is one of backfill, plan, update",
        ),
        (["-v", "backfill"], "options come after the command"),
        (["backfil"], "'backfil' is unknown; did you mean 'backfill'?"),
        (["verif", "--to", "memory:"], "'verif' is unknown; did you mean 'verify'?"),
        (["coverage"], "the following arguments are required: --store"),
        (["backfill", "--strt", "1d"], "'--strt' is not an option of backfill; did you mean '--start'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command_that_is_none(
    capfd: pytest.CaptureFixture[str], words: Sequence[str], expected_message: str
) -> None:
    assert expected_message in refused(capfd, *words)


@pytest.mark.parametrize("command", OPTIONS)
def test_every_option_of_another_command_is_named_as_such(
    capfd: pytest.CaptureFixture[str], command: str
) -> None:
    for option in sorted(set(chain(*OPTIONS.values())) - set(OPTIONS[command])):
        message = refused(capfd, command, *GOOD[command], option)
        assert f"{option!r} is not an option of {command}; it belongs to " in message
        owners = message.partition("it belongs to ")[2].partition(", and ")[0]
        assert all(re.search(rf"\b{other}\b", owners) for other in OPTIONS if option in OPTIONS[other])


@pytest.mark.parametrize("command", OPTIONS)
def test_misspelt_option_is_given_back_as_it_is_typed(
    capfd: pytest.CaptureFixture[str], command: str
) -> None:
    for option in OPTIONS[command]:
        misspelt = option[:-1] + "xx"
        message = refused(capfd, command, *GOOD[command], misspelt)
        assert repr(option) in message or f"marketfetch {command} --help" in message
        for word in message.split("did you mean")[-1].split("'")[1::2]:
            assert word in [*OPTIONS[command], misspelt]


@pytest.mark.parametrize(
    ("words", "expected_message"),
    [
        (["--symbol", ""], "--symbol: a name is empty"),
        (["--symbol", " "], "--symbol: a name is empty"),
        (["--dataset", "premium"], "--dataset: 'premium' is unknown"),
        (["--interval", "7m"], "--interval: '7m' does not divide a day"),
        (["--end", "2026-05-01"], "--start: 2026-06-01T00:00:00Z is not before end"),
        (["--no-direct"], "--no-direct: there are no proxies; add --proxy or --proxies-from"),
        (["--all-symbols"], "--symbol: name some or say --all-symbols, not both"),
        (["--composite", "MT"], "--composite: 'MT' is not a composite"),
        (["--certificate", "nowhere.pem"], "--certificate: nowhere.pem cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals_of_the_library_name_the_option(
    capfd: pytest.CaptureFixture[str], words: Sequence[str], expected_message: str
) -> None:
    assert f"marketfetch: {expected_message}" in refused(capfd, "backfill", *GOOD["backfill"], *words)


@pytest.mark.parametrize(
    ("option", "one", "other"),
    [
        ("--interval", "1h", "1d"),
        ("--exchange", "okx", "binance-usdm"),
        ("--start", "1d", "2d"),
        ("--end", "2026-06-02", "2026-06-03"),
        ("--store", "memory:", "sqlite:market.db"),
        ("--quote", "USDT", "USDC"),
        ("--concurrency", "3", "4"),
        ("--proxies-from", "a.txt", "b.txt"),
    ],
)
def test_second_value_of_an_option_that_has_one_is_refused(
    capfd: pytest.CaptureFixture[str], option: str, one: str, other: str
) -> None:
    words = ["backfill", *_without(GOOD["backfill"], option), option, one, option]
    assert f"argument {option}: is given twice, and only one can count" in refused(capfd, *words, other)
    assert parse([*words, one], {command.name: command for command in COMMANDS}).command == "backfill"


def _without(words: Sequence[str], option: str) -> list[str]:
    pairs = zip(words[::2], words[1::2], strict=True)
    return [word for pair in pairs if pair[0] != option for word in pair]


def test_a_policy_given_twice_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["backfill", *GOOD["backfill"], "--unusable", "keep", "--unusable", "retry"]
    assert "--unusable: is given twice" in refused(capfd, *words)


@pytest.mark.parametrize("command", ["coverage", "verify", "forget"])
def test_an_empty_name_does_not_choose_everything(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    message = refused(capfd, command, *GOOD[command], "--symbol", "BTCUSDT", "--exchange", "")
    assert "--exchange: '' is not a name" in message
