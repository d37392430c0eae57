"""The simulated archive: public files of Binance, their S3 listing, and files of OKX, at one address."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import unquote

import attrs

from marketfetch.testing.archives.bucket import ArchiveBucket
from marketfetch.testing.archives.faults import (
    ArchiveFaultKind,
    ArchiveFaults,
    ArchiveFaultSchedule,
    ArchiveRequest,
)
from marketfetch.testing.archives.listing import (
    LARGEST_PAGE,
    ListingQuery,
    S3Error,
    write_error,
    write_listing,
)
from marketfetch.testing.archives.okx import parse_path
from marketfetch.testing.archives.paths import CHECKSUM
from marketfetch.testing.archives.publication import Publication
from marketfetch.testing.archives.reply_faults import break_page, break_reply, refuse
from marketfetch.testing.archives.tree import ArchiveTree
from marketfetch.testing.faults.kinds import FaultKind
from marketfetch.testing.faults.transport import broken_script
from marketfetch.testing.http.loopback import LoopbackAddress, LoopbackServer
from marketfetch.testing.http.messages import ServerReply, ServerRequest, format_http_date, part_of
from marketfetch.testing.http.script import ResponseScript, plain_script
from marketfetch.testing.markets.market import Market
from marketfetch.testing.request_log import LoggedRequest, RequestLog
from marketfetch.testing.simulator import SimulatedExchange, SimulatorOptions, wall_clock

__all__ = ["ArchiveOptions", "SimulatedArchive", "simulate_binance"]

_BUCKET = "data.binance.vision"


def _faults(faults: ArchiveFaults | Iterable[ArchiveFaults]) -> tuple[ArchiveFaults, ...]:
    return (faults,) if isinstance(faults, ArchiveFaults) else tuple(faults)


@attrs.frozen(kw_only=True)
class ArchiveOptions:
    """The behaviour of a simulated archive; `latency` is in seconds, `cache` in bytes of rendered files.

    `since` (UTC ms) is where the archive begins: days and months that ended earlier have no file. A listing
    renders all files that it names, so a late beginning makes tests fast. `former` is a market of contracts
    that the exchange no longer knows: the archive has their files, and a symbol in both markets is a ticker
    that is used twice. Several `faults` may hit the same file. `listable=False` is a bucket that lists
    nothing and hides missing keys: both are 403 AccessDenied. `ranges=False` is a host that sends whole files
    to whoever asks for a part.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls: bool = False
    latency: float = 0.0
    faults: tuple[ArchiveFaults, ...] = attrs.field(default=(), converter=_faults)
    now: Callable[[], int] = wall_clock
    publication: Publication = attrs.field(factory=Publication)
    since: int = 0
    former: Market | None = None
    listable: bool = True
    ranges: bool = True
    page_size: int = attrs.field(default=LARGEST_PAGE, validator=attrs.validators.ge(1))
    cache: int = 256 * 2**20
    log_size: int = 10_000


class SimulatedArchive(LoopbackServer):
    """Binance's and OKX's archives on loopback, with the rows that simulated exchanges of the market send.

    Inside its `with` block a background thread serves files and digests at `<base_url>/data/…`, and listings
    at `<base_url>/?prefix=…`; a path may also begin with the name of the bucket, `/data.binance.vision`.
    Candle files of OKX are at `<base_url>/cdn/okex/traderecords/candlesticks/…`, without digests and in no
    listing. `latency`, `faults` and `now` may be changed at any time from any thread.

    >>> from marketfetch.testing import GeneratedMarket
    >>> key = "data/spot/monthly/klines/BTCUSDT/1d/BTCUSDT-1d-2024-01.zip"
    >>> archive = SimulatedArchive(GeneratedMarket(["BTCUSDT"]))
    >>> archive.read(key)[:2]
    b'PK'
    """

    def __init__(self, market: Market, options: ArchiveOptions | None = None) -> None:
        self.options = options or ArchiveOptions()
        self.request_log = RequestLog[ArchiveFaultKind](self.options.log_size)
        self.latency = self.options.latency
        self.now = self.options.now
        former = self.options.former
        tree = ArchiveTree([market] if former is None else [former, market], self.options.since)
        self._bucket = ArchiveBucket(tree, self.options.publication, self.options.cache)
        self.faults = self.options.faults
        place = LoopbackAddress(self.options.host, self.options.port, self.options.tls)
        super().__init__("simulated-archive", place, self._respond, self.request_log.add_connection)

    @property
    def faults(self) -> tuple[ArchiveFaults, ...]:
        """The current faults; setting them resets the count of each request."""
        return self._faults

    @faults.setter
    def faults(self, faults: ArchiveFaults | Iterable[ArchiveFaults]) -> None:
        self._faults = _faults(faults)
        self._schedule = ArchiveFaultSchedule(self._faults)
        self._bucket.set_faults(self._schedule)

    def read(self, key: str) -> bytes:
        """Return the bytes that are published under a key. Raises KeyError if there are none."""
        body = self._bucket.read(key, self.now())
        if body is None:
            raise KeyError(f"{key}: nothing is published under this key")
        return body

    def keys(self, prefix: str = "") -> list[str]:
        """Return all listed keys with a prefix, in byte order, without any fault of listings."""
        return list(self._bucket.keys(prefix, "", self.now()))

    def put(self, key: str, body: bytes) -> None:
        """Publish any bytes under a key: a hand-made file, or a name that no rule explains.

        A key of the market's files has these bytes until it is issued anew.
        """
        self._bucket.put(key, body, self.now())

    def reissue(self, key: str, *faults: ArchiveFaultKind | str) -> None:
        """Publish a zip file anew: its old faults are gone, and it has the given ones.

        Its bytes, digest, ETag and time of change differ from the old ones. Raises KeyError for a key that is
        not published.
        """
        self._bucket.reissue(key, self.now(), tuple(ArchiveFaultKind(fault) for fault in faults))

    def upload_again(self, key: str) -> None:
        """Upload the same bytes again: only the time of change differs. Raises KeyError as `reissue` does."""
        self._bucket.upload_again(key, self.now())

    def _respond(self, request: ServerRequest) -> ResponseScript:
        now = self.now()
        key = unquote(request.path).removeprefix("/").removeprefix(_BUCKET).removeprefix("/")
        kind = _kind(key)
        # A fault names a zip file by its key, also for the digest, and a listing by its prefix.
        name = key.removesuffix(CHECKSUM) if key else request.params.get("prefix", "")
        fault = self._schedule.next(kind, name)
        try:
            reply = self._reply(request, key, fault, now)
        except S3Error as error:
            reply = write_error(error, key)
        cause = fault or (self._fault_of_file(key) if reply.status == 200 else None)
        if kind is ArchiveRequest.FILE and self.options.ranges:
            reply = part_of(reply, request.headers.get("range", ""))
        seen = LoggedRequest(now, request.client, request.path, request.params, reply.status, 0, cause)
        self.request_log.add(attrs.evolve(seen, kind=kind.value, size=len(reply.body)))
        cut = FaultKind.CUT_BODY if fault is ArchiveFaultKind.CUT_BODY else None
        script = broken_script(cut, reply, now) or plain_script(reply, now)
        return (float(self.latency), *script) if self.latency > 0 else script

    def _reply(
        self, request: ServerRequest, key: str, fault: ArchiveFaultKind | None, now: int
    ) -> ServerReply:
        if request.method != "GET":
            raise S3Error(405, "MethodNotAllowed", "The specified method is not allowed.")
        if (refusal := refuse(fault)) is not None:
            return refusal
        reply = self._file(key, fault, now) if key else self._listing(request, fault, now)
        return break_reply(fault, reply)

    def _listing(self, request: ServerRequest, fault: ArchiveFaultKind | None, now: int) -> ServerReply:
        if not self.options.listable:
            raise S3Error.access_denied()
        query = ListingQuery.parse(request.params)
        page = break_page(
            fault,
            query,
            lambda asked: asked.page(
                lambda prefix, after: self._bucket.keys(prefix, after, now), self.options.page_size
            ),
        )
        return write_listing(_BUCKET, query, page, lambda key: self._bucket.entry(key, now))

    def _file(self, key: str, fault: ArchiveFaultKind | None, now: int) -> ServerReply:
        body, entry = self._bucket.read(key, now), self._bucket.entry(key, now)
        if body is None or entry is None or fault is ArchiveFaultKind.ABSENT:
            raise S3Error.no_such_key() if self.options.listable else S3Error.access_denied()
        return ServerReply(
            200,
            body,
            {
                "Content-Type": "binary/octet-stream" if key.endswith(CHECKSUM) else "application/zip",
                "Last-Modified": format_http_date(entry.modified),
                "ETag": entry.etag,
                "Server": "AmazonS3",
            },
        )

    def _fault_of_file(self, key: str) -> ArchiveFaultKind | None:
        path = parse_path(key)
        return next(iter(self._bucket.faults(path)), None) if path is not None else None


def _kind(key: str) -> ArchiveRequest:
    if not key:
        return ArchiveRequest.LISTING
    return ArchiveRequest.CHECKSUM if key.endswith(CHECKSUM) else ArchiveRequest.FILE


@contextlib.contextmanager
def simulate_binance(
    market: Market,
    exchange: SimulatorOptions | None = None,
    archive: ArchiveOptions | None = None,
    *,
    now: Callable[[], int] = wall_clock,
) -> Iterator[tuple[SimulatedExchange, SimulatedArchive]]:
    """Start an exchange and its archive on one market and one clock, which replaces that of the options.

    >>> from marketfetch.testing import GeneratedMarket
    >>> with simulate_binance(GeneratedMarket(["BTCUSDT"]), now=lambda: 1_700_000_000_000) as (api, files):
    ...     api.server_time, len(files.keys("data/spot/monthly/klines/BTCUSDT/1d/"))
    (1700000000000, 92)
    """
    with (
        SimulatedExchange(market, attrs.evolve(exchange or SimulatorOptions(), now=now)) as api,
        SimulatedArchive(market, attrs.evolve(archive or ArchiveOptions(), now=now)) as files,
    ):
        yield api, files
