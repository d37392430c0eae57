"""Listings of an archive as S3 sends them: version 1 with markers, version 2 with tokens; errors as XML."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from xml.etree import ElementTree as ET

import attrs

from marketfetch.testing.http.messages import ServerReply
from marketfetch.testing.venues.venue import integer
from marketfetch.values.archives import ArchiveFile
from marketfetch.values.spans import format_utc

__all__ = ["LARGEST_PAGE", "ListingQuery", "S3Error", "ServedListingPage", "write_error", "write_listing"]

LARGEST_PAGE = 1000
"""The largest page of a listing, in keys and common prefixes."""
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>\n'
_START = "after:"
"""The beginning of a continuation token's text; the key or common prefix follows."""
_BEHIND_ALL = "\U0010ffff"
"""Text that sorts behind all keys which continue a common prefix."""


@attrs.frozen
class S3Error(Exception):
    """Raised for a request that S3 refuses with this status, code and message."""

    status: int
    code: str
    message: str

    @classmethod
    def no_such_key(cls) -> S3Error:
        """Return the error for a missing key in a bucket that can be listed."""
        return cls(404, "NoSuchKey", "The specified key does not exist.")

    @classmethod
    def access_denied(cls) -> S3Error:
        """Return the error of a bucket that cannot be listed, also for a missing key."""
        return cls(403, "AccessDenied", "Access Denied")


@attrs.frozen
class ListingQuery:
    """The parameters of a listing. `after` is the key or common prefix behind which the page begins.

    >>> ListingQuery.parse({"prefix": "data/", "delimiter": "/", "marker": "data/futures/"}).after
    'data/futures/'
    """

    prefix: str = ""
    delimiter: str = ""
    after: str = ""
    limit: int = LARGEST_PAGE
    params: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def parse(cls, params: Mapping[str, str]) -> ListingQuery:
        """Return the query of a request's parameters. Raises S3Error."""
        limit = integer(params.get("max-keys", str(LARGEST_PAGE)))
        if limit is None:
            raise S3Error(400, "InvalidArgument", "Provided max-keys not an integer or within integer range")
        if params.get("list-type") == "2":
            token = params.get("continuation-token")
            after = params.get("start-after", "") if token is None else _key_of(token)
        else:
            after = params.get("marker", "")
        return cls(params.get("prefix", ""), params.get("delimiter", ""), after, limit, params)

    @property
    def is_second_version(self) -> bool:
        """Whether the request has `list-type=2`."""
        return self.params.get("list-type") == "2"

    def page(self, keys: Callable[[str, str], Iterator[str]], size: int) -> ServedListingPage:
        """Return the page; `keys(prefix, after)` yields keys in byte order, `size` is the archive's limit."""
        count = min(self.limit, size, LARGEST_PAGE)
        found = list(islice(self._entries(keys), count + 1))
        return ServedListingPage(tuple(found[:count]), truncated=0 < count < len(found))

    def _entries(self, keys: Callable[[str, str], Iterator[str]]) -> Iterator[str]:
        """Yield keys and common prefixes behind `after`, in byte order."""
        behind: str | None = self.after
        while behind is not None:
            start, behind = behind, None
            for key in keys(self.prefix, start):
                rest = key[len(self.prefix) :]
                if not self.delimiter or self.delimiter not in rest:
                    yield key
                    continue
                common = f"{self.prefix}{rest.partition(self.delimiter)[0]}{self.delimiter}"
                if common > self.after:
                    yield common
                # Begin again behind all other keys of the common prefix, which need not be computed.
                behind = common + _BEHIND_ALL
                break


@attrs.frozen
class ServedListingPage:
    """The keys and common prefixes of a page, in byte order, and whether more follow."""

    entries: tuple[str, ...]
    truncated: bool = attrs.field(kw_only=True)


def write_listing(
    bucket: str, query: ListingQuery, page: ServedListingPage, entry: Callable[[str], ArchiveFile | None]
) -> ServerReply:
    """Return the XML of a page; `entry` returns size, time and ETag of a key, None for a common prefix."""
    root = ET.Element("ListBucketResult", xmlns=_NAMESPACE)
    files = {key: entry(key) for key in page.entries}
    last = page.entries[-1] if page.truncated else None
    _add(root, Name=bucket, Prefix=query.prefix, MaxKeys=str(query.limit), Delimiter=query.delimiter or None)
    if query.is_second_version:
        token = None if last is None else _token_of(last)
        _add(root, StartAfter=query.params.get("start-after"), KeyCount=str(len(files)))
        _add(root, ContinuationToken=query.params.get("continuation-token"), NextContinuationToken=token)
    else:
        _add(root, Marker=query.after, NextMarker=last if query.delimiter else None)
    _add(root, IsTruncated="false" if last is None else "true")
    for file in files.values():
        if file is not None:
            contents = ET.SubElement(root, "Contents")
            _add(contents, Key=file.key, LastModified=_time(file.modified), ETag=file.etag)
            _add(contents, Size=str(file.size), StorageClass="STANDARD")
    for key, file in files.items():
        if file is None:
            _add(ET.SubElement(root, "CommonPrefixes"), Prefix=key)
    return _xml(200, root)


def write_error(error: S3Error, key: str) -> ServerReply:
    """Return the reply to a request that S3 refuses.

    >>> write_error(S3Error.no_such_key(), "a&b").body
    b'<?xml...<Error><Code>NoSuchKey</Code><Message>...</Message><Key>a&amp;b</Key>...</Error>'
    """
    root = ET.Element("Error")
    _add(root, Code=error.code, Message=error.message, Key=key, RequestId="0000000000000000", HostId="")
    return _xml(error.status, root)


def _add(parent: ET.Element, **texts: str | None) -> None:
    """Append an element for each text but None."""
    for name, text in texts.items():
        if text is not None:
            ET.SubElement(parent, name).text = text


def _xml(status: int, root: ET.Element) -> ServerReply:
    body = _DECLARATION + ET.tostring(root, encoding="utf-8")
    return ServerReply(status, body, {"Content-Type": "application/xml", "Server": "AmazonS3"})


def _time(ms: int) -> str:
    # Always with milliseconds, which are 0.
    return format_utc(ms // 1000 * 1000).replace("Z", ".000Z")


def _token_of(key: str) -> str:
    # Backwards, so that nobody takes a token for a key: a token's text begins with the end of the key.
    return base64.b64encode(f"{_START}{key}"[::-1].encode()).decode()


def _key_of(token: str) -> str:
    try:
        text = base64.b64decode(token.encode(), validate=True).decode()[::-1]
    except (binascii.Error, UnicodeError):
        text = ""
    if not text.startswith(_START):
        raise S3Error(400, "InvalidArgument", "The continuation token provided is incorrect")
    return text.removeprefix(_START)
