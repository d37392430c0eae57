"""Answers of an exchange, kept in a folder beside the test of its adapter."""

from __future__ import annotations

import os
import re
from hashlib import blake2b
from pathlib import Path

import attrs
import pytest

from marketfetch.api.budget_sharing import sharing_of
from marketfetch.api.pipeline import NullSink
from marketfetch.api.run_sync import run_sync
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.session import SessionState
from marketfetch.engine.state import RunState
from marketfetch.exchange import Exchange
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.values.http import Request
from marketfetch.values.settings import Settings

__all__ = ["file_of", "recorded_answer"]

_RECORD = "MARKETFETCH_RECORD"
"""The environment variable that has missing answers fetched: a base URL, or 1 for the exchange itself."""


def file_of(request: Request) -> str:
    """Return the name of the file with the answer to a request: the same for every host.

    >>> from marketfetch.values.http import Cost, LimitPool
    >>> file_of(Request("/v1/time", cost=Cost(LimitPool("calls", 10, 1000)), base_url="https://e.org"))
    'v1-time-b9877d14'
    """
    asked = f"{request.method} {request.url.removeprefix(request.base_url)} ".encode() + (request.body or b"")
    readable = re.sub(r"[^A-Za-z0-9_.]+", "-", request.path).strip("-.")[:60]
    return f"{readable}-{blake2b(asked, digest_size=4).hexdigest()}"


def recorded_answer(kind: type[Exchange], folder: Path, request: Request) -> bytes:
    """Return the body of the answer to a request, from its file; record it first if that is asked for.

    A request is recorded as a run would send it: within the limits, and with retries.
    """
    file = folder / file_of(request)
    if not file.is_file():
        where = os.environ.get(_RECORD)
        if not where:
            pytest.fail(
                f"no answer to {request.method} {request.url} in {folder}: run this test once with "
                f"{_RECORD}=1 in the environment, where the exchange can be reached"
            )
        if request.base_url == kind().base_url:
            request = attrs.evolve(request, base_url="" if where == "1" else where)
        body = _fetched(kind(), request)
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    return file.read_bytes()


def _fetched(exchange: Exchange, request: Request) -> bytes:
    """Return the body of a good answer; raises the FetchError of any other."""
    settings, pool = Settings().for_one_run(), RotatingProxies(())
    executor = RequestExecutor(exchange, CurlFetcher(), pool, settings, RunState(), lambda _: None)

    async def ask() -> bytes:
        async with SessionState(executor.pool, executor.fetcher).connected(sharing_of(None, NullSink())):
            body, _ = await executor.send(request, lambda response: response.body)
            return body

    return run_sync(ask)
