"""A listener that keeps metrics for Prometheus; it needs `pip install 'marketfetch[prometheus]'`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marketfetch.errors import ConfigurationError
from marketfetch.events import Event
from marketfetch.listeners.metrics import METRICS, Measurer, Metric
from marketfetch.redaction import redact

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["PrometheusListener"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""The buckets of histograms: an answer takes milliseconds, and a wait for a limit up to minutes."""


class PrometheusListener:
    """A listener that counts events as metrics `marketfetch_…` in a registry of `prometheus_client`.

    One listener serves any number of pipelines: the label `exchange` tells them apart. A second listener
    needs a registry of its own. `docs/metrics.md` lists the metrics. Raises ConfigurationError if
    prometheus_client is not installed, for what is no registry, and if the registry has one of these metrics
    already; then it stays as it was.

    >>> from prometheus_client import CollectorRegistry
    >>> from marketfetch.events import WaitingForStore
    >>> registry = CollectorRegistry()
    >>> PrometheusListener(registry)(WaitingForStore("locked", 1, 0.5, exchange="okx"))
    >>> registry.get_sample_value("marketfetch_store_waits_total", {"exchange": "okx"})
    1.0
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        try:
            import prometheus_client
        except ImportError:
            raise ConfigurationError(
                "prometheus_client: is not installed; run pip install 'marketfetch[prometheus]'"
            ) from None
        if registry is None:
            registry = prometheus_client.REGISTRY
        if not isinstance(registry, prometheus_client.CollectorRegistry):
            raise ConfigurationError(
                f"registry: {redact(repr(registry))} is not a CollectorRegistry; give one, or leave it out"
            )
        self._measurer = Measurer()
        self._instruments: dict[Metric, Any] = {}
        for metric in METRICS:
            kind = {
                "counter": prometheus_client.Counter,
                "gauge": prometheus_client.Gauge,
                "histogram": prometheus_client.Histogram,
            }[metric.kind]
            more: dict[str, Any] = {"buckets": _SECONDS} if metric.kind == "histogram" else {}
            try:
                self._instruments[metric] = kind(
                    metric.prometheus_name, metric.description, metric.labels, registry=registry, **more
                )
            except ValueError:
                for instrument in self._instruments.values():
                    registry.unregister(instrument)
                raise ConfigurationError(
                    f"registry: it has {metric.prometheus_name} already; give one listener to all pipelines, "
                    "or write PrometheusListener(CollectorRegistry())"
                ) from None

    def __call__(self, event: Event) -> None:
        """Count an event; this takes microseconds."""
        for found in self._measurer.measure(event):
            instrument = self._instruments[found.metric].labels(**found.labels)
            match found.metric.kind:
                case "counter":
                    instrument.inc(found.value)
                case "gauge":
                    instrument.set(found.value)
                case "histogram":
                    instrument.observe(found.value)
