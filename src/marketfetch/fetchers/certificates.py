"""Which certificate authorities are trusted, as the one file that libcurl wants."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkstemp

from anyio import CancelScope, to_thread
from curl_cffi.curl import DEFAULT_CACERT

from marketfetch.errors import ConfigurationError

__all__ = ["trusted"]


@asynccontextmanager
async def trusted(certificate: Path | None) -> AsyncGenerator[str]:
    """Give the path of a PEM file with the usual authorities and those in `certificate`.

    The usual ones are the system's, or certifi's where it has none. Raises ConfigurationError when
    `certificate` cannot be read or holds no certificate.
    """
    if certificate is None:
        yield DEFAULT_CACERT
        return
    path = await to_thread.run_sync(_joined, certificate)
    try:
        yield str(path)
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(path.unlink)


def _joined(certificate: Path) -> Path:
    try:
        extra = certificate.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"certificate: {certificate} cannot be read ({error.strerror})") from error
    if b"-----BEGIN CERTIFICATE-----" not in extra:
        raise ConfigurationError(f"certificate: {certificate} holds no certificate in PEM form")
    descriptor, name = mkstemp(prefix="marketfetch-", suffix=".pem")
    with os.fdopen(descriptor, "wb") as bundle:
        bundle.write(Path(DEFAULT_CACERT).read_bytes() + b"\n" + extra)
    return Path(name)
