"""Several datasets and intervals in one call, and its progress."""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

import marketfetch as mf
from marketfetch.errors import ConfigurationError, IncompleteError, IncompleteWarning
from marketfetch.events import BatchWritten, Event, Listener, RunFinished
from marketfetch.listeners.follow_status import FollowStatus
from marketfetch.listeners.notebook import NotebookProgress
from marketfetch.listeners.progress import follow_status_here, progress_here
from marketfetch.testing import GeneratedMarket, SimulatedExchange

DAY: dict[str, Any] = {"start": "2026-06-01", "end": "2026-06-02"}


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"])) as exchange:
        yield exchange


@pytest.fixture
def given(exchange: SimulatedExchange) -> dict[str, Any]:
    return {"base_url": exchange.base_url, **DAY}


class TestSeveral:
    def test_datasets(self, given: dict[str, Any]) -> None:
        tables = mf.fetch("binance-usdm", ["ohlcv", "funding_rate"], "BTCUSDT", interval="1h", **given)
        assert list(tables) == ["ohlcv", "funding_rate"]
        assert len(tables["ohlcv"]) == 24
        assert len(tables["funding_rate"]) == 3
        assert [str(line.series) for line in tables["ohlcv"].report.series] == [
            "binance-usdm ohlcv BTCUSDT 1h"
        ]

    def test_intervals(self, given: dict[str, Any]) -> None:
        tables = mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", interval=["1h", "4h", "60m"], **given)
        assert {name: len(table) for name, table in tables.items()} == {"1h": 24, "4h": 6}
        closes = [[row.close for row in table] for table in (tables["1h"].resample("4h"), tables["4h"])]
        assert closes[0] == closes[1]

    def test_both(self, given: dict[str, Any]) -> None:
        ends: list[Event] = []
        tables = mf.fetch(
            "binance-usdm",
            ["ohlcv", "funding_rate"],
            "BTCUSDT",
            interval=("4h", "1d"),
            listeners=[lambda event: ends.append(event) if isinstance(event, RunFinished) else None],
            **given,
        )
        lengths = {("ohlcv", "4h"): 6, ("ohlcv", "1d"): 1, ("funding_rate", "event"): 3}
        assert {name: len(table) for name, table in tables.items()} == lengths
        assert len(ends) == 2

    def test_events_alone_are_fetched_once(self, given: dict[str, Any]) -> None:
        tables = mf.fetch("binance-usdm", "funding_rate", "BTCUSDT", interval=["1h", "4h"], **given)
        assert list(tables) == ["event"]

    def test_each_table_tells_what_it_lacks(self, given: dict[str, Any]) -> None:
        more = given | {"start": "2020-06-01", "end": "2020-06-02", "interval": "1h", "sources": "rest"}
        with pytest.warns(IncompleteWarning, match="binance-usdm open_interest: BTCUSDT: missing") as caught:
            tables = mf.fetch("binance-usdm", ["ohlcv", "open_interest"], "BTCUSDT", **more)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert tables["ohlcv"].report.complete
        assert not tables["open_interest"].report.complete
        with pytest.raises(IncompleteError) as error:
            mf.fetch("binance-usdm", ["ohlcv", "open_interest"], "BTCUSDT", on_missing="raise", **more)
        assert error.value.report is not None

    @pytest.mark.parametrize(
        ("wrong", "expected_message"),
        [
            ({"dataset": []}, "dataset: the list is empty"),
            ({"interval": []}, "interval: the list is empty"),
            ({"dataset": ["ohlcv", "ohlc"]}, "dataset: 'ohlc' is unknown; did you mean 'ohlcv'"),
            ({"interval": ["1h", "7h"]}, "interval: '7h'"),
            ({"interval": None}, "interval: None"),
            ({"dataset": 5}, "dataset: 5"),
            ({"dataset": "ohlcv funding_rate"}, r"write a list: \['ohlcv', 'funding_rate'\]"),
            ({"interval": "1h,4h"}, r"interval: '1h,4h' names 2, .*write a list: \['1h', '4h'\]"),
            ({"interval": "1 h"}, "interval: '1 h' is unknown; did you mean '1h'"),
            ({"progress": "bar"}, "progress: 'bar' is neither True, False nor None"),
        ],
    )
    def test_what_it_cannot_mean_is_refused(
        self, given: dict[str, Any], wrong: dict[str, Any], expected_message: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=expected_message):
            mf.fetch("binance-usdm", symbols="BTCUSDT", **(given | wrong))


class Display:
    """What IPython.display shows in a cell, as text."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, what: Any, *, display_id: bool) -> Display:
        assert display_id
        self.shown.append(what._repr_html_())
        return self

    def update(self, what: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.shown.append(what["text/html"])


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Display:
    """Python as in a Jupyter kernel, whose display is returned."""
    shell, display = SimpleNamespace(kernel=object()), Display()
    package, module = ModuleType("IPython"), ModuleType("IPython.display")
    monkeypatch.setattr(package, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr(module, "display", display.display, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_weight_of_a_report_is_that_of_its_run(given: dict[str, Any]) -> None:
    pool = mf.RotatingProxies(())
    one, other = (
        mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", interval="1h", proxies=pool, **given).report
        for _ in range(2)
    )
    assert other.weight <= one.weight
    assert [egress.weight for egress in other.egresses] == [one.weight + other.weight]  # of the pool


class TestProgress:
    def test_a_notebook_shows_it_and_is_clean_afterwards(
        self, notebook: Display, given: dict[str, Any]
    ) -> None:
        mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", interval="1h", **given)
        assert "<progress></progress>" in notebook.shown[0]
        assert notebook.shown[-1] == ""

    def test_an_interrupt_leaves_it_clean(self, notebook: Display) -> None:
        with pytest.raises(KeyboardInterrupt), NotebookProgress():
            raise KeyboardInterrupt
        assert notebook.shown[-1] == ""

    def test_a_failed_run_leaves_it_clean(self, notebook: Display) -> None:
        more: dict[str, Any] = {"settings": mf.Settings(retries=mf.RetryPolicy(attempts=1)), **DAY}
        with pytest.raises(mf.MarketfetchError):
            mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", interval="1h", base_url="http://127.0.0.1:9", **more)
        assert notebook.shown[-1] == ""

    def test_a_notebook_may_be_told_to_be_silent(self, notebook: Display, given: dict[str, Any]) -> None:
        mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", interval="1h", progress=False, **given)
        assert notebook.shown == []

    def test_a_script_without_terminal_is_silent(
        self, given: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", interval="1h", **given)
        assert capsys.readouterr() == ("", "")

    def test_a_log_has_lines_where_they_are_wanted(
        self, given: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", interval="1h", progress=True, **given)
        assert "round 1: 24 rows of 1 series are missing" in capsys.readouterr().err

    @pytest.mark.parametrize("call", [mf.update, partial(mf.refetch, symbols="BTCUSDT")])
    def test_calls_for_a_store_show_it_too(self, call: Any, notebook: Display, given: dict[str, Any]) -> None:
        store, events = mf.MemorySink(), list[Event]()
        mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", interval="1d", progress=False, to=store, **given)
        call(store, base_url=given["base_url"], listeners=[events.append])
        assert "<progress></progress>" in notebook.shown[0]
        assert notebook.shown[-1] == ""
        assert events
        call(store, base_url=given["base_url"], progress=False)
        assert notebook.shown.count("") == 1
        with pytest.raises(ConfigurationError, match="listeners: "):
            call(store, base_url=given["base_url"], listeners=print)

    @pytest.fixture
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C raises KeyboardInterrupt; a background job of a shell would ignore it."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.usefixtures("interruptible")
    def test_a_follow_shows_its_status_until_it_is_interrupted(
        self, notebook: Display, given: dict[str, Any]
    ) -> None:
        main = threading.main_thread().ident
        assert main is not None

        def interrupting() -> Listener:
            sent: list[Event] = []

            def interrupt(event: Event) -> None:
                if isinstance(event, BatchWritten) and not sent:  # a second one would interrupt the end
                    sent.append(event)
                    signal.pthread_kill(main, signal.SIGINT)

            return interrupt

        where: dict[str, Any] = {"start": "10m", "to": "memory:", "base_url": given["base_url"]}
        mf.follow("binance-usdm", "ohlcv", "BTCUSDT", listeners=[interrupting()], **where)
        assert "requesting clock and symbol list" in notebook.shown[0]
        assert notebook.shown[-1] == ""
        mf.follow("binance-usdm", "ohlcv", "BTCUSDT", listeners=[interrupting()], progress=False, **where)
        assert notebook.shown.count("") == 1
        with pytest.raises(ConfigurationError, match="progress: 'yes' is neither True, False nor None"):
            mf.follow("binance-usdm", "ohlcv", "BTCUSDT", progress=cast("Any", "yes"), **where)
        with pytest.raises(ConfigurationError, match="listeners: "):
            mf.follow("binance-usdm", "ohlcv", "BTCUSDT", listeners=cast("Any", print), **where)

    def test_a_follow_has_a_line_on_a_terminal_and_lines_where_they_are_wanted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert follow_status_here(None) is None
        lines = follow_status_here(wanted=True)
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.delenv("CI", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        live = follow_status_here(None)
        assert isinstance(lines, FollowStatus)
        assert isinstance(live, FollowStatus)
        assert live.period < lines.period

    def test_a_terminal_has_a_bar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.delenv("CI", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        assert type(progress_here(None)).__name__ == "RichProgress"
        assert progress_here(wanted=False) is None
