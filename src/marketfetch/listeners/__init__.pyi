# The public names of the package, loaded when they are first used.
from .logs import LogListener as LogListener
from .logs import log_to_console as log_to_console
from .opentelemetry import OpenTelemetryListener as OpenTelemetryListener
from .progress import progress_to as progress_to
from .prometheus import PrometheusListener as PrometheusListener
