"""Redaction of credentials, and of control characters, in whatever is shown: messages, logs, reports.

If it is not certain which part of a text is a credential, too much is cut rather than too little.
"""

from __future__ import annotations

import re
from typing import NoReturn, Self
from urllib.parse import SplitResult, quote, urlsplit

__all__ = ["Secret", "printable", "redact", "without"]

_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_NAME = (
    r"passw\w{0,30}|passphrase|pwd|api[_-]?key|secret\w{0,30}|token|signature|credentials?"
    # Short names only as whole words: "pass" is one, "compass" and "design" are not.
    r"|(?:private|access|client|server)[_-]?key|(?<![^\W\d_])(?:pass|pw|sign)"
)
_QUOTED = r"(?:'(?:\\.|''|[^'\\])*'?|\"(?:\\.|[^\"\\])*\"?)"
# Text after a closing quote without a space belongs to the value, except the punctuation of a list.
_VALUE = rf"(?:{_QUOTED}(?:(?:\\.|[^\s\\]){{0,1000}}(?:\\.|[^\s,;)\]}}]))?|(?:\\.|\S)+)"
_BEGIN = r"(?<![^\s'\"(\[,=])"

_CUTS = (
    # A password may have an unescaped @ or /, so the last @ of the word ends it. A URL that was made a Path
    # has one slash. Example: http://ann:p@w/x@h:1
    (re.compile(r"(?P<slashes>://?)\S{0,1000}@"), r"\g<slashes>***@"),
    # A password may have spaces: the last @ of the line ends it, or the last @ before another URL.
    (re.compile(r"(?P<slashes>://?)(?!/?\*\*\*@)(?:(?!://).){0,1000}@"), r"\g<slashes>***@"),
    # Proxies without a scheme: host:port:user:password ends at its closing quote or at the end of the line;
    # then user:password@host:port, also with spaces, and user@host:port.
    (
        re.compile(rf"(?P<quote>['\"])(?P<host>{_HOST}:\d{{1,5}}):[^\s:]{{1,1000}}:\S[^\n]*(?P=quote)"),
        r"\g<quote>\g<host>:***\g<quote>",
    ),
    (
        re.compile(rf"(?<![^\s'\"(\[,=/])(?P<host>{_HOST}:\d{{1,5}}):(?!\*\*\*)[^\s:]{{1,1000}}:\S[^\n]*"),
        r"\g<host>:***",
    ),
    (re.compile(rf"{_BEGIN}[^\s:@/'\"(\[,=]+:(?!//?\*\*\*@)\S{{0,1000}}@"), "***@"),
    (
        re.compile(rf"{_BEGIN}[^\s:@/'\"(\[,=]+:(?=\S)[^\n@'\"]{{0,200}}(?<!\*\*\*)@(?={_HOST}:\d)"),
        "***@",
    ),
    (re.compile(rf"{_BEGIN}[^\s:@/'\"(\[,=]+@(?={_HOST}:\d)"), "***@"),
    # The value of a header is the rest of its line.
    (
        re.compile(
            r"(?P<name>\b(?:proxy-)?authorization\b['\"]?\s{0,20}[:=]"
            rf"|(?<![\w-])(?:\w{{1,30}}-){{1,6}}(?:{_NAME})\s{{0,20}}:)[^\n]*",
            re.IGNORECASE,
        ),
        r"\g<name> ***",
    ),
    (
        re.compile(r"(?P<name>\b(?:basic|bearer)\s{1,20})[A-Za-z0-9+/=_.~-]{6,}", re.IGNORECASE),
        r"\g<name>***",
    ),
    (
        re.compile(rf"(?P<name>(?:{_NAME})\\?['\"]?)(?P<is>\s{{0,20}}[=:]\s{{0,20}}){_VALUE}", re.IGNORECASE),
        r"\g<name>\g<is>***",
    ),
)

_MIN_LENGTH = 4
"""A shorter secret occurs in ordinary words, and a cut in these words would show the secret."""

_ADDRESS = re.compile(
    rf"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<user>\S*@)?(?P<place>{_HOST}(?::\d+)?)(?=[/?#]|$)(?!\S*@)"
)


def redact(text: str) -> str:
    """Cut credentials out of URLs, connection strings, headers and settings.

    >>> redact("cannot reach http://user:hunter2@10.0.0.1:3128/")
    'cannot reach http://***@10.0.0.1:3128/'
    >>> redact("host=db.example password=hunter2")
    'host=db.example password=***'
    """
    for pattern, rest in _CUTS:
        text = pattern.sub(rest, text)
    return text


def printable(text: str, *, keep: str = "") -> str:
    r"""Write characters that would change a terminal or forge a line of a log as escapes; `keep` stay.

    >>> print(printable("BTC\x1b[2JUSDT\nETH"))
    BTC\x1b[2JUSDT\nETH
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in text
    )


def without(text: str, secret: str) -> str:
    """Cut a known secret out of a text, but not out of other words that contain its letters.

    A secret of fewer than four characters is cut only in quotes, because it may be a part of ordinary words.
    A longer one is cut as a whole word if it is all letters, and everywhere if it is not.

    >>> without("role ann: hunter2 is wrong", "hunter2"), without("connection to e failed: 'e' is wrong", "e")
    ('role ann: *** is wrong', "connection to e failed: '***' is wrong")
    """
    if not secret:
        return text
    spelt = "|".join(map(re.escape, sorted({secret, quote(secret, safe="")}, key=len, reverse=True)))
    if len(secret) < _MIN_LENGTH:
        return re.sub(rf"(?P<quote>['\"`])(?:{spelt})(?P=quote)", r"\g<quote>***\g<quote>", text)
    word = rf"(?<![^\W_])(?:{spelt})(?![^\W_])" if secret.isalpha() else spelt
    return re.sub(word, "***", text)


class Secret:
    """Text that may hold credentials: only `reveal()` and `split()` show it.

    `str` and `repr` show scheme, host and port of a URL, and "***" for all other text. Pickling a Secret, or
    an object that holds one, raises TypeError. A copy of a Secret is the same object.

    >>> Secret("http://user:hunter2@10.0.0.1:3128")
    Secret('http://***@10.0.0.1:3128')
    >>> Secret("hunter2")
    Secret('***')
    """

    # Not an attrs class: attrs.asdict would return the text.
    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    @classmethod
    def of(cls, text: str | Self) -> Self:
        """Return a secret as it is, and wrap text."""
        return text if isinstance(text, cls) else cls(str(text))

    def reveal(self) -> str:
        """Return the text with its credentials; call it only where the text is sent."""
        return self._text

    def split(self) -> SplitResult:
        """Parse the text as a URL."""
        return urlsplit(self._text)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __str__(self) -> str:
        found = _ADDRESS.match(self._text)
        if found is None:
            return "***"
        return f"{found['scheme']}{'***@' if found['user'] else ''}{found['place']}"

    def __repr__(self) -> str:
        return f"Secret({str(self)!r})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled; pass the configuration anew in the other process")
