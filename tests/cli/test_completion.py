"""Shell completion: the scripts as the shells run them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

import pytest

from marketfetch.cli.commands.registry import COMMANDS
from marketfetch.cli.main import main
from marketfetch.cli.parsing.command_line import parsers_of
from marketfetch.cli.parsing.completion import completion_script

PARSERS = parsers_of(COMMANDS)


def completed(*words: str) -> list[str]:
    """Let bash complete the last word, as it does when a user presses the tabulator."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    quoted = " ".join(f"'{word}'" for word in ("marketfetch", *words))
    ask = (
        f"COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _marketfetch; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    script = completion_script("bash", PARSERS) + ask
    result = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True)
    assert not result.stderr
    return result.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["back"], ["backfill"]),
        (["help", "co"], ["coverage", "completion"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["coverage", "--sy"], ["--symbol"]),
        (["backfill", "--dry"], ["--dry-run"]),
        (["backfill", "--exchange", "binance-u"], ["binance-usdm"]),
        (["backfill", "-e", "ok"], ["okx"]),
        (["backfill", "-d", "ohlcv", "mark"], ["mark_price"]),
        (["backfill", "--sources", ""], ["auto", "rest", "archive"]),
        (["symbols", "--kind", "p"], ["perpetual"]),
        (["backfill", "--progress", "j"], ["json"]),
        (["exchanges", "--quote"], []),
        (["nothing", "x"], []),
    ],
    ids=" ".join,
)
def test_bash_offers_commands_options_and_names(words: Sequence[str], offered: Sequence[str]) -> None:
    assert completed(*words) == list(offered)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_option_of_every_command_is_in_the_script(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert script == completion_script(shell, PARSERS)
    for parser in PARSERS.values():
        for option in parser.options:
            assert (f" -l {option[2:]}" if shell == "fish" else option) in script
    assert "binance-usdm" in script
    found = shutil.which(shell)
    if found is not None:
        subprocess.run([found, "-n", "-c", script], check=True)


def test_a_shell_that_is_none_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "bsh"])
    assert "'bsh' is unknown; did you mean 'bash'?" in capfd.readouterr().err
