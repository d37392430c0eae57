"""Reading the names that people write: one or several, in a text or in a list."""

from __future__ import annotations

import re
from collections.abc import Iterable

from marketfetch.errors import ConfigurationError
from marketfetch.redaction import redact

__all__ = ["names_of"]

_BETWEEN = re.compile(r"[,\s]+")


def names_of(argument: str, given: object) -> tuple[str, ...]:
    """Return the names in a text or an iterable of texts, in order and each once.

    Names are parted by commas and white space too: no exchange has such a symbol. What holds a credential is
    left in one piece, for others to refuse it without repeating any of it. Raises ConfigurationError, which
    names the `argument`, for what is no text.

    >>> names_of("symbols", "BTCUSDT, ETHUSDT"), names_of("symbols", ["BTCUSDT", "BTCUSDT"])
    (('BTCUSDT', 'ETHUSDT'), ('BTCUSDT',))
    >>> names_of("symbols", [1])
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: symbols: 1 is not a name; write text such as 'BTCUSDT', ...
    """
    alone = isinstance(given, str | bytes | bytearray)  # the parts of bytes are numbers
    several = [given] if alone or not isinstance(given, Iterable) else given
    names: dict[str, None] = {}
    for name in several:
        if not isinstance(name, str):
            kind = f"the class {name.__name__}" if isinstance(name, type) else redact(repr(name))
            raise ConfigurationError(
                f"{argument}: {kind} is not a name; write text such as 'BTCUSDT', or a list of texts"
            )
        names.update(dict.fromkeys(_parted(name)))
    return tuple(names)


def _parted(name: str) -> list[str]:
    if redact(name) != name:
        return [name]
    return [str(part) for part in _BETWEEN.split(name) if part] or [str(name)]
