"""A temporary certificate authority, so that clients can verify a server on loopback."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

from marketfetch.common.optional_packages import from_extra

__all__ = ["server_context"]


def server_context() -> tuple[ssl.SSLContext, Path]:
    """Return a context for servers on 127.0.0.1 and localhost, and the certificate file of its authority.

    The caller deletes the temporary file. Raises ConfigurationError, which names the extra, without trustme.
    """
    with from_extra("testing", "tls"):
        import trustme

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    with tempfile.NamedTemporaryFile("wb", prefix="simulated-exchange-", suffix=".pem", delete=False) as file:
        file.write(authority.cert_pem.bytes())
    return context, Path(file.name)
