"""What `marketfetch --help` costs, and what it shows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from marketfetch.cli.commands.registry import COMMANDS
from marketfetch.cli.main import main
from tests.support.commands import Command

HEAVY = {
    *("anyio", "asyncio", "attrs", "curl_cffi", "importlib.metadata", "msgspec", "numpy", "psycopg", "rich"),
}


@pytest.mark.parametrize("words", [["--help"], ["help", "verify"], ["completion", "--help"]])
def test_help_imports_nothing_that_takes_long(words: list[str]) -> None:
    code = (
        "import sys\nfrom marketfetch.cli.main import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    print('|', *sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(result.stdout.rpartition("|")[2].split())


def test_hardly_anything_is_imported_before_signals_are_handled() -> None:
    """Until then Ctrl-C shows a traceback."""
    code = "import sys, marketfetch.cli.main\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {name for name in result.stdout.split() if name.startswith("marketfetch")}
    modules = {"", ".cli", ".cli.main", ".cli.signals"}
    assert ours == {f"marketfetch{name}" for name in modules}


def test_the_command_alone_shows_its_help_and_is_a_wrong_call(marketfetch_process: Command) -> None:
    alone, asked, helped = marketfetch_process(), marketfetch_process("--help"), marketfetch_process("help")
    assert (alone.returncode, alone.stdout) == (2, "")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert alone.stderr == asked.stdout == helped.stdout
    assert all(f"\n    {command.name} " in asked.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", ["", *(command.name for command in COMMANDS)])
@pytest.mark.parametrize("columns", ["60", "140"])
def test_help_of_a_command_fits_the_terminal(
    command: str, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit, match="0"):
        main(["help", *command.split()])
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: marketfetch {command}")
    copied = [line for line in shown.splitlines() if "~/" in line]  # a command is not broken
    assert all(len(line) <= int(columns) for line in shown.splitlines() if line not in copied)


def test_help_of_backfill_names_what_its_options_take(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["backfill", "-h"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "Exchanges: binance-coinm, binance-spot, binance-usdm" in shown
    assert " funding_rate, " in shown
    assert "Intervals: 1s, 1m, 3m" in shown
    assert "Examples: marketfetch backfill -e binance-usdm -s BTCUSDT ETHUSDT" in shown


def test_help_of_a_command_that_is_none_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["help", "verif"])
    assert "'verif' is unknown; did you mean 'verify'?" in capfd.readouterr().err
