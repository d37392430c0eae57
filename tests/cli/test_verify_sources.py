"""`marketfetch verify --sources`: exit codes, what is printed, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marketfetch.cli.main import main
from marketfetch.testing import ArchiveFaultKind, ArchiveOptions, GeneratedMarket, simulate_binance
from marketfetch.values.times import parse_time

JANUARY = "data/spot/monthly/klines/BTCUSDT/1d/BTCUSDT-1d-2024-01.zip"


def test_a_file_issued_anew_is_shown_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ArchiveOptions(since=parse_time("since", "2023-12-01", 0))
    with simulate_binance(GeneratedMarket(["BTCUSDT"]), archive=options) as (exchange, archive):
        hosts = ["--base-url", exchange.base_url, "--archive-url", archive.base_url]
        to = ["--to", f"sqlite:{tmp_path / 'market.db'}", "--exchange", "binance-spot"]
        fill = ["--symbol", "BTCUSDT", "--interval", "1d", "--start", "2024-01-01", "--end", "2024-02-01"]
        archive.reissue(JANUARY, ArchiveFaultKind.OTHER_VALUES)
        assert main(["backfill", *to, *hosts, *fill, "--sources", "archive"]) == 0
        assert main(["verify", *to, *hosts, "--sources"]) == 0
        capsys.readouterr()

        archive.reissue(JANUARY)
        assert main(["verify", *to, *hosts, "--sources"]) == 1
        shown = capsys.readouterr().out
        assert "1 file of 1 series compared with the archive: 1 file with other rows" in shown
        assert "BTCUSDT-1d-2024-01.zip" in shown
        assert main(["verify", *to, *hosts, "--sources", "--repair", "--json"]) == 0
        (file,) = json.loads(capsys.readouterr().out)["reissued"]
        assert file["repaired"]
        assert main(["verify", *to, *hosts, "--sources"]) == 0


def test_what_cannot_be_meant_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = ["--to", f"sqlite:{tmp_path / 'market.db'}"]
    assert main(["verify", *to, "--repair"]) == 2
    assert "add --sources" in capsys.readouterr().err
    assert main(["verify", *to, "--sources"]) == 2
    assert "add --exchange" in capsys.readouterr().err
