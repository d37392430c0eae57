"""Without a home, with one that cannot be written, and without a temporary folder, every command works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest

import marketfetch as mf
from marketfetch.testing import GeneratedMarket, SimulatedExchange

CODE = """
import io, json, sys, tempfile
from contextlib import redirect_stderr, redirect_stdout
from marketfetch.cli.main import main

if sys.argv[1] == "none":
    tempfile._candidate_tempdir_list = list  # as if none of the usual places could be written
for words in json.loads(sys.argv[2]):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        code = main(words)
    print(json.dumps([code, out.getvalue(), errors.getvalue()]))
"""
NOBODY = "54321"
"""A user whom the system does not know; it may read everything, and write only what everybody may."""


def _as_nobody() -> list[str]:
    if os.geteuid():
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv")
    rights = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *rights]


@attrs.frozen
class Place:
    """A user in a folder of data, the only one that can be written."""

    data: Path
    home: Path | None
    temporary: bool

    def run(self, *commands: list[str]) -> list[tuple[int, str, str]]:
        """Run commands in one process of this user; return the code and both outputs of each."""
        left_out = {"HOME", "TMPDIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"}
        environment = {name: value for name, value in os.environ.items() if name not in left_out}
        environment |= {"PYTHONPATH": str(Path(mf.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {} if self.home is None else {"HOME": str(self.home)}
        kind = "some" if self.temporary else "none"
        results = subprocess.run(
            [*_as_nobody(), sys.executable, "-c", CODE, kind, json.dumps(commands)],
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
            cwd=self.data,
            env=environment,
        )
        assert results.returncode == 0, results.stderr
        return [tuple(json.loads(line)) for line in results.stdout.splitlines()]


@pytest.fixture(params=["no home", "read-only home", "no temporary folder"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    # Not in `tmp_path`, whose folders only root may enter: what DuckDB 1.5 asks there is denied to others.
    with TemporaryDirectory(prefix="marketfetch-homes-") as folder:
        data, home = Path(folder, "data"), Path(folder, "home")
        Path(folder).chmod(0o755)
        data.mkdir()
        data.chmod(0o777)
        home.mkdir(mode=0o555)
        without_home = request.param == "no home"
        yield Place(data, None if without_home else home, temporary=request.param != "no temporary folder")
        home.chmod(0o755)


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange:
        yield exchange


@pytest.mark.slow
def test_every_command_that_can_work_does(place: Place, exchange: SimulatedExchange) -> None:
    day = ["-e", "binance-usdm", "-s", "BTCUSDT", "--start", "2026-06-01", "--end", "2026-06-02"]
    commands = {"exchanges": ["exchanges"], "demo": ["demo", "--days", "1", "--keep", "demo.duckdb"]}
    for store in ("sqlite:market.sqlite", "duckdb:market.duckdb", "parquet:market"):
        job = [*day, "--base-url", exchange.base_url, "--to", store]
        for name, words in {
            "fill": ["backfill", *job],  # first: what is said of the board is said once
            "plan": ["plan", *job],
            "see": ["coverage", "--to", store],
            "verify": ["verify", "--to", store],
        }.items():
            commands[f"{name} {store}"] = words
    results = dict(zip(commands, place.run(*commands.values()), strict=True))
    assert {command: errors for command, (code, _, errors) in results.items() if code} == {}
    assert "binance-usdm" in results["exchanges"][1]
    for command, (_, output, _) in results.items():
        assert command[:4] != "fill" or "Complete: 1,440 rows" in output
        assert command[:3] != "see" or "BTCUSDT" in output
    lines = "".join(errors for _, _, errors in results.values()).splitlines()
    of_board = [line for line in lines if "budgets are those" in line]
    assert len(of_board) == 1
    assert of_board[0].startswith("marketfetch: budgets are those of this process alone: board: ")
    assert "--board file:FOLDER" in of_board[0]
