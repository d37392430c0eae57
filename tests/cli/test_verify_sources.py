"""`marketfetch verify --sources`: exit codes, what is printed, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marketfetch.cli.main import main
from marketfetch.testing import (
    ArchiveFaultKind,
    ArchiveOptions,
    GeneratedMarket,
    LocalProxy,
    simulate_binance,
)
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


@pytest.mark.parametrize(
    "option", [["--proxy", "http://10.0.0.1:1"], ["--board", "none"], ["--no-direct"], ["--concurrency", "3"]]
)
def test_options_of_the_network_need_sources(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--to", f"sqlite:{tmp_path / 'market.db'}", *option]) == 2
    assert capsys.readouterr().err.startswith(f"marketfetch: {option[0]}: works only with --sources")


def test_the_help_describes_each_option_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    assert "as of backfill" not in capsys.readouterr().out


def test_requests_go_through_the_proxies_and_progress_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ArchiveOptions(since=parse_time("since", "2023-12-01", 0))
    with (
        LocalProxy() as proxy,
        simulate_binance(GeneratedMarket(["BTCUSDT"]), archive=options) as (exchange, archive),
    ):
        hosts = ["--base-url", exchange.base_url, "--archive-url", archive.base_url, "--board", "none"]
        to = ["--to", f"sqlite:{tmp_path / 'market.db'}", "--exchange", "binance-spot"]
        fill = ["--symbol", "BTCUSDT", "--interval", "1d", "--start", "2024-01-01", "--end", "2024-02-01"]
        assert main(["backfill", *to, *hosts, *fill, "--sources", "archive"]) == 0
        capsys.readouterr()
        before = len(archive.request_log.latest)
        board = f"file:{tmp_path / 'board'}"
        how = ["--proxy", proxy.url, "--no-direct", "--board", board, "--heartbeat", "0.001"]
        assert main(["verify", *to, *hosts[:4], *how, "--sources"]) == 0
        assert len(archive.request_log.latest) > before
        assert proxy.connections
        assert (tmp_path / "board").is_dir()
        assert " s: requesting clock and symbol list" in capsys.readouterr().err
