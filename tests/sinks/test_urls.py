from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from marketfetch.errors import ConfigurationError
from marketfetch.redaction import Secret
from marketfetch.sinks.files.paths import path_from_uri
from marketfetch.sinks.urls import sink_from
from tests.support.plug_ins import install_plug_in


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("memory:", "MemorySink(0 series)"),
        ("duckdb:market.duckdb", "DuckDBSink('market.duckdb')"),
        ("sqlite:/data/market.db", "SQLiteSink('/data/market.db')"),
        ("parquet:market", "ParquetSink('market')"),
        ("postgresql://ann:hunter2@db.example/market", "PostgresSink('postgresql://db.example/market')"),
        ("postgres://ann:hunter2@db.example/market", "PostgresSink('postgresql://db.example/market')"),
    ],
)
def test_a_scheme_leads_to_its_sink(text: str, shown: str) -> None:
    assert repr(sink_from(text)) == shown


@pytest.mark.parametrize(
    "path",
    [
        r"C:\data\market",
        "C:/data/market",
        "D:market",
        r"\\server\share\market",
        r"\\?\C:\data\market",
        "//srv/x",
    ],
)
def test_a_path_of_windows_is_a_place(path: str) -> None:
    if path.startswith("//"):
        with pytest.raises(ConfigurationError, match="is not a path; write sqlite:srv/x, or one slash"):
            sink_from(f"sqlite:{path}")
        return
    for scheme in ("sqlite", "duckdb", "parquet"):
        assert path_from_uri(f"{scheme}:{path}") == path
        assert repr(sink_from(f"{scheme}:{path}")).endswith(f"Sink({path!r})")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("market.duckdb", "such as duckdb:market.duckdb"),
        ("duckbd:market.duckdb", "did you mean 'duckdb'"),
        ("sqlite:", "write sqlite:PATH"),
        ("sqlite:///market.db", "write sqlite:market.db"),
        ("memory:here", "write memory:"),
        ("sqlite::memory:", "MemorySink"),
        (r"C:\data\market.duckdb", r"such as duckdb:C:\\data\\market\.duckdb$"),
        ("C:/data/market.sqlite", "such as sqlite:C:/data/market.sqlite$"),
        (r"\\server\share\market.duckdb", r"such as duckdb:\\\\server\\share\\market\.duckdb$"),
        (r"C:\data\market", "such as duckdb:market.duckdb$"),
        ("sqlite:///C:/data/market.sqlite", "write sqlite:C:/data/market.sqlite, or"),
        (r"C:\ann:hunter2@db.duckdb", "such as duckdb:market.duckdb$"),
    ],
)
def test_what_is_no_place_is_refused_with_a_remedy(text: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        sink_from(text)


def test_a_misspelled_scheme_does_not_show_the_password() -> None:
    with pytest.raises(ConfigurationError) as caught:
        sink_from("postgrsql://ann:hunter2@db.example/market")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["memory", "sqlite", "duckdb", "parquet"])
def test_no_frame_of_an_error_holds_the_password_of_an_address(scheme: str) -> None:
    address = Secret(f"{scheme}://ann:hunter2@db.example/market")
    with pytest.raises(ConfigurationError) as caught:
        sink_from(address)
    assert "hunter2" not in str(caught.value)
    assert len(caught.traceback) > 2
    for frame in caught.traceback[1:]:  # the first one is of this test
        assert "hunter2" not in repr(frame.frame.f_locals), frame


def test_a_sink_of_somebody_else_gets_the_whole_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text(
        "class Theirs:\n    @classmethod\n    def from_url(cls, text):\n        return text\n"
    )
    install_plug_in(tmp_path, "marketfetch.sinks", name="theirs", target="theirs:Theirs")
    monkeypatch.syspath_prepend(tmp_path)
    assert str(sink_from("theirs://host/place")) == "theirs://host/place"


def test_the_package_of_sinks_loads_nothing_heavy() -> None:
    heavy = "{'duckdb', 'pyarrow', 'psycopg', 'sqlite3'}"
    code = f"import sys, marketfetch.sinks; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("json:JSONDecoder", r"plug-in plain \(json:JSONDecoder\) has no from_url"),
        ("nosuch_module:Sink", r"plug-in plain \(nosuch_module:Sink\) cannot be loaded: No module named"),
        ("json:Nothing", r"plug-in plain \(json:Nothing\) cannot be loaded: .*Nothing"),
    ],
)
def test_a_plug_in_that_is_no_sink_is_named(
    target: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plug_in(tmp_path, "marketfetch.sinks", name="plain", target=target)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=says):
        sink_from("plain:x")


@pytest.mark.parametrize("text", ["market.duckdb", "duckbd:market.duckdb"])
def test_an_error_names_the_argument_that_the_caller_wrote(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^store: "):
        sink_from(text, "store")
