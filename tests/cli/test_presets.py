"""Presets: `marketfetch.toml` and MARKETFETCH_… variables."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from marketfetch.cli.commands.registry import COMMANDS
from marketfetch.cli.main import main
from marketfetch.cli.parsing.command_line import parse
from marketfetch.cli.parsing.options import PROGRESS, REQUESTS, add_progress, add_requests
from marketfetch.cli.parsing.parser import Parser
from marketfetch.errors import ConfigurationError
from marketfetch.redaction import Secret

BY_NAME = {command.name: command for command in COMMANDS}
FILE = """\
[defaults]
exchange = "okx"
store = "sqlite:market.sqlite"

[backfill]
start = 2026-06-01
concurrency = 7

[jobs.majors]
symbol = ["BTC-USDT", "ETH-USDT"]
interval = "1h"
quiet = true
proxies-from = "proxies.txt"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(*words: str) -> argparse.Namespace:
    return parse(words, BY_NAME)


def refusal(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert (out, len(err.splitlines())) == ("", 1), err
    return err


def test_a_file_of_the_project_gives_what_is_not_typed(folder: Path) -> None:
    (folder / "marketfetch.toml").write_text(FILE)
    arguments = parsed("backfill", "--job", "majors")
    assert (arguments.exchange, arguments.start, arguments.concurrency) == ("okx", "2026-06-01", 7)
    assert (arguments.symbol, arguments.interval, arguments.quiet) == (["BTC-USDT", "ETH-USDT"], "1h", True)
    assert parsed("backfill", "-nj", "majors").interval == "1h"
    assert parsed("backfill", "-s", "A").interval == "1m", "a job counts only if it is named"


def test_an_option_beats_a_variable_and_that_a_job_and_that_a_section(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "marketfetch.toml").write_text(
        "[defaults]\ninterval = '2h'\nstart = '1d'\nexchange = 'okx'\nstore = 'memory:'\n"
        "[backfill]\ninterval = '4h'\n[jobs.a]\ninterval = '6h'\n"
    )
    seen = [parsed("backfill").interval, parsed("backfill", "-j", "a").interval]
    monkeypatch.setenv("MARKETFETCH_INTERVAL", "8h")
    seen.append(parsed("backfill", "-j", "a").interval)
    seen.append(parsed("backfill", "-j", "a", "-i12h").interval)
    assert seen == ["4h", "6h", "8h", "12h"]


def test_paths_of_a_file_are_relative_to_it_and_those_of_a_variable_are_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "marketfetch.toml").write_text(FILE)
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    arguments = parsed("backfill", "--job", "majors")
    assert arguments.store.reveal() == f"sqlite:{folder}/market.sqlite"
    assert arguments.proxies_from == folder / "proxies.txt"
    monkeypatch.setenv("MARKETFETCH_STORE", "sqlite:here.sqlite")
    assert parsed("coverage").store == Secret("sqlite:here.sqlite")


def test_a_file_to_write_lies_beside_the_file_that_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "marketfetch.toml").write_text(
        "[export]\nstore = 'memory:'\nout = 'rows.csv'\n[jobs.a]\nout = '-'\n"
    )
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert parsed("export").out == str(folder / "rows.csv")
    assert parsed("export", "--job", "a").out == "-"


def test_an_empty_name_of_a_job_is_a_mistake(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("coverage", "--to", "memory:", "--job", "")
    assert "--job: there is no marketfetch.toml" in refusal(capfd, *words)
    (folder / "marketfetch.toml").write_text(FILE)
    assert "'' is unknown" in refusal(capfd, *words)


def test_an_empty_list_of_symbols_does_not_mean_all(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "marketfetch.toml").write_text("[defaults]\nstore = 'memory:'\nsymbol = []\n")
    assert "symbol: none given" in refusal(capfd, "coverage")


def test_a_postgresql_store_and_an_absolute_path_stay_as_they_are(folder: Path) -> None:
    for store in ("postgresql:///market", "duckdb:/srv/m.duckdb", "memory:"):
        (folder / "marketfetch.toml").write_text(f"[defaults]\nstore = '{store}'\n")
        assert parsed("coverage").store.reveal() == store


def test_symbols_that_are_typed_replace_those_of_a_file(folder: Path) -> None:
    (folder / "marketfetch.toml").write_text(FILE + "[jobs.all]\nall-symbols = true\nquote = 'USDT'\n")
    assert parsed("backfill", "-j", "majors", "-s", "A,B", "C", "-s", "D").symbol == ["A", "B", "C", "D"]
    assert parsed("backfill", "-j", "majors", "--all-symbols").symbol == []
    arguments = parsed("backfill", "-j", "all", "-s", "A")
    assert (arguments.all_symbols, arguments.quote) == (False, None)
    assert parsed("backfill", "-j", "all", "--quote", "USDC").all_symbols is True


@pytest.mark.parametrize("key", ["quote = 'USDT'", "kind = 'spot'", "delisted = true"])
def test_without_all_symbols_nothing_chooses_among_them(folder: Path, key: str) -> None:
    (folder / "marketfetch.toml").write_text(
        f"[defaults]\nexchange = 'okx'\nstore = 'memory:'\nstart = '1d'\nall-symbols = true\n{key}\n"
        "[jobs.one]\nall-symbols = false\nsymbol = 'A'\n"
    )
    arguments = parsed("backfill", "--job", "one")
    assert not any([arguments.all_symbols, arguments.quote, arguments.kind, arguments.delisted])


@pytest.mark.parametrize("key", ["quote = 'USDT'", "kind = 'spot'", "delisted = true"])
def test_what_chooses_among_all_symbols_is_left_out_with_them(folder: Path, key: str) -> None:
    (folder / "marketfetch.toml").write_text(f"[defaults]\nall-symbols = true\n{key}\n")
    for words in (["-s", "A"], ["--symbols-from", "symbols.txt"]):
        arguments = parsed("backfill", "-e", "okx", "-t", "memory:", "--start", "1d", *words)
        assert not any([arguments.all_symbols, arguments.quote, arguments.kind, arguments.delisted])


def test_a_flag_that_is_off_stays_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "marketfetch.toml").write_text(
        "[defaults]\nstore = 'memory:'\nno-direct = true\nverbose = true\n[update]\nno-direct = false\n"
        "[jobs.here]\nno-direct = false\nverbose = false\n"
    )
    assert (parsed("verify").direct, parsed("update").direct) == (False, True)
    here = parsed("verify", "--job", "here")
    assert (here.direct, here.verbose) == (True, False)
    monkeypatch.setenv("MARKETFETCH_VERBOSE", "0")
    assert not parsed("update").verbose
    assert parsed("update", "--verbose").verbose


def test_requests_of_verify_are_sent_as_a_file_says(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "marketfetch.toml").write_text(
        "[defaults]\nstore = 'sqlite:market.sqlite'\nno-direct = true\nproxies-from = 'proxies.txt'\n"
    )
    arguments = parsed("verify", "--sources")
    assert (arguments.direct, arguments.proxies_from) == (False, folder / "proxies.txt")
    assert "does not exist" in refusal(capfd, "verify"), "without --sources only what is typed is a mistake"
    assert "works only with --sources" in refusal(capfd, "verify", "--no-direct")


@pytest.mark.parametrize(("add", "dests"), [(add_requests, REQUESTS), (add_progress, PROGRESS)])
def test_presets_of_requests_and_of_progress_are_all_there_are(
    add: Callable[[Parser], object], dests: frozenset[str]
) -> None:
    parser = Parser(add_help=False)
    add(parser)
    assert {action.dest for action in parser.actions_by_option.values()} == dests


def test_what_is_forgotten_or_repaired_has_to_be_typed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "marketfetch.toml").write_text(
        "[defaults]\nstore = 'memory:'\nrows = true\nrepair = true\nsymbol = 'A'\nsources = 'archive'\n"
    )
    monkeypatch.setenv("MARKETFETCH_ROWS", "1")
    arguments = parsed("forget")
    assert (arguments.rows, arguments.symbol, arguments.store.reveal()) == (False, None, "memory:")
    monkeypatch.setenv("MARKETFETCH_DRY_RUN", "1")
    assert parsed("forget").dry_run, "nothing is changed that may stay as it is"
    assert parsed("refetch").dry_run
    arguments = parsed("verify")
    assert (arguments.repair, arguments.symbol, arguments.sources) == (False, ["A"], False)


@pytest.mark.parametrize(
    ("text", "words", "expected_message"),
    [
        ("[default]\n", [], "line 1, default: 'default' is not a section; did you mean 'defaults'"),
        ("[backfil]\n", [], "line 1, backfil: 'backfil' is not a section; did you mean 'backfill'"),
        ("store = 'memory:'\n", [], "line 1, store: 'store' is not a section"),
        ("[defaults]\n\nstoree = 1\n", [], "line 3, storee: 'storee' is not an option; did you mean 'store'"),
        ("[coverage]\nstart = '1d'\n", [], "line 2, start: 'start' is not an option"),
        (
            "[jobs.a]\nintervals = '1h'\n",
            [],
            "line 2, intervals: 'intervals' is not an option; did you mean 'int",
        ),
        ("[jobs]\na = 1\n", [], "a is a value; begin a section with [jobs.NAME]"),
        ("[jobs.daily]\n", ["--job", "dayly"], "'dayly' is unknown; did you mean 'daily'?"),
        ("[defaults]\ninterval = '25m'\n", [], "line 2, interval: '25m' does not divide a day; did you mean"),
        ("[defaults]\ninterval = ['1h', '1d']\n", [], "line 2, interval: what was found is several values"),
        ("[defaults]\ndataset = 'premium'\n", [], "line 2, dataset: 'premium' is unknown; did you mean"),
        ("[backfill]\nconcurrency = 0\n", [], "line 2, concurrency: '0' is not a whole number above zero"),
        ("[backfill]\nconcurrency = true\n", [], "line 2, concurrency: what was found is of type bool"),
        (
            "[backfill]\nsources = 'archiv'\n",
            [],
            "line 2, sources: 'archiv' is unknown; did you mean",
        ),
        ("[backfill]\nall_symbols = 'often'\n", [], "line 2, all_symbols: is switched on or off; write true"),
        ("[backfill]\nquiet = 2\n", [], "line 2, quiet: is switched on or off"),
        ("[defaults\n", [], "(at line 1, column 10)"),
        ("", ["--config", "nowhere.toml"], "--config: nowhere.toml cannot be read: No such file"),
        ("", ["--job", "daily"], "--job of "),
    ],
)
def test_a_wrong_file_is_refused_by_file_line_and_key(
    folder: Path, capfd: pytest.CaptureFixture[str], text: str, words: Sequence[str], expected_message: str
) -> None:
    (folder / "marketfetch.toml").write_text(text)
    good = ["--exchange", "binance-usdm", "--symbol", "BTCUSDT", "--start", "2026-06-01", "--to", "memory:"]
    good += ["--base-url", "http://127.0.0.1:9"]
    assert expected_message in refusal(capfd, "backfill", *good, *words)


@pytest.mark.parametrize(
    ("text", "expected_message"),
    [
        (f"[defaults]\nconcurrency = {'9' * 5_000}\n", "a number has too many digits"),
        (f"[defaults]\nsymbol = {'[' * 5_000}{']' * 5_000}\n", "lists are nested too deeply"),
        (f"#{'x' * 1_000_000}\n", "is longer than a megabyte; name a file of presets"),
        (b"[defaults]\nsymbol = '\xff'\n", "cannot be read: it is not UTF-8 text"),
    ],
)
def test_a_file_that_no_one_writes_by_hand_is_refused_for_what_it_is(
    folder: Path, capfd: pytest.CaptureFixture[str], text: str | bytes, expected_message: str
) -> None:
    (folder / "marketfetch.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert expected_message in refusal(capfd, "coverage", "--store", "memory:")


def test_a_file_without_an_end_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    message = refusal(capfd, "coverage", "--store", "memory:", "--config", "/dev/zero")
    assert "--config: /dev/zero is longer than a megabyte" in message


def test_a_variable_is_checked_as_its_option_is_and_named(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = ["backfill", "-e", "okx", "-s", "BTC-USDT", "--start", "1d", "--store", "memory:"]
    monkeypatch.setenv("MARKETFETCH_INTERVAL", "25m")
    assert "marketfetch: MARKETFETCH_INTERVAL: '25m' does not divide a day; did you mean" in refusal(
        capfd, *good
    )
    monkeypatch.setenv("MARKETFETCH_INTERVAL", "")
    monkeypatch.setenv("MARKETFETCH_ALL_SYMBOLS", "maybe")
    assert "MARKETFETCH_ALL_SYMBOLS: is switched on or off" in refusal(capfd, *good[:3], *good[5:])
    monkeypatch.delenv("MARKETFETCH_ALL_SYMBOLS")
    monkeypatch.setenv("MARKETFETCH_STOER", "memory:")
    message = refusal(capfd, *good)
    assert "MARKETFETCH_STOER is no variable of marketfetch; did you mean MARKETFETCH_STORE" in message
    monkeypatch.delenv("MARKETFETCH_STOER")
    monkeypatch.setenv("MARKETFETCH_TOKEN", "of another program")
    monkeypatch.setenv("MARKETFETCH_TEST_DSN", "of another program")
    assert parsed(*good).exchange == "okx"


def test_a_secret_in_a_preset_is_never_shown(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "marketfetch.toml").write_text(
        "[defaults]\nstore = 'postgresql://anna:hunter2@127.0.0.1:port/market'\n"
    )
    assert "hunter2" not in refusal(capfd, "coverage")
    monkeypatch.setenv("MARKETFETCH_STORE", "oracle://anna:hunter2@127.0.0.1/market")
    assert "hunter2" not in refusal(capfd, "coverage")
    (folder / "marketfetch.toml").write_text("[defaults]\nboard = { url = 'http://anna:hunter2@h' }\n")
    assert "hunter2" not in refusal(capfd, "backfill", "-e", "okx", "-s", "A", "--start", "1d")


def test_several_values_of_a_variable_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETFETCH_SYMBOL", "BTC-USDT, ETH-USDT")
    monkeypatch.setenv("MARKETFETCH_PROXY", "http://10.0.0.1:3128 http://10.0.0.2:3128")
    monkeypatch.setenv("MARKETFETCH_NO_DIRECT", "yes")
    arguments = parsed("backfill", "-e", "okx", "--start", "1d", "-t", "memory:")
    assert arguments.symbol == ["BTC-USDT", "ETH-USDT"]
    assert [proxy.reveal() for proxy in arguments.proxy] == ["http://10.0.0.1:3128", "http://10.0.0.2:3128"]
    assert arguments.direct is False


def test_completion_needs_no_file_that_is_right(folder: Path) -> None:
    (folder / "marketfetch.toml").write_text("[wrong\n")
    assert parsed("completion", "bash").shell == "bash"
    with pytest.raises(ConfigurationError):
        parsed("exchanges")


def test_a_folder_that_was_removed_has_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    assert parsed("coverage", "--store", "memory:").store.reveal() == "memory:"


def test_a_variable_that_is_not_text_is_named(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "MARKETFETCH_SYMBOL", "BTC\udcff")
    message = refusal(capfd, "coverage", "--store", "memory:")
    assert "MARKETFETCH_SYMBOL: is not text in the encoding of this system" in message
