"""The simulated archive's listings: S3's two versions, page by page."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.testing import ArchiveOptions, GeneratedMarket, MarketInstrument, SimulatedArchive
from marketfetch.testing.archives.listing import ListingQuery
from marketfetch.testing.venues.binance_common import SPOT_INTERVALS
from tests.testing.client import Client, client_of

NS = "{http://s3.amazonaws.com/doc/2006-03-01/}"
NOW = int(datetime(2024, 3, 7, tzinfo=UTC).timestamp() * 1000)
LISTED = int(datetime(2024, 2, 20, tzinfo=UTC).timestamp() * 1000)
SYMBOLS = ["BTCUSDT", "1000SATSUSDT", "BTCDOMUSDT"]
DAYS = "data/futures/um/daily/klines/BTCUSDT/1h/"
market = GeneratedMarket([*SYMBOLS, MarketInstrument.parse("BTCSTUSDT", NOW + 1)], listed_at=LISTED)


@attrs.frozen
class Listing:
    root: ET.Element

    def text(self, name: str) -> str | None:
        return self.root.findtext(f"{NS}{name}")

    @property
    def keys(self) -> list[str]:
        return [element.text or "" for element in self.root.findall(f"{NS}Contents/{NS}Key")]

    @property
    def directories(self) -> list[str]:
        return [element.text or "" for element in self.root.findall(f"{NS}CommonPrefixes/{NS}Prefix")]

    @property
    def truncated(self) -> bool:
        return {"true": True, "false": False}[self.text("IsTruncated") or ""]


@pytest.fixture(scope="module")
def archive() -> Iterator[SimulatedArchive]:
    with SimulatedArchive(market, ArchiveOptions(now=lambda: NOW)) as running:
        yield running


@pytest.fixture(scope="module")
def client(archive: SimulatedArchive) -> Iterator[Client]:
    with client_of(archive) as connected:
        yield connected


def named(params: dict[str, Any]) -> dict[str, str]:
    return {name.replace("_", "-"): quote(str(value)) for name, value in params.items()}


def list_page(client: Client, path: str = "/", **params: Any) -> Listing:
    answer = client.get(path, None, **named(params))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/xml"
    return Listing(ET.fromstring(answer.body))


def first_version(client: Client, **params: Any) -> Iterator[Listing]:
    """Walk by markers: NextMarker where there is one, else the last key."""
    page = list_page(client, **params)
    while page.truncated:
        yield page
        marker = page.text("NextMarker") or page.keys[-1]
        page = list_page(client, marker=marker, **params)
    yield page


def second_version(client: Client, **params: Any) -> Iterator[Listing]:
    page = list_page(client, list_type=2, **params)
    while page.truncated:
        yield page
        token = page.text("NextContinuationToken")
        page = list_page(client, list_type=2, continuation_token=token, **params)
    yield page


Walk = Callable[..., Iterator[Listing]]


@pytest.mark.parametrize("walk", [first_version, second_version])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_pages_give_every_key_once_in_byte_order(
    archive: SimulatedArchive, client: Client, walk: Walk, size: int
) -> None:
    pages = list(walk(client, prefix=DAYS, max_keys=size))
    keys = [key for page in pages for key in page.keys]
    assert keys == archive.keys(DAYS) == sorted(keys, key=str.encode)
    assert len(keys) == 2 * 15
    assert {len(page.keys) for page in pages[:-1]} <= {size}
    assert keys[1] == f"{keys[0]}.CHECKSUM"


@pytest.mark.parametrize("walk", [first_version, second_version])
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_delimiter_makes_directories(client: Client, walk: Walk, size: int) -> None:

    def directories(prefix: str) -> list[str]:
        pages = list(walk(client, prefix=prefix, delimiter="/", max_keys=size))
        assert not [key for page in pages for key in page.keys]
        return [name.removeprefix(prefix) for page in pages for name in page.directories]

    assert directories("") == ["data/"]
    assert directories("data/") == ["futures/", "spot/"]
    assert directories("data/futures/um/daily/klines/") == sorted(f"{symbol}/" for symbol in SYMBOLS)
    assert directories("data/spot/monthly/klines/BTCUSDT/") == sorted(
        f"{name.replace('1M', '1mo')}/" for name in SPOT_INTERVALS
    )
    assert "1s/" not in directories("data/futures/um/daily/klines/BTCUSDT/")
    assert set(directories("data/spot/monthly/klines/BTCUSDT/")) - set(
        directories("data/spot/daily/klines/BTCUSDT/")
    ) == {"3d/", "1w/", "1mo/"}
    assert directories("data/futures/um/daily/") == [
        "indexPriceKlines/",
        "klines/",
        "markPriceKlines/",
        "metrics/",
        "premiumIndexKlines/",
    ]


def test_other_prefixes_and_delimiters_are_texts(client: Client) -> None:
    assert list_page(client, prefix="data/fut", delimiter="/").directories == ["data/futures/"]
    assert list_page(client, prefix="data/futures/um/daily/klines/BTC", delimiter="/").directories == [
        "data/futures/um/daily/klines/BTCDOMUSDT/",
        "data/futures/um/daily/klines/BTCUSDT/",
    ]
    mixed = list_page(client, prefix=f"{DAYS}BTCUSDT-1h-2024-03-0", delimiter="C")
    assert mixed.directories == [f"{name}.C" for name in mixed.keys]
    assert len(mixed.keys) == 5
    assert list_page(client, prefix="nothing").keys == []


def test_a_marker_may_be_the_start_of_a_key(archive: SimulatedArchive, client: Client) -> None:
    keys = archive.keys(DAYS)
    march = f"{DAYS}BTCUSDT-1h-2024-03-01"
    at = keys.index(f"{march}.zip")
    for marker, first in ((march, at), (f"{march}.zip", at + 1), (f"{march}.zip.CHECKSUM", at + 2)):
        assert list_page(client, prefix=DAYS, marker=marker).keys == keys[first:]
        assert list_page(client, prefix=DAYS, list_type=2, start_after=marker).keys == keys[first:]
        assert list_page(client, prefix=DAYS, delimiter="/", marker=marker).keys == keys[first:]
    assert list_page(client, prefix=DAYS, marker="data/spot").keys == []
    assert list_page(client, prefix=DAYS, marker="a").keys == keys


def test_a_marker_may_be_a_directory(client: Client) -> None:
    prefix = "data/futures/um/daily/klines/"
    page = list_page(client, prefix=prefix, delimiter="/", marker=f"{prefix}BTCDOMUSDT/")
    assert page.directories == [f"{prefix}BTCUSDT/"]


def test_next_marker_comes_with_a_delimiter_alone(client: Client) -> None:
    plain = list_page(client, prefix=DAYS, max_keys=3)
    assert plain.truncated
    assert plain.text("NextMarker") is None
    cut = list_page(client, prefix=DAYS, max_keys=3, delimiter="/")
    assert cut.text("NextMarker") == cut.keys[-1]
    assert list_page(client, prefix=DAYS, delimiter="/").text("NextMarker") is None
    assert plain.text("KeyCount") is None


def test_keys_and_directories_count_together(client: Client) -> None:
    page = list_page(client, prefix="data/futures/um/daily/klines/", delimiter="/", list_type=2, max_keys=2)
    assert (page.text("KeyCount"), len(page.directories), page.truncated) == ("2", 2, True)
    token = page.text("NextContinuationToken")
    assert token is not None
    assert page.directories[-1] not in token
    empty = list_page(client, prefix=DAYS, max_keys=0)
    assert (empty.keys, empty.truncated) == ([], False)


def test_a_large_page_is_echoed_and_not_given(client: Client) -> None:
    prefix = "data/futures/um/monthly/"
    page = list_page(client, prefix="data/futures/um/daily/", max_keys=5000)
    assert page.text("MaxKeys") == "5000"
    assert len(page.keys) == 1000
    assert page.truncated
    assert list_page(client, prefix=prefix).text("MaxKeys") == "1000"
    assert page.text("Prefix") == "data/futures/um/daily/"
    assert page.text("Name") == "data.binance.vision"


def test_an_archive_may_have_smaller_pages() -> None:
    with (
        SimulatedArchive(market, ArchiveOptions(now=lambda: NOW, page_size=4)) as small,
        client_of(small) as client,
    ):
        pages = list(first_version(client, prefix=DAYS, delimiter="/"))
        assert [len(page.keys) for page in pages] == [4] * 7 + [2]
        assert [key for page in pages for key in page.keys] == small.keys(DAYS)


def test_entries_have_size_time_and_etag_of_the_files(archive: SimulatedArchive, client: Client) -> None:
    page = list_page(client, "/data.binance.vision", prefix=DAYS)
    assert page.keys == archive.keys(DAYS)
    for entry in page.root.findall(f"{NS}Contents"):
        key, modified, etag, size, storage = (
            entry.findtext(f"{NS}{name}") for name in ("Key", "LastModified", "ETag", "Size", "StorageClass")
        )
        assert key is not None
        body = archive.read(key)
        assert etag == f'"{hashlib.md5(body).hexdigest()}"'
        assert (size, storage) == (str(len(body)), "STANDARD")
        day = date.fromisoformat(key.removesuffix(".CHECKSUM")[-14:-4])
        assert modified == f"{day + timedelta(days=1)}T08:00:00.000Z"


def test_other_objects_are_listed_among_the_files() -> None:
    with SimulatedArchive(market, ArchiveOptions(now=lambda: NOW)) as running, client_of(running) as client:
        keys = running.keys(DAYS)
        odd, below = f"{DAYS}BTCUSDT-1h-2024-3-1.zip", f"{DAYS}old/BTCUSDT-1h-2024-03-01.zip"
        for key in (odd, below, "data2/odd.zip", keys[0]):
            running.put(key, b"by hand")
        assert list_page(client, prefix=DAYS).keys == sorted([*keys, odd, below])
        assert list_page(client, prefix=DAYS, delimiter="/").directories == [f"{DAYS}old/"]
        assert list_page(client, delimiter="/").directories == ["data/", "data2/"]
        for key in (odd, keys[0]):
            assert client.get(f"/{key}").body == b"by hand"
        assert list_page(client, prefix=odd).root.findtext(f"{NS}Contents/{NS}Size") == "7"
        running.reissue(keys[0])
        assert client.get(f"/{keys[0]}").body != b"by hand"
        assert running.keys(DAYS) == sorted([*keys, odd, below])


def test_symbols_are_escaped() -> None:
    odd = MarketInstrument("A&B<币>", "A&B<币>", "USDT", "USDT", LISTED)
    with (
        SimulatedArchive(GeneratedMarket([odd]), ArchiveOptions(now=lambda: NOW)) as running,
        client_of(running) as client,
    ):
        prefix = "data/spot/daily/klines/"
        assert list_page(client, prefix=prefix, delimiter="/").directories == [f"{prefix}{odd.symbol}/"]
        (key, *_) = list_page(client, prefix=f"{prefix}{odd.symbol}/1d/").keys
        assert client.get(f"/{quote(key)}").body == running.read(key)


@pytest.mark.parametrize(
    "params",
    [
        {"max_keys": "many"},
        {"max_keys": -1},
        {"max_keys": ""},
        {"max_keys": "9" * 5000},
        {"list_type": 2, "continuation_token": "é"},
        {"list_type": 2, "continuation_token": "ZGF0YQ=="},
    ],
)
def test_wrong_parameters_are_refused(client: Client, params: dict[str, Any]) -> None:
    answer = client.get("/", None, **named(params))
    assert answer.status == 400
    assert ET.fromstring(answer.body).findtext("Code") == "InvalidArgument"


def test_a_bucket_without_listing_hides_what_is_missing() -> None:
    with (
        SimulatedArchive(market, ArchiveOptions(now=lambda: NOW, listable=False)) as closed,
        client_of(closed) as client,
    ):
        for path in ("/", "/data/nothing.zip"):
            answer = client.get(path)
            assert answer.status == 403
            assert ET.fromstring(answer.body).findtext("Code") == "AccessDenied"
        key = closed.keys(DAYS)[0]
        assert client.get(f"/{key}").body == closed.read(key)


names = st.text("ab/", max_size=4)


@given(
    keys=st.sets(names, max_size=12),
    prefix=names,
    delimiter=st.sampled_from(["", "/", "b"]),
    size=st.integers(1, 4),
)
def test_any_listing_is_walked_to_its_end(keys: set[str], prefix: str, delimiter: str, size: int) -> None:
    def found(wanted: str, after: str) -> Iterator[str]:
        return (key for key in sorted(keys) if key.startswith(wanted) and key > after)

    expected = set()
    for key in found(prefix, ""):
        rest, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        expected.add(prefix + rest + cut if cut else key)
    entries: list[str] = []
    query = ListingQuery(prefix, delimiter)
    while True:
        page = query.page(found, size)
        entries += page.entries
        if not page.truncated:
            break
        query = attrs.evolve(query, after=page.entries[-1])
    assert entries == sorted(expected)
