"""The certificate authorities that are trusted, in one temporary file, because libcurl takes one file."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkstemp
from threading import Lock

import attrs
from anyio import CancelScope, to_thread
from curl_cffi.curl import DEFAULT_CACERT

from marketfetch.common.text import file_error_reason
from marketfetch.errors import ConfigurationError

__all__ = ["ca_file"]

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@asynccontextmanager
async def ca_file(certificate: Path | None) -> AsyncGenerator[str]:
    """Give the path of a PEM file with the usual authorities and the authorities in `certificate`.

    The usual authorities are those of the system, or of certifi if the system has none. The file is deleted
    when the block is left. Raises ConfigurationError if `certificate` cannot be read or holds no certificate,
    and if the temporary file cannot be made or written.
    """
    if certificate is None:
        yield DEFAULT_CACERT
        return
    bundle = _Bundle()
    try:
        yield str(await to_thread.run_sync(bundle.make, certificate))
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(bundle.delete)


@attrs.define
class _Bundle:
    """A temporary file that is made and deleted on worker threads.

    `make` may still run when `delete` is called: a task that is cancelled does not stop its worker thread.
    With the lock `delete` waits for `make`, and a `make` that comes later makes no file.
    """

    _path: Path | None = None
    _deleted: bool = False
    _lock: Lock = attrs.field(factory=Lock)

    def make(self, certificate: Path) -> Path | None:
        """Write both files into a temporary file and return its path."""
        with self._lock:
            if not self._deleted:
                content = _joined(certificate)
                self._path = _make_file()
                _write(self._path, content)
            return self._path

    def delete(self) -> None:
        """Delete the file, if there is one, also if it was not written to the end."""
        with self._lock:
            self._deleted = True
            if self._path is not None:
                self._path.unlink(missing_ok=True)


def _joined(certificate: Path) -> bytes:
    """Return the content of both files; ConfigurationError names the file that is wrong."""
    try:
        extra = certificate.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"certificate: {certificate} cannot be read ({file_error_reason(error)})"
        ) from error
    _check(extra, certificate)
    try:
        usual = Path(DEFAULT_CACERT).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"certificate: the usual authorities in {DEFAULT_CACERT} cannot be read "
            f"({file_error_reason(error)}); install the certificates of the system"
        ) from error
    return usual + b"\n" + extra


def _make_file() -> Path:
    try:
        descriptor, name = mkstemp(prefix="marketfetch-", suffix=".pem")
    except OSError as error:
        raise ConfigurationError(
            f"certificate: no temporary file can be made ({file_error_reason(error)}); "
            "set TMPDIR to a folder that can be written"
        ) from error
    os.close(descriptor)
    return Path(name)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(
            f"certificate: the temporary file {path} cannot be written ({file_error_reason(error)}); "
            f"make room in {path.parent}"
        ) from error


def _check(extra: bytes, certificate: Path) -> None:
    """Raise ConfigurationError for a file that libcurl would refuse at every request."""
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
