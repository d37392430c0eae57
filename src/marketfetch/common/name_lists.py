"""Parsing of names, which callers pass as one text or as a list of texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from marketfetch.common.text import is_encodable
from marketfetch.common.type_checks import kind_of
from marketfetch.errors import ConfigurationError
from marketfetch.redaction import redact

__all__ = ["names_of"]

_SEPARATORS = re.compile(r"[,\s]+")


def names_of(argument: str, value: object) -> tuple[str, ...]:
    """Return the names in a text or an iterable of texts, in order and without duplicates.

    A text is split at commas and white space; no exchange has a symbol with these. Of a blank text the name
    is empty. A text with a credential is not split, so that the caller can refuse it as a whole. Raises
    ConfigurationError, with the name of the `argument`, for a value that is not text, and for text with half
    of a character.

    >>> names_of("symbols", "BTCUSDT, ETHUSDT"), names_of("symbols", ["BTCUSDT", "BTCUSDT"])
    (('BTCUSDT', 'ETHUSDT'), ('BTCUSDT',))
    >>> names_of("symbols", [1])
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: symbols: 1 is not a name; write text such as 'BTCUSDT', ...
    """
    is_single = isinstance(value, str | bytes | bytearray)  # iterating bytes would give numbers
    several = [value] if is_single or not isinstance(value, Iterable) else value
    names: dict[str, None] = {}
    for name in several:
        if not isinstance(name, str):
            kind = kind_of(name) if isinstance(name, type) else redact(repr(name))
            raise ConfigurationError(f"{argument}: {kind} is not a name; {_remedy(name)}")
        if not is_encodable(name):
            raise ConfigurationError(
                f"{argument}: {redact(repr(name))} is not a name: bytes of it could not be decoded"
            )
        names.update(dict.fromkeys(_split(name)))
    return tuple(names)


def _remedy(wrong: object) -> str:
    symbol = getattr(wrong, "symbol", None)  # of an Instrument, say
    if isinstance(symbol, str):
        return f"write its symbol, {redact(repr(symbol))}"
    return "write text such as 'BTCUSDT', or a list of texts"


def _split(name: str) -> list[str]:
    if redact(name) != name:
        return [name]
    return [str(part) for part in _SEPARATORS.split(name) if part] or [""]
