"""What a reader copies from the how-to pages works: commands, units, images, tasks, links and tables."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import psycopg
import pytest
import yaml

import marketfetch as mf
from marketfetch.cli.commands.registry import COMMANDS
from marketfetch.cli.parsing.command_line import parse
from marketfetch.errors import IncompleteError
from tests.conftest import absent
from tests.support.loopback import exchanges_on_loopback

PROJECT = Path(__file__).parents[1]
DOCS, EXAMPLES = PROJECT / "docs", PROJECT / "examples"
PAGES = sorted([*DOCS.glob("*.md"), PROJECT / "README.md"])
DEPLOY = EXAMPLES / "deploy"
IMAGES = sorted(DEPLOY.rglob("Dockerfile"))
ORCHESTRATORS = EXAMPLES / "orchestrators"
BY_NAME = {command.name: command for command in COMMANDS}
SITE = "https://marketfetch.readthedocs.io/"
HOME = "https://github.com/marketfetch/marketfetch/"
WORDS = (
    "cron", "systemd", "docker", "fastapi", "airflow", "jupyter", "proxies", "logging", "metrics", "export",
    "rate limit", "timezone", "delisted", "gaps", "resume", "offline", "timescaledb", "ccxt", "freqtrade",
    "yfinance", "windows", "macos", "upgrade",
)  # fmt: skip
"""What people type into the search box of the site."""


@pytest.fixture(autouse=True)
def unblocked_loop() -> None:
    """Disabled: example code may import modules inside its event loop."""


def included(snippet: re.Match[str]) -> str:
    return (PROJECT / snippet[1]).read_text("utf-8")


def fences(path: Path) -> Iterator[tuple[str, str]]:
    """Yield language and text of each block of code, with the files that it includes."""
    for found in re.finditer(
        r"^``` ?([^\n]*)\n(.*?)\n```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        yield found[1], re.sub(r'^--8<-- "(.*)"$', included, found[2], flags=re.MULTILINE)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every call of marketfetch in a block that shows a terminal, a crontab or a unit."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        found = re.search(
            r"(?:^\$ |^[\d* ]+ {2}|^ExecStart=.*/|^\$ docker .* exec market )marketfetch (.*)", line
        )
        if found and "…" not in line:
            words = shlex.split(found[1], comments=True)
            ends = [place for place, word in enumerate(words) if word in {"|", ">", "2>", ">>"}]
            yield words[: min(ends, default=len(words))]


@pytest.mark.parametrize("path", [*PAGES, *DEPLOY.glob("*.service")], ids=lambda path: path.name)
def test_commands_are_right(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    presets = '[jobs.{}]\nsymbol = ["BTCUSDT"]\nexchange = "okx"\nstart = "1d"\nstore = "memory:"\n'
    Path("marketfetch.toml").write_text(
        "".join(presets.format(name) for name in ("majors", "daily")), "utf-8"
    )
    if path.name == "howto-docker.md":  # there, the environment of the service has the store
        monkeypatch.setenv("MARKETFETCH_STORE", "memory:")
    texts = [text for _, text in fences(path)] if path.suffix == ".md" else [path.read_text("utf-8")]
    for words in (words for text in texts for words in commands(text)):
        if words[0] not in {"help", "--version"}:
            assert parse(words, BY_NAME).command == words[0]


def test_commands_are_found_where_they_are_shown() -> None:
    """Else the test above would pass without a single command."""
    shown = {path.name: [words[0] for _, text in fences(path) for words in commands(text)] for path in PAGES}
    assert shown["howto-cron.md"] == ["plan", "backfill", "update", "status"]
    assert sum(map(len, shown.values())) > 40


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is a part of Linux")
def test_units_are_accepted_by_systemd(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        absent("No systemd-analyze: install the package systemd of your distribution")
    assert program is not None
    for unit in DEPLOY.glob("*.[st]*e*"):
        text = unit.read_text("utf-8")
        (tmp_path / unit.name).write_text(
            text.replace("/opt/market/bin/marketfetch", sys.executable), "utf-8"
        )
    units = sorted(map(str, tmp_path.iterdir()))
    assert len(units) == 3
    result = subprocess.run([program, "verify", *units], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.parent.name)
def test_image_is_accepted_by_a_linter_and_has_a_user_without_rights(path: Path) -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), path], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "")
    assert "USER 10001" in path.read_text("utf-8").splitlines()


def test_services_run_without_rights_on_file_systems_that_are_read_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
    assert list(services) == ["market", "pgbouncer", "postgres"]
    for name, service in services.items():
        assert service["read_only"] is True
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service.get("cap_drop") == (None if name == "postgres" else ["ALL"])  # it changes its user
        assert "healthcheck" in service
    assert services["market"]["volumes"] == ["market:/data"]
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("VOLUME")] == ["VOLUME /data"]
    monkeypatch.setenv("MARKETFETCH_STORE", services["market"]["environment"]["MARKETFETCH_STORE"])
    follow = parse(services["market"]["command"], BY_NAME)
    assert follow.store.reveal() == "postgresql://market@pgbouncer:6432/market"
    assert parse(services["market"]["healthcheck"]["test"][2:], BY_NAME).command == "status"


class WithoutDecorators(ast.NodeTransformer):
    """Turns a task of an orchestrator into the plain function that it wraps."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.decorator_list, node.returns = [], None
        for argument in node.args.args:
            argument.annotation = None
        return node


def task_of(path: Path) -> Any:
    """Return the function of a file that calls marketfetch, without the orchestrator."""
    body = ast.parse(path.read_text("utf-8")).body
    (found,) = [
        node for node in body if isinstance(node, ast.FunctionDef) and "mf.fetch" in ast.unparse(node)
    ]
    kept = [node for node in body if isinstance(node, ast.Import | ast.Assign)]
    kept = [node for node in kept if re.match("import |SYMBOLS = ", ast.unparse(node))]
    module = ast.Module([*kept, WithoutDecorators().visit(found)], [])
    space: dict[str, Any] = {"MaterializeResult": SimpleNamespace}
    exec(compile(ast.fix_missing_locations(module), path.name, "exec"), space)
    return space[found.name]


@pytest.mark.parametrize("name", ["airflow_dag", "dagster_assets", "prefect_flow"])
def test_task_fetches_a_span_and_fails_if_something_is_missing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The orchestrators call the same tasks in `make orchestrators`, which installs hundreds of MB."""
    store = f"sqlite:{tmp_path / 'market.sqlite'}"
    monkeypatch.setenv("MARKET_STORE", store)
    task = task_of(ORCHESTRATORS / f"{name}.py")
    span = datetime(2026, 6, 2, tzinfo=UTC), datetime(2026, 6, 3, tzinfo=UTC)

    def run() -> dict[str, int]:
        if name == "dagster_assets":
            metadata: dict[str, int] = task(SimpleNamespace(partition_time_window=span)).metadata
        elif name == "prefect_flow":
            metadata = task("binance-usdm", ["BTCUSDT", "ETHUSDT", "SOLUSDT"], "2026-06-02", "2026-06-03")
        else:
            metadata = task(*span)
        return metadata

    with exchanges_on_loopback(monkeypatch) as exchange:
        first = run()
        assert first == {"rows": 3 * 24, "requests": exchange.request_log.total}
        assert run() == {"rows": 3 * 24, "requests": 0}
        assert exchange.request_log.total == first["requests"]
        mf.forget(store, symbols="BTCUSDT", start=span[0], end=span[1], rows=True)
        exchange.edit = lambda request, reply: (
            attrs.evolve(reply, status=400, body=b"{}") if "klines" in request.path else reply
        )
        with pytest.raises(IncompleteError, match="BTCUSDT"):
            run()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_code_that_is_not_run_is_at_least_python(path: Path) -> None:
    for language, text in fences(path):
        if language == "{ .python }":
            compile(text, path.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_code_fits_the_column_of_the_page(path: Path) -> None:
    wide = [line for _, text in fences(path) for line in text.splitlines() if len(line) > 80]
    assert not wide


def test_links_of_the_readme_work_on_a_package_index() -> None:
    text = (PROJECT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 10
    for link in links:
        address, _, anchor = link.partition("#")
        assert not anchor
        if address.startswith(SITE):
            page = address.removeprefix(SITE).strip("/") or "index"
            assert (DOCS / f"{page}.md").is_file(), link
        else:
            place = re.sub(
                r"^https://raw\.githubusercontent\.com/marketfetch/marketfetch/", f"{HOME}raw/", address
            )
            assert place.startswith(HOME), link
            assert (PROJECT / place.removeprefix(HOME).split("/", 2)[2]).exists(), link


@pytest.mark.parametrize("word", WORDS)
def test_word_that_people_search_for_is_in_a_heading(word: str) -> None:
    headings = [
        line for path in PAGES for line in re.findall("^#+ .*", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert any(word in line.lower() for line in headings)


def test_every_page_is_reached_from_the_navigation() -> None:
    navigation = (PROJECT / "mkdocs.yml").read_text("utf-8")
    assert not [path.name for path in DOCS.glob("*.md") if path.name not in navigation]


def test_table_of_the_page_about_timescaledb_is_filled(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = list(fences(DOCS / "howto-timescaledb.md"))
    (statements,) = [text for language, text in blocks if language == "sql"]
    (code,) = [text for language, text in blocks if language == "python"]
    table, hypertable = statements.split("SELECT create_hypertable")
    assert "'candles', 'ts'" in hypertable
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(table.encode())
    space: dict[str, Any] = {}
    exec(code, space)
    store = mf.PostgresSink(postgres_dsn, table=space["mapping"])
    with exchanges_on_loopback(monkeypatch), warnings.catch_warnings():
        filled = mf.fetch(
            "binance-usdm", "ohlcv", "BTCUSDT", interval="1h", start="2026-06-01", end="2026-06-02", to=store
        )
    assert filled.report.rows_written == 24
    with psycopg.connect(postgres_dsn) as connection:
        row = connection.execute("SELECT count(*), count(close), min(interval) FROM candles").fetchone()
    assert row == (24, 24, "1h")
