"""Listings of buckets are read page by page; a listing that repeats itself or is cut is an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote
from xml.sax.saxutils import escape

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfetch.archives.listing import ListingPage, ListingRequest, error_code, parse_listing
from marketfetch.errors import DecodeError, PaginationError

FOLDER = "data/futures/um/monthly/klines/BTCUSDT/1m/"
RECORDED = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Name>data.binance.vision</Name><Prefix>data/</Prefix><Marker></Marker><NextMarker>data/b/</NextMarker>
  <MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter><IsTruncated>true</IsTruncated>
  <Contents><Key>data/</Key><LastModified>2021-01-01T00:00:00.000Z</LastModified><Size>0</Size></Contents>
  <Contents><Key>data/a&amp;b.zip</Key><LastModified>2024-07-05T08:11:27.000Z</LastModified>
    <ETag>&quot;0cc1&quot;</ETag><Size>1692758</Size><StorageClass>STANDARD</StorageClass></Contents>
  <CommonPrefixes><Prefix>data/b/</Prefix></CommonPrefixes>
</ListBucketResult>"""


@attrs.frozen
class Bucket:
    """A bucket that answers as S3 does, with small pages."""

    keys: Sequence[str]
    size: int = 3

    def answer(self, query: dict[str, str]) -> bytes:
        v2 = query.get("list-type") == "2"
        after = query.get("continuation-token") or query.get("start-after") or query.get("marker") or ""
        prefix, delimiter = query["prefix"], query.get("delimiter")
        entries: dict[str, bool] = {}
        for key in sorted(self.keys):
            if key.startswith(prefix):
                head, found, _ = key[len(prefix) :].partition(delimiter or "\0")
                entries[prefix + head + (found if delimiter else "")] = bool(found and delimiter)
        names = [name for name in entries if name > after]
        page, more = names[: self.size], len(names) > self.size
        body = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            if entries[name]
            else f"<Contents><Key>{escape(name)}</Key><Size>1</Size>"
            "<LastModified>2024-07-05T08:11:27.000Z</LastModified></Contents>"
            for name in page
        )
        if more and v2:
            body += f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>"
        elif more and delimiter:
            body += f"<NextMarker>{escape(page[-1])}</NextMarker>"
        head = f"<Prefix>{escape(prefix)}</Prefix><IsTruncated>{str(more).lower()}</IsTruncated>"
        return f"<ListBucketResult>{head}{body}</ListBucketResult>".encode()


def listed(bucket: Bucket, request: ListingRequest) -> tuple[list[str], list[str]]:
    files: list[str] = []
    prefixes: list[str] = []
    following: ListingRequest | None = request
    while following is not None:
        page = parse_listing(bucket.answer(following.parameters))
        files += [file.key for file in page.files]
        prefixes += page.prefixes
        following = following.following(page)
    return files, prefixes


names = st.text("abc-.é𝄞", min_size=1, max_size=3)


@given(
    st.sets(st.builds("{}/{}".format, st.sampled_from(["a", "b", "c/d"]), names), max_size=15),
    st.sampled_from([1, 2]),
    st.integers(1, 4),
    st.sampled_from(["", "a/", "c/"]),
)
def test_every_key_is_listed_once_and_in_order(
    keys: set[str], version: Literal[1, 2], size: int, prefix: str
) -> None:
    bucket = Bucket(sorted(keys), size)
    expected = sorted(key for key in keys if key.startswith(prefix))
    assert listed(bucket, ListingRequest(prefix, version=version)) == (expected, [])
    _, found = listed(bucket, ListingRequest("", "/", version))
    assert found == sorted({key.partition("/")[0] + "/" for key in keys})


def test_a_listing_may_begin_after_a_key() -> None:
    keys = [
        f"{FOLDER}BTCUSDT-1m-2024-0{month}.zip{end}" for month in range(1, 6) for end in ("", ".CHECKSUM")
    ]
    for version in (1, 2):
        request = ListingRequest(FOLDER, version=version, after=f"{FOLDER}BTCUSDT-1m-2024-04")
        assert listed(Bucket(keys), request)[0] == sorted(keys)[6:]


def test_a_page_has_files_and_directories_but_not_its_own_prefix() -> None:
    page = parse_listing(RECORDED.encode())
    (file,) = page.files
    assert (file.key, file.size, file.modified) == ("data/a&b.zip", 1_692_758, 1_720_167_087_000)
    assert file.etag == '"0cc1"'
    assert page.prefixes == ("data/b/",)
    assert ListingRequest("data/", "/", 1).following(page) == ListingRequest("data/", "/", 1, after="data/b/")


def page(*keys: str, more: bool = True, token: str | None = None) -> ListingPage:
    bucket = Bucket(keys, len(keys) or 1)
    return attrs.evolve(parse_listing(bucket.answer({"prefix": ""})), is_truncated=more, next_token=token)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (ListingRequest("a", version=1), page()),
        (ListingRequest("a", version=1, after="a2"), page("a1", "a2")),
        (ListingRequest("a", version=1, after="a2"), page("a1", "a2", more=False)),
        (ListingRequest("a", version=2), page("a1")),
        (ListingRequest("a", version=2, token="t"), page("a1", token="t")),
        (ListingRequest("a", version=2, after="a1", token="t"), page(token="u")),
        (ListingRequest("a", version=2, after="a1", token="t"), page("a1", token="u")),
    ],
)
def test_a_listing_without_progress_is_an_error(request_: ListingRequest, answer: ListingPage) -> None:
    with pytest.raises(PaginationError):
        request_.following(answer)


def test_keys_that_were_not_asked_for_are_an_error() -> None:
    with pytest.raises(DecodeError, match="begin with 'spot/'"):
        ListingRequest("spot/").following(page("futures/a", more=False))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<!DOCTYPE html><html><body>Blocked</body></html>", "<html>"),
        (b"<html><head></head></html>", "<html>"),
        (b"", "not XML"),
        (b'{"code":0}', "not XML"),
        (RECORDED.encode()[:-300], "not XML"),
        (RECORDED.replace("<Size>1692758</Size>", "").encode(), "Size"),
        (RECORDED.replace("1692758", "-1").encode(), "size"),
        (RECORDED.replace("27.000Z", "27.000").encode(), "time zone"),
        (RECORDED.replace("<IsTruncated>true</IsTruncated>", "").encode(), "IsTruncated"),
        (RECORDED.replace("true<", "yes<").encode(), "yes"),
        (RECORDED.replace("UTF-8", "UTF-16").encode("utf-16"), "not XML"),
        (b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>", "AccessDenied"),
        (
            b'<!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><ListBucketResult>&b;</ListBucketResult>',
            "document type",
        ),
    ],
)
def test_anything_else_is_refused_by_what_it_is(body: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        parse_listing(body)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(quote(RECORDED).encode())
def test_no_body_raises_anything_else(body: bytes) -> None:
    assert error_code(body) is None
    with pytest.raises(DecodeError):
        parse_listing(body)


def test_the_code_of_an_error_tells_what_is_absent_from_what_is_blocked() -> None:
    assert error_code(b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>') == "NoSuchKey"
    assert error_code(b"<html><body>Request blocked</body></html>") is None
