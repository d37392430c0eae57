"""Which certificate authorities are trusted, as the one file that libcurl wants."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkstemp

from anyio import CancelScope, to_thread
from curl_cffi.curl import DEFAULT_CACERT

from marketfetch.errors import ConfigurationError

__all__ = ["ca_file"]

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@asynccontextmanager
async def ca_file(certificate: Path | None) -> AsyncGenerator[str]:
    """Give the path of a PEM file with the usual authorities and those in `certificate`.

    The usual ones are the system's, or certifi's where it has none. Raises ConfigurationError when
    `certificate` cannot be read or holds no certificate, and where no temporary file can be made.
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
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"certificate: {certificate} cannot be read ({_said(error)})") from error
    _check(extra, certificate)
    try:
        usual = Path(DEFAULT_CACERT).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"certificate: the usual authorities in {DEFAULT_CACERT} cannot be read ({_said(error)}); "
            "install the certificates of the system"
        ) from error
    try:
        descriptor, name = mkstemp(prefix="marketfetch-", suffix=".pem")
        with os.fdopen(descriptor, "wb") as bundle:
            bundle.write(usual + b"\n" + extra)
    except OSError as error:
        raise ConfigurationError(
            f"certificate: no temporary file can be made ({_said(error)}); set TMPDIR to a folder that can "
            "be written"
        ) from error
    return Path(name)


def _check(extra: bytes, certificate: Path) -> None:
    """Refuse what libcurl would refuse at every request."""
    blocks = _BLOCK.findall(extra)
    if not blocks:
        raise ConfigurationError(f"certificate: {certificate} holds no certificate in PEM form")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
            cadata=b"\n".join(blocks).decode("ascii")
        )
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"certificate: {certificate} is damaged; export the certificate anew in PEM form"
        ) from error


def _said(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
