"""A listener that records metrics by OpenTelemetry; it needs `pip install 'marketfetch[opentelemetry]'`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marketfetch.errors import ConfigurationError
from marketfetch.events import Event
from marketfetch.listeners.metrics import METRICS, Measurer, Metric
from marketfetch.redaction import redact

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

__all__ = ["OpenTelemetryListener"]


class OpenTelemetryListener:
    """A listener that records events as metrics `marketfetch.…` of a meter named `marketfetch`.

    `provider` is a MeterProvider; by default the global one of the program. One listener serves any number
    of pipelines: the attribute `exchange` tells them apart. `docs/metrics.md` lists the metrics. Raises
    ConfigurationError if opentelemetry-api is not installed, and for what is no MeterProvider.

    >>> from opentelemetry.metrics import NoOpMeterProvider
    >>> from marketfetch.events import WaitingForStore
    >>> OpenTelemetryListener(NoOpMeterProvider())(WaitingForStore("locked", 1, 0.5, exchange="okx"))
    """

    def __init__(self, provider: MeterProvider | None = None) -> None:
        try:
            from opentelemetry.metrics import MeterProvider, get_meter
        except ImportError:
            raise ConfigurationError(
                "opentelemetry-api: is not installed; run pip install 'marketfetch[opentelemetry]'"
            ) from None
        if provider is not None and not isinstance(provider, MeterProvider):
            raise ConfigurationError(
                f"provider: {redact(repr(provider))} is not a MeterProvider; give one, or leave it out"
            )
        meter = get_meter("marketfetch", meter_provider=provider)
        self._measurer = Measurer()
        self._instruments: dict[Metric, Any] = {}
        for metric in METRICS:
            create = {
                "counter": meter.create_counter,
                "gauge": meter.create_gauge,
                "histogram": meter.create_histogram,
            }[metric.kind]
            self._instruments[metric] = create(
                metric.opentelemetry_name, unit=metric.unit, description=metric.description
            )

    def __call__(self, event: Event) -> None:
        """Record an event; this takes microseconds."""
        for found in self._measurer.measure(event):
            instrument = self._instruments[found.metric]
            match found.metric.kind:
                case "counter":
                    instrument.add(found.value, found.labels)
                case "gauge":
                    instrument.set(found.value, found.labels)
                case "histogram":
                    instrument.record(found.value, found.labels)
