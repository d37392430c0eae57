"""The run of a command on a Dask cluster."""

from __future__ import annotations

from argparse import Namespace
from functools import partial

from marketfetch.api.plugins import exchange_from
from marketfetch.cli.arguments import query_from
from marketfetch.cli.pipelines import parts_from
from marketfetch.cli.reported_run import run_and_report
from marketfetch.cli.signals import SignalHandler
from marketfetch.common.optional_packages import from_extra
from marketfetch.dask import ClusterJob, ClusterRun
from marketfetch.errors import ConfigurationError
from marketfetch.listeners.progress import Progress
from marketfetch.proxies.dask_board import connection_args, connection_reason
from marketfetch.proxies.pool import RotatingProxies

__all__ = ["job_from", "run_on_cluster"]

_TIMEOUT = 10.0
"""Seconds for the connection to a scheduler."""


def run_on_cluster(arguments: Namespace, signals: SignalHandler, listener: Progress | None) -> int:
    """Run a job on every worker of the cluster that `--dask` names, and report; return the exit code."""
    with from_extra("dask", "--dask"):
        from distributed import Client
        from distributed.comm.addressing import get_address_host_port
    job = job_from(arguments)
    try:
        get_address_host_port(arguments.dask)  # for what is no address, Client would wait for half a minute
        connection_args("--dask", arguments.dask)
        client = Client(arguments.dask, timeout=_TIMEOUT, set_as_default=False)
    except ConfigurationError:  # one of the ValueErrors below
        raise
    except (OSError, ValueError) as error:
        reason = connection_reason(error) if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"--dask: no scheduler answers at {arguments.dask!r} ({reason}); start one (dask scheduler), or "
            "name another"
        ) from error
    with client:
        run = ClusterRun(client, job, [listener] if listener else [])
        return run_and_report(arguments, signals, run, listener)


def job_from(arguments: Namespace) -> ClusterJob:
    """Make the job that every worker runs. Files have whole paths in it: workers have other current folders.

    Raises ConfigurationError for `--proxy`: addresses do not travel.
    """
    if arguments.proxy:
        raise ConfigurationError(
            "--proxy: addresses do not travel to workers; write them to a file that each worker has, and "
            "name it with --proxies-from"
        )
    if arguments.certificate:
        arguments.certificate = arguments.certificate.absolute()
    parts = parts_from(arguments)
    file = arguments.proxies_from and str(arguments.proxies_from.absolute())
    return ClusterJob(
        exchange_from(arguments.exchange, arguments.base_url, arguments.archive_url),
        query_from(arguments),
        arguments.store.reveal(),
        proxies=file if arguments.direct else partial(RotatingProxies.from_file, file, direct=False),
        fetcher=parts["fetcher"],
        settings=parts["settings"],
        board=arguments.board.reveal(),
    )
