"""From the parsed arguments to a Pipeline and its parts."""

from __future__ import annotations

import argparse
from typing import Any

from marketfetch.api.pipeline import Pipeline
from marketfetch.api.plugins import exchange_from
from marketfetch.cli.arguments import heartbeat_from, pool_from, query_from
from marketfetch.events import Listener
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Sink
from marketfetch.values.settings import Settings

__all__ = ["job_options", "parts_from", "pipeline_from"]


def parts_from(arguments: argparse.Namespace, *listeners: Listener | None) -> dict[str, Any]:
    """Return the parts of a Pipeline beside the exchange, the query and the sink."""
    usual = Settings()
    return {
        "proxies": pool_from(arguments),
        "fetcher": CurlFetcher(certificate=arguments.certificate),
        "settings": Settings(
            concurrency=arguments.concurrency or usual.concurrency,
            heartbeat=heartbeat_from(arguments) if "heartbeat" in arguments else usual.heartbeat,
            unusable=arguments.unusable if "unusable" in arguments else usual.unusable,
        ),
        "listeners": [listener for listener in listeners if listener is not None],
        "board": arguments.board,
    }


def job_options(arguments: argparse.Namespace, listener: Listener | None) -> dict[str, Any]:
    """Return the options of a job that works on what a store holds, whatever the exchange."""
    hosts = {"base_url": arguments.base_url, "archive_url": arguments.archive_url}
    return {**parts_from(arguments, listener), **hosts, "sources": arguments.sources}


def pipeline_from(arguments: argparse.Namespace, sink: Sink, *listeners: Listener | None) -> Pipeline:
    """Make the pipeline of a command that has the options of a query."""
    return Pipeline(
        exchange_from(arguments.exchange, arguments.base_url, arguments.archive_url),
        query_from(arguments),
        sink,
        **parts_from(arguments, *listeners),
    )
