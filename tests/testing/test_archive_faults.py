"""The simulated archive's faults: each kind does what it says, where it says, and is the same for a seed."""

from __future__ import annotations

import hashlib
import http.client
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import attrs
import numpy as np
import pytest

from marketfetch.testing import (
    ArchiveFaultKind,
    ArchiveFaults,
    ArchiveOptions,
    GeneratedMarket,
    SimulatedArchive,
)
from marketfetch.testing.archives.csv_text import CsvText
from marketfetch.testing.archives.faults import ArchiveRequest
from marketfetch.testing.archives.paths import ArchivePath
from marketfetch.testing.archives.row_faults import break_rows
from tests.testing.client import Client, client_of

NS = "{http://s3.amazonaws.com/doc/2006-03-01/}"
DAY = 86_400_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW = ms("2024-04-05")
MONTH = "data/futures/um/monthly/klines/BTCUSDT/1h/BTCUSDT-1h-2024-02.zip"
DATE = "data/futures/um/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2024-02-10.zip"
FUNDING = "data/futures/um/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2024-02.zip"
METRICS = "data/futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-2024-02-10.zip"
FILES = (MONTH, DATE, FUNDING, METRICS)
market = GeneratedMarket(["BTCUSDT", "ETHUSDT"], seed=9, listed_at=ms("2024-01-10"))
right = SimulatedArchive(market, ArchiveOptions(now=lambda: NOW))


def archive_with(*kinds: str, seed: int = 0, times: int | None = None) -> SimulatedArchive:
    faults = [ArchiveFaults(rate=1, kinds=[kind], seed=seed, times=times) for kind in kinds]
    return SimulatedArchive(market, ArchiveOptions(now=lambda: NOW, faults=faults))


def lines(archive: SimulatedArchive, key: str) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(archive.read(key))) as packed:
        return packed.read(packed.namelist()[0]).decode().splitlines()


def fields(archive: SimulatedArchive, key: str) -> list[list[str]]:
    return [line.split(",") for line in lines(archive, key)[1:]]


def changed(kind: str, key: str) -> list[tuple[list[str], list[str]]]:
    """Return the rows that differ, right and wrong, of a file with as many rows as the right one."""
    pairs = list(zip(fields(right, key), fields(archive_with(kind), key), strict=True))
    return [(truth, wrong) for truth, wrong in pairs if truth != wrong]


@pytest.mark.parametrize("key", [MONTH, FUNDING])
def test_whole_days_lack_in_a_monthly_file(key: str) -> None:
    truth, wrong = fields(right, key), fields(archive_with("missing_days"), key)
    kept = Counter(int(row[0]) // DAY for row in wrong)
    full = Counter(int(row[0]) // DAY for row in truth)
    assert 1 <= len(full) - len(kept) <= 3
    assert kept.items() <= full.items()
    assert [row for row in truth if int(row[0]) // DAY in kept] == wrong
    assert lines(archive_with("missing_days"), DATE) == lines(right, DATE)


def test_a_monthly_file_holds_a_week() -> None:
    assert lines(archive_with("first_week"), MONTH) == lines(right, MONTH)[: 1 + 7 * 24]


@pytest.mark.parametrize("key", [DATE, METRICS])
def test_a_daily_file_ends_early(key: str) -> None:
    truth, wrong = lines(right, key), lines(archive_with("ends_early"), key)
    assert 1 < len(wrong) < len(truth)
    assert truth[: len(wrong)] == wrong
    assert lines(archive_with("ends_early"), MONTH) == lines(right, MONTH)


@pytest.mark.parametrize("key", [MONTH, FUNDING])
def test_a_monthly_file_has_other_values(key: str) -> None:
    rows = changed("other_values", key)
    assert len(rows) == 13
    assert {(*truth[:2], *truth[3:]) == (*wrong[:2], *wrong[3:]) for truth, wrong in rows} == {True}
    assert all(float(wrong[2]) > float(truth[2]) for truth, wrong in rows)
    assert all(len(wrong[2].partition(".")[2]) == len(truth[2].partition(".")[2]) for truth, wrong in rows)
    assert lines(archive_with("other_values"), DATE) == lines(right, DATE)


def test_small_values_stay_plain_decimals() -> None:
    truth = CsvText(b"", np.array([0]), b"1704067200008,8,-0.00000090\n")
    wrong = break_rows(ArchiveFaultKind.OTHER_VALUES, truth, seed=0)
    assert wrong.rows == b"1704067200008,8,0.00000010\n"


def test_volume_is_zero() -> None:
    rows = changed("zero_volume", DATE)
    assert rows
    for truth, wrong in rows:
        assert wrong[:5] == truth[:5]
        assert [wrong[place] for place in (5, 7, 8, 9, 10)] == ["0"] * 5
    assert lines(archive_with("zero_volume"), METRICS) == lines(right, METRICS)


@pytest.mark.parametrize("key", FILES)
def test_rows_come_twice(key: str) -> None:
    truth, wrong = lines(right, key), lines(archive_with("repeated_rows"), key)
    assert list(dict.fromkeys(wrong)) == truth
    assert len(wrong) == len(truth) + 13


@pytest.mark.parametrize("key", FILES)
def test_rows_of_one_moment_disagree(key: str) -> None:
    truth, wrong = fields(right, key), fields(archive_with("conflicting_rows"), key)
    assert len(wrong) == len(truth) + 13
    first = list({row[0]: row for row in reversed(wrong)}.values())[::-1]
    assert first == truth
    assert {row[0] for row in wrong} == {row[0] for row in truth}
    assert len({tuple(row) for row in wrong}) == len(wrong)


@pytest.mark.parametrize("key", FILES)
def test_rows_are_out_of_order(key: str) -> None:
    truth, wrong = lines(right, key), lines(archive_with("unsorted_rows"), key)
    assert truth != wrong
    assert sorted(truth) == sorted(wrong)


@pytest.mark.parametrize("unit", [1, 1000])
def test_a_candle_opens_off_the_grid(unit: int) -> None:
    late = GeneratedMarket(["BTCUSDT"], listed_at=ms("2025-01-10" if unit == 1000 else "2024-01-10"))
    key = "data/spot/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2025-02-10.zip" if unit == 1000 else DATE
    archive = SimulatedArchive(
        late,
        ArchiveOptions(now=lambda: ms("2025-03-01"), faults=ArchiveFaults(rate=1, kinds=["off_grid_row"])),
    )
    times = [int(line.split(",")[0]) for line in lines(archive, key) if line[0].isdigit()]
    assert Counter(time % (3_600_000 * unit) for time in times) == {0: 23, 4_789 * unit: 1}


@pytest.mark.parametrize("key", FILES)
@pytest.mark.parametrize(("kind", "text", "count"), [("text_value", "n/a", 1), ("blank_value", "", 13)])
def test_a_value_is_no_number(key: str, kind: str, text: str, count: int) -> None:
    rows = changed(kind, key)
    assert len(rows) == count
    assert {wrong[2] for _, wrong in rows} == {text}


@pytest.mark.parametrize("key", FILES)
def test_a_column_lacks(key: str) -> None:
    truth, wrong = lines(right, key), lines(archive_with("wrong_columns"), key)
    assert [",".join((part := line.split(","))[:2] + part[3:]) for line in truth] == wrong


def test_the_file_is_that_of_another_symbol() -> None:
    archive = archive_with("other_symbol")
    for key in FILES:
        other = key.replace("BTCUSDT", "ETHUSDT")
        with zipfile.ZipFile(io.BytesIO(archive.read(key))) as packed:
            assert packed.namelist() == [other.rpartition("/")[2].replace(".zip", ".csv")]
        assert lines(archive, key) == lines(right, other)
    alone = SimulatedArchive(
        GeneratedMarket(["BTCUSDT"], seed=9, listed_at=ms("2024-01-10")),
        ArchiveOptions(now=lambda: NOW, faults=archive.faults),
    )
    assert lines(alone, MONTH) == lines(right, MONTH)


def test_containers_are_broken() -> None:
    assert archive_with("not_a_zip").read(MONTH).startswith(b"<!DOCTYPE html>")
    whole, half = right.read(MONTH), archive_with("truncated_zip").read(MONTH)
    assert half == whole[: len(whole) // 2]
    with (
        zipfile.ZipFile(io.BytesIO(archive_with("wrong_crc").read(MONTH))) as packed,
        pytest.raises(zipfile.BadZipFile, match="CRC"),
    ):
        packed.read(packed.namelist()[0])
    with zipfile.ZipFile(io.BytesIO(archive_with("several_members").read(MONTH))) as packed:
        assert packed.namelist() == ["BTCUSDT-1h-2024-02.csv", "copy/BTCUSDT-1h-2024-02.csv"]
        assert packed.testzip() is None
    with (
        zipfile.ZipFile(io.BytesIO(archive_with("encrypted").read(MONTH))) as packed,
        pytest.raises(RuntimeError, match="encrypted"),
    ):
        packed.read(packed.namelist()[0])


def test_a_bomb_is_small_and_opens_to_a_hundred_megabytes() -> None:
    body = archive_with("bomb").read(DATE)
    assert len(body) < 2**20
    with zipfile.ZipFile(io.BytesIO(body)) as packed, packed.open(packed.namelist()[0]) as stream:
        text = "\n".join(lines(right, DATE)).encode() + b"\n"
        assert stream.read(len(text)) == text
        assert packed.infolist()[0].file_size == len(text) + 100 * 2**20


def test_a_file_is_late_or_not_listed_or_without_a_digest() -> None:
    late = archive_with("late")
    late.now = lambda: ms("2024-02-21T07:59")
    assert DATE not in late.keys(DATE)
    with pytest.raises(KeyError):
        late.read(DATE)
    late.now = lambda: ms("2024-02-21T08:00")
    assert DATE in late.keys(DATE)
    unlisted = archive_with("unlisted")
    assert unlisted.keys(DATE) == []
    assert unlisted.read(DATE) == right.read(DATE)
    bare = archive_with("no_checksum")
    assert bare.keys(DATE) == [DATE]
    with pytest.raises(KeyError):
        bare.read(f"{DATE}.CHECKSUM")


def test_digests_of_faulty_files_are_right() -> None:
    for kind in ("missing_days", "wrong_crc", "not_a_zip", "truncated_zip", "bomb"):
        archive = archive_with(kind)
        digest = hashlib.sha256(archive.read(MONTH)).hexdigest()
        assert archive.read(f"{MONTH}.CHECKSUM").startswith(digest.encode())


@attrs.frozen
class Served:
    archive: SimulatedArchive
    client: Client


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with archive_with(*request.param) as archive, client_of(archive) as client:
        yield Served(archive, client)


def with_faults(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("served", [kinds], indirect=True, ids=["-".join(kinds)])


@with_faults("absent")
def test_a_listed_file_is_absent(served: Served) -> None:
    assert DATE in served.client.get("/", prefix=DATE).body.decode()
    assert served.client.get(f"/{DATE}").status == 404
    assert served.client.get(f"/{DATE}.CHECKSUM").status == 200
    assert served.archive.request_log.faults == {ArchiveFaultKind.ABSENT: 1}


@with_faults("wrong_digest")
def test_a_digest_is_that_of_other_bytes(served: Served) -> None:
    digest, name = served.client.get(f"/{DATE}.CHECKSUM").body.decode().split()
    assert len(digest) == 64
    assert digest != right.read(f"{DATE}.CHECKSUM").decode().split()[0]
    assert name == "BTCUSDT-1h-2024-02-10.zip"
    assert served.client.get(f"/{DATE}").body == right.read(DATE)


@pytest.mark.parametrize("kind", ["truncated_body", "damaged_body", "page_body"])
def test_bodies_heal_at_the_second_download(kind: str) -> None:
    with archive_with(kind, times=1) as archive, client_of(archive) as client:
        wrong, truth = client.get(f"/{DATE}"), client.get(f"/{DATE}")
        assert wrong.status == truth.status == 200
        assert truth.body == right.read(DATE)
        assert wrong.body != truth.body
        with (
            pytest.raises((zipfile.BadZipFile, zlib.error)),
            zipfile.ZipFile(io.BytesIO(wrong.body)) as packed,
        ):
            packed.read(packed.namelist()[0])
        assert client.get(f"/{MONTH}").body != right.read(MONTH)


def test_bodies_stay_wrong_without_a_number_of_times() -> None:
    with archive_with("damaged_body") as archive, client_of(archive) as client:
        assert {client.get(f"/{DATE}").body == right.read(DATE) for _ in range(3)} == {False}
        archive.faults = []
        assert client.get(f"/{DATE}").body == right.read(DATE)


@with_faults("cut_body")
def test_a_connection_is_cut_in_the_body(served: Served) -> None:
    with pytest.raises(http.client.IncompleteRead) as cut:
        served.client.get(f"/{DATE}")
    assert right.read(DATE).startswith(cut.value.partial)


@with_faults("blocked")
def test_a_cdn_blocks_every_request(served: Served) -> None:
    for path in ("/", f"/{DATE}", f"/{DATE}.CHECKSUM"):
        answer = served.client.get(path)
        assert (answer.status, answer.headers["content-type"]) == (403, "text/html")
        assert b"Request blocked" in answer.body


@with_faults("slow_down")
def test_a_bucket_asks_to_slow_down(served: Served) -> None:
    for path in ("/", f"/{DATE}", f"/{DATE}.CHECKSUM"):
        answer = served.client.get(path)
        assert answer.status == 503
        assert ET.fromstring(answer.body).findtext("Code") == "SlowDown"


PREFIX = DATE.rpartition("/")[0] + "/"


@with_faults("cut_listing")
def test_a_listing_ends_in_the_middle(served: Served) -> None:
    with pytest.raises(ET.ParseError):
        ET.fromstring(served.client.get("/", prefix=PREFIX).body)


@with_faults("page_listing")
def test_a_listing_is_a_page(served: Served) -> None:
    answer = served.client.get("/", prefix=PREFIX)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html")


@with_faults("short_listing")
def test_a_listing_says_that_it_is_complete_and_is_not(served: Served) -> None:
    keys, truncated = listed(served.client.get("/", prefix=PREFIX).body)
    assert truncated == "false"
    assert keys == right.keys(PREFIX)[: len(right.keys(PREFIX)) // 2]


@with_faults("endless_listing")
def test_a_listing_never_ends(served: Served) -> None:
    first = listed(served.client.get("/", prefix=PREFIX).body)
    again = listed(served.client.get("/", prefix=PREFIX, marker=first[0][-1]).body)
    assert first == again == (right.keys(PREFIX), "true")


def listed(body: bytes) -> tuple[list[str], str | None]:
    root = ET.fromstring(body)
    return (
        [element.text or "" for element in root.findall(f"{NS}Contents/{NS}Key")],
        root.findtext(f"{NS}IsTruncated"),
    )


def test_faults_can_be_combined() -> None:
    archive = archive_with("missing_days", "wrong_crc")
    assert len(archive.read(MONTH)) < len(right.read(MONTH))
    with zipfile.ZipFile(io.BytesIO(archive.read(MONTH))) as packed:
        assert packed.testzip() == "BTCUSDT-1h-2024-02.csv"


def test_patterns_choose_the_files() -> None:
    faults = ArchiveFaults(rate=1, kinds=["first_week"], keys="*-2024-02.zip")
    archive = SimulatedArchive(market, ArchiveOptions(now=lambda: NOW, faults=faults))
    march = MONTH.replace("2024-02", "2024-03")
    assert lines(archive, march) == lines(right, march)
    assert lines(archive, MONTH) != lines(right, MONTH)


def test_the_seed_decides_which_files_are_wrong() -> None:
    paths = [
        path
        for key in right.keys("data/futures/um/daily/klines/BTCUSDT/1h/")
        if (path := ArchivePath.parse(key)) is not None
    ]
    assert len(paths) > 80

    def wrong(seed: int, rate: float = 0.3) -> list[ArchiveFaultKind | None]:
        faults = ArchiveFaults(rate=rate, seed=seed)
        return [faults.of_file(path) for path in paths]

    assert wrong(1) == wrong(1) != wrong(2)
    assert 0.1 < sum(kind is not None for kind in wrong(1)) / len(paths) < 0.5
    assert len(set(wrong(1, rate=1))) > 8
    assert set(wrong(1, rate=0)) == {None}
    assert ArchiveFaultKind.MISSING_DAYS not in wrong(1, rate=1)


def test_an_absent_file_is_hidden_where_nothing_is_listed() -> None:
    options = ArchiveOptions(
        now=lambda: NOW, listable=False, faults=ArchiveFaults(rate=1, kinds=["absent"], keys=DATE)
    )
    with SimulatedArchive(market, options) as archive, client_of(archive) as client:
        assert client.get(f"/{DATE}").status == 403
        assert client.get(f"/{MONTH}").status == 200


def test_every_kind_of_fault_can_be_met() -> None:
    met = {
        kind
        for kind in ArchiveFaultKind
        for key in FILES
        for faults in [ArchiveFaults(rate=1, kinds=[kind])]
        if (path := ArchivePath.parse(key)) is not None
        if faults.of_file(path) or any(faults.of_reply(request, key, 0) for request in ArchiveRequest)
    }
    assert met == set(ArchiveFaultKind)


def test_a_file_issued_anew_is_right_and_looks_different() -> None:
    clock = [NOW]
    archive = SimulatedArchive(
        market,
        ArchiveOptions(now=lambda: clock[0], faults=ArchiveFaults(rate=1, kinds=["missing_days"])),
    )
    with archive, client_of(archive) as client:
        before = client.get(f"/{MONTH}")
        digest = client.get(f"/{MONTH}.CHECKSUM").body
        clock[0] += DAY
        archive.reissue(MONTH)
        after = client.get(f"/{MONTH}")
        assert before.headers["last-modified"] == "Sat, 02 Mar 2024 08:00:00 GMT"
        assert after.headers["last-modified"] == "Sat, 06 Apr 2024 00:00:00 GMT"
        assert before.headers["etag"] != after.headers["etag"]
        assert client.get(f"/{MONTH}.CHECKSUM").body != digest
        assert lines(archive, MONTH) == lines(right, MONTH)
        archive.reissue(MONTH, "other_values")
        assert len(lines(archive, MONTH)) == len(lines(right, MONTH))
        assert lines(archive, MONTH) != lines(right, MONTH)


def test_a_file_uploaded_again_has_the_same_bytes() -> None:
    clock = [NOW]
    archive = SimulatedArchive(market, ArchiveOptions(now=lambda: clock[0]))
    with archive, client_of(archive) as client:
        before = client.get(f"/{DATE}")
        clock[0] += DAY
        archive.upload_again(DATE)
        after = client.get(f"/{DATE}")
        assert before.body == after.body
        assert before.headers["etag"] == after.headers["etag"]
        assert before.headers["last-modified"] != after.headers["last-modified"]
    for change in (archive.reissue, archive.upload_again):
        for key in (f"{DATE}.CHECKSUM", DATE.replace("2024-02-10", "2024-04-10"), "nothing"):
            with pytest.raises(KeyError, match="no such zip file"):
                change(key)


def test_requests_and_bytes_are_counted_by_kind() -> None:
    with archive_with("first_week") as archive, client_of(archive) as client:
        listing = client.get("/", prefix=PREFIX).body
        month = client.get(f"/{MONTH}").body
        digest = client.get(f"/{MONTH}.CHECKSUM").body
        day = client.get(f"/{DATE}").body
        client.get("/nothing")
        assert archive.request_log.kinds == {"listing": 1, "file": 3, "checksum": 1}
        assert archive.request_log.sizes["listing"] == len(listing)
        assert archive.request_log.sizes["checksum"] == len(digest)
        assert archive.request_log.sizes["file"] > len(month) + len(day)
        assert archive.request_log.statuses == {200: 4, 404: 1}
        assert archive.request_log.faults == {ArchiveFaultKind.FIRST_WEEK: 1}
        assert [seen.kind for seen in archive.request_log.latest] == [
            "listing",
            "file",
            "checksum",
            "file",
            "file",
        ]


def test_other_methods_are_refused() -> None:
    with right, client_of(right) as client:
        client.connection.request("POST", "/")
        response = client.connection.getresponse()
        assert response.status == 405
        assert ET.fromstring(response.read()).findtext("Code") == "MethodNotAllowed"
