"""Listings of public buckets, in the XML of S3: what to request, and what a page holds.

A listing has pages of at most 1,000 keys, in the order of their bytes. Version 1 of the protocol goes on
after a key (`marker`), version 2 with an opaque token.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from xml.etree import ElementTree as ET

import attrs

from marketfetch.decoding.layouts import decode_errors_as, excerpt
from marketfetch.errors import DecodeError, PaginationError
from marketfetch.values.archives import ArchiveFile

__all__ = ["ListingPage", "ListingRequest", "error_code", "parse_listing"]


@attrs.frozen
class ListingPage:
    """One page of a listing: files and directories, each in the order of their keys.

    - `is_truncated`: whether more follows.
    - `last`: the greatest key or directory of the page; empty text if it has none.
    - `next_marker`, `next_token`: where the next page begins, if the page says so.
    """

    files: tuple[ArchiveFile, ...]
    prefixes: tuple[str, ...] = ()
    is_truncated: bool = False
    last: str = ""
    next_marker: str | None = None
    next_token: str | None = None


@attrs.frozen
class ListingRequest:
    """A request for one page of a listing: all keys that begin with `prefix` and come after the key `after`.

    With the delimiter `/`, keys are grouped by directory.

    >>> request = ListingRequest("data/spot/", delimiter="/", version=1)
    >>> page = ListingPage((), ("data/spot/daily/",), is_truncated=True, last="data/spot/daily/")
    >>> request.following(page).parameters
    {'prefix': 'data/spot/', 'max-keys': '1000', 'delimiter': '/', 'marker': 'data/spot/daily/'}
    """

    prefix: str
    delimiter: str = ""
    version: Literal[1, 2] = 2
    after: str = ""
    token: str | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the query, not yet encoded."""
        # KuCoin answers a prefix alone with a page for browsers.
        query = {"prefix": self.prefix, "max-keys": "1000"}
        if self.delimiter:
            query["delimiter"] = self.delimiter
        if self.version == 1:
            return query | ({"marker": self.after} if self.after else {})
        query["list-type"] = "2"
        if self.token is not None:
            return query | {"continuation-token": self.token}
        return query | ({"start-after": self.after} if self.after else {})

    def following(self, page: ListingPage) -> ListingRequest | None:
        """Return the request for the page after this one; None after the last one.

        Raises DecodeError if the page has keys that were not asked for, as a cache answers that does not look
        at the query, and PaginationError if more is announced but the page makes no progress.
        """
        names = [*(file.key for file in page.files), *page.prefixes]
        stray = next((name for name in names if not name.startswith(self.prefix)), None)
        if stray is not None:
            raise DecodeError(f"expected keys that begin with {self.prefix!r}, found {stray[:200]!r}")
        if names and min(names) <= self.after:
            raise PaginationError(f"keys after {self.after!r} were asked for, and {min(names)!r} came again")
        if not page.is_truncated:
            return None
        after = max(page.last, page.next_marker or "")
        if self.version == 2 and page.next_token in {None, "", self.token}:
            raise PaginationError(f"the listing of {self.prefix!r} goes on without a new token")
        if after <= self.after:
            raise PaginationError(f"the listing of {self.prefix!r} goes on, but not beyond {self.after!r}")
        return attrs.evolve(self, after=after, token=page.next_token if self.version == 2 else None)


def parse_listing(body: bytes) -> ListingPage:
    """Read a page of a listing, of version 1 or 2; DecodeError if the body is not one, or is an error in XML.

    >>> body = (
    ...     b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a/b.zip</Key><Size>7</Size>"
    ...     b"<LastModified>2024-07-05T08:11:27.000Z</LastModified></Contents></ListBucketResult>"
    ... )
    >>> parse_listing(body).files
    (ArchiveFile(key='a/b.zip', size=7, modified=1720167087000, etag=''),)
    """
    root = _parsed(body)
    if _tag(root) == "Error":
        raise DecodeError(f"expected a listing, found the error {_text(root, 'Code')}: {excerpt(body)}")
    if _tag(root) != "ListBucketResult":
        raise DecodeError(f"expected a listing, found {excerpt(body)}")
    with decode_errors_as("a listing with keys, sizes and times"):
        files = tuple(_file(entry) for entry in root.iterfind("{*}Contents"))
        # The Prefix of the listing itself repeats the request: it is not a directory.
        prefixes = tuple(_required(group, "Prefix") for group in root.iterfind("{*}CommonPrefixes"))
        return ListingPage(
            # An empty object whose key ends with / only makes a directory visible in file managers.
            tuple(file for file in files if file.name),
            prefixes,
            {"true": True, "false": False}[_required(root, "IsTruncated")],
            max([*(file.key for file in files), *prefixes], default=""),
            _text(root, "NextMarker"),
            _text(root, "NextContinuationToken"),
        )


def error_code(body: bytes) -> str | None:
    """Return the code of an error in XML, such as NoSuchKey or AccessDenied; None for any other body.

    >>> error_code(b"<Error><Code>NoSuchKey</Code><Key>a.zip</Key></Error>")
    'NoSuchKey'
    """
    try:
        root = _parsed(body)
    except DecodeError:
        return None
    return _text(root, "Code") if _tag(root) == "Error" else None


def _parsed(body: bytes) -> ET.Element:
    """Parse XML without a document type: only in one can entities be defined that expand without end."""
    try:
        text = body.decode("utf-8-sig")
        if "<!DOCTYPE" in text:
            raise DecodeError(f"expected XML without a document type, found {excerpt(body)}")
        return ET.fromstring(text)  # noqa: S314  # what makes it dangerous is refused above
    except (ET.ParseError, ValueError) as error:
        raise DecodeError(f"not XML ({error}): {excerpt(body)}") from None


def _tag(element: ET.Element) -> str:
    """Return the name of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def _text(element: ET.Element, name: str) -> str | None:
    return element.findtext(f"{{*}}{name}")


def _required(element: ET.Element, name: str) -> str:
    text = _text(element, name)
    if not text:
        raise LookupError(name)
    return text


def _file(entry: ET.Element) -> ArchiveFile:
    modified = datetime.fromisoformat(_required(entry, "LastModified"))
    if modified.tzinfo is None:
        raise ValueError(f"{modified} has no time zone")
    size = int(_required(entry, "Size"))
    if size < 0:
        raise ValueError(f"a size of {size}")
    milliseconds = round(modified.timestamp() * 1000)
    return ArchiveFile(_required(entry, "Key"), size, milliseconds, _text(entry, "ETag") or "")
