"""Metrics of whole runs, as Prometheus and OpenTelemetry show them, and what every event carries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from marketfetch.errors import ConfigurationError
from marketfetch.events import (
    BatchWritten,
    Event,
    Heartbeat,
    PageFetched,
    RequestAnswered,
    RequestEvent,
    RequestFailed,
    RunFinished,
)
from marketfetch.listeners.metrics import METRICS, Measurer
from marketfetch.listeners.opentelemetry import OpenTelemetryListener
from marketfetch.listeners.prometheus import PrometheusListener
from marketfetch.reports import EgressReport, Missing, Report, SeriesReport
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import (
    FaultKind,
    Faults,
    GeneratedMarket,
    LocalProxies,
    SimulatedExchange,
    SimulatorOptions,
)
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import batch, candles
from tests.support.worlds import World, run

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
SETTINGS = Settings(concurrency=4, retries=RetryPolicy(attempts=8, initial=0.001, cap=0.002))


@pytest.fixture(scope="module")
def fetched() -> Iterator[tuple[World, Report]]:
    """Fetch two days of two symbols from an exchange of which some requests fail."""
    faults = Faults(kinds=[FaultKind.STATUS_500], rate=0.3, times=1, seed=1)
    options = SimulatorOptions(limits=None, faults=faults)
    with SimulatedExchange(GeneratedMarket(SYMBOLS), options) as exchange, LocalProxies(2) as proxies:
        world = World(exchange, settings=SETTINGS)
        report = run(
            world.pipeline(
                MemorySink(), proxies=proxies.urls, symbols=SYMBOLS, end="2026-06-11", interval="1m"
            )
        )
        assert report.complete
        yield world, report


def test_every_request_ends_as_one_event(fetched: tuple[World, Report]) -> None:
    world, report = fetched
    ends = [event for event in world.events if isinstance(event, RequestEvent)]
    assert len(ends) == report.requests
    assert sum(event.weight for event in ends) == report.weight
    assert {event.limit for event in ends} == {"binance-futures weight"}
    assert all(event.latency > 0 for event in ends)
    assert all(event.wait >= 0 for event in ends)
    assert {event.path for event in world.events_of(RequestAnswered)} >= {"/fapi/v1/exchangeInfo"}


def test_a_page_has_its_size_and_a_failure_its_series_and_error(fetched: tuple[World, Report]) -> None:
    world, _ = fetched
    assert all(event.size > 50 * event.rows for event in world.events_of(PageFetched))
    failures = world.events_of(RequestFailed)
    assert failures
    assert {event.series.symbol for event in failures if event.series} <= {*SYMBOLS}
    assert any(event.series for event in failures)
    for event in failures:
        assert type(event.error).__name__ == event.cause
        assert str(event.error) == event.message


def test_one_listener_tells_the_runs_of_two_pipelines_apart() -> None:
    events: list[Event] = []
    with SimulatedExchange(GeneratedMarket(SYMBOLS), SimulatorOptions(limits=None)) as exchange:
        for venue in ("binance-usdm", "binance-spot", "binance-spot"):
            run(World(exchange, venue, listeners=[events.append]).pipeline(MemorySink()))
    runs = {event.run_id: event.exchange for event in events}
    assert sorted(runs.values()) == ["binance-spot", "binance-spot", "binance-usdm"]
    assert "" not in runs


def test_prometheus_counts_what_the_report_says(fetched: tuple[World, Report]) -> None:
    client = pytest.importorskip("prometheus_client")

    world, report = fetched
    registry = client.CollectorRegistry()
    listener = PrometheusListener(registry)
    for event in world.events:
        listener(event)

    def total(name: str, **labels: str) -> Any:
        samples = [sample for family in registry.collect() for sample in family.samples]
        return sum(
            sample.value
            for sample in samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    assert total("marketfetch_requests_total", exchange="binance-usdm") == report.requests
    assert total("marketfetch_request_weight_total") == report.weight
    assert total("marketfetch_rows_written_total", dataset="ohlcv") == report.rows_written
    assert total("marketfetch_rows_fetched_total") == report.rows_written
    assert total("marketfetch_request_retries_total") == sum(report.retries.values())
    assert total("marketfetch_request_duration_seconds_count") == report.requests
    assert total("marketfetch_batches_written_total") == len(world.events_of(BatchWritten))
    assert total("marketfetch_covered_until_timestamp_seconds", symbol="BTCUSDT") == 1_781_136_000
    assert total("marketfetch_runs_total", outcome="complete") == 1
    families = {family.name for family in registry.collect()}
    assert families == {metric.prometheus_name.removesuffix("_total") for metric in METRICS}


def test_opentelemetry_counts_the_same(fetched: tuple[World, Report]) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    world, report = fetched
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    listener = OpenTelemetryListener(provider)
    for event in world.events:
        listener(event)
    data: Any = reader.get_metrics_data()
    found = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    provider.shutdown()

    def total(name: str) -> Any:
        return sum(point.value for point in found[name].data.data_points)

    assert total("marketfetch.requests") == report.requests
    assert total("marketfetch.request_weight") == report.weight
    assert total("marketfetch.rows_written") == report.rows_written
    assert (
        sum(point.count for point in found["marketfetch.request_duration"].data.data_points)
        == report.requests
    )
    assert found["marketfetch.request_duration"].unit == "s"
    assert found["marketfetch.response"].unit == "By"


def test_an_older_batch_does_not_move_the_end_of_a_series_back() -> None:
    measurer, found = Measurer(), []
    for minutes in (range(100, 200), range(50)):
        event = BatchWritten(batch(candles(), minutes, open=1.0), exchange="binance-usdm")
        found += [each for each in measurer.measure(event) if each.metric.kind == "gauge"]
    assert len(found) == 1


def test_egresses_are_counted_by_state() -> None:
    states = ["ready", "ready", "circuit open 12 s", "banned until 2026-06-01T00:00:00Z", "circuit half-open"]
    beat = Heartbeat(1.0, 0, 0, 0, 0, [EgressReport(str(n), state=state) for n, state in enumerate(states)])
    found = {each.labels["state"]: each.value for each in Measurer().measure(beat)}
    assert found == {"ready": 2, "waiting": 0, "circuit half-open": 1, "circuit open": 1, "banned": 1}


def _gauges(measurer: Measurer, event: Event) -> dict[str, float]:
    found = [each for each in measurer.measure(event) if each.metric.kind == "gauge"]
    return {each.labels.get("state", each.metric.name): each.value for each in found}


def test_egresses_of_several_pools_are_counted_together() -> None:
    measurer, both = Measurer(), (EgressReport("direct"), EgressReport("Proxy 1", state="circuit open 12 s"))
    _gauges(measurer, Heartbeat(1.0, 0, 0, 0, 0, both, exchange="okx"))
    _gauges(measurer, Heartbeat(1.0, 0, 0, 0, 0, both, exchange="binance-usdm"))
    found = _gauges(measurer, Heartbeat(2.0, 0, 0, 0, 0, both[:1], exchange="okx"))
    assert (found["ready"], found["circuit open"]) == (1, 1)


def test_incomplete_series_of_several_pipelines_are_counted_together() -> None:
    measurer, span = Measurer(), Span(0, 60_000)

    def finished(exchange: str, symbol: str, missing: tuple[Missing, ...]) -> float:
        covered = SpanSet() if missing else SpanSet.of(span)
        series = Series.of(exchange, "ohlcv", symbol, "1m")
        line = SeriesReport(series, span, 0, covered, SpanSet(), missing)
        report = attrs.evolve(Report.empty(), series=(line,))
        return _gauges(measurer, RunFinished(report, exchange=exchange))["series_incomplete"]

    gap = (Missing(SpanSet.of(span), "no answer"),)
    assert finished("okx", "A", gap) == 1
    assert finished("okx", "B", gap) == 2
    assert finished("binance-usdm", "A", ()) == 0
    assert finished("okx", "A", ()) == 1


def test_every_metric_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8")
    rows = {tuple(re.findall(r"`([^`]+)`", line)) for line in text.splitlines() if line.startswith("| `")}
    for metric in METRICS:
        assert any(
            row[:2] == (metric.prometheus_name, metric.opentelemetry_name) and {*metric.labels} <= {*row[2:]}
            for row in rows
        ), metric
    assert len(rows) == len(METRICS)


def test_a_registry_that_has_a_metric_already_stays_as_it_was() -> None:
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    PrometheusListener(registry)
    with pytest.raises(
        ConfigurationError, match=r"^registry: it has marketfetch_\w+ already; give one listener"
    ):
        PrometheusListener(registry)
    taken = METRICS[3].prometheus_name
    registry = client.CollectorRegistry()
    client.Gauge(taken, "of the service itself", registry=registry)
    before = list(registry.collect())
    with pytest.raises(ConfigurationError, match=rf"^registry: it has {taken} already"):
        PrometheusListener(registry)
    assert list(registry.collect()) == before


@pytest.mark.parametrize(
    ("make", "expected_message"),
    [
        (PrometheusListener, r"^registry: 'main' is not a CollectorRegistry; give one, or leave it out"),
        (OpenTelemetryListener, "^provider: 'main' is not a MeterProvider; give one"),
    ],
)
def test_what_keeps_no_metrics_is_refused(make: Callable[[Any], object], expected_message: str) -> None:
    pytest.importorskip("prometheus_client")
    pytest.importorskip("opentelemetry.metrics")
    with pytest.raises(ConfigurationError, match=expected_message):
        make("main")
