"""Keeping secrets out of everything that is shown."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

import attrs

__all__ = ["Secret", "redact"]

_CREDENTIALS = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@]*@")
_PASSWORD = re.compile(
    r"(?P<key>password|passwd|pwd|api_?key|secret|token)(?P<eq>\s*[=:]\s*)('[^']*'|\S+)", re.IGNORECASE
)


def redact(text: str) -> str:
    """Cut credentials out of URLs and connection strings.

    >>> redact("cannot reach http://user:hunter2@10.0.0.1:3128/")
    'cannot reach http://***@10.0.0.1:3128/'
    """
    text = _CREDENTIALS.sub(r"\g<scheme>***@", text)
    return _PASSWORD.sub(r"\g<key>\g<eq>***", text)


@attrs.frozen(repr=False, order=False)
class Secret:
    """Text that may hold credentials: `reveal()` is the only way to read it.

    It shows itself redacted, and it refuses to be pickled.

    >>> Secret("http://user:hunter2@10.0.0.1:3128")
    Secret('http://***@10.0.0.1:3128')
    """

    _text: str

    def reveal(self) -> str:
        """Return the text with its credentials; call it only where it is handed to the wire."""
        return self._text

    def split(self) -> SplitResult:
        """Parse the text as a URL."""
        return urlsplit(self._text)

    def __str__(self) -> str:
        return redact(self._text)

    def __repr__(self) -> str:
        return f"Secret({redact(self._text)!r})"

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled; pass the configuration anew in the other process")
