"""A faulty exchange: each kind of wrong answer alone, and all kinds together, until it answers correctly.

Each run must end in one of two ways: the store has all true rows, or the report names every missing span
with a reason and the next run completes it. The seed and the request alone decide which request fails.
"""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from chaos.faults.faulty_exchange import (
    DATASETS,
    ExchangeJob,
    FaultyExchange,
    RunObservation,
    faulty_exchange,
)
from chaos.harness.trials import Effort, Result, Trial
from chaos.trials.command_line import command_line
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import FaultKind, Faults

__all__ = [
    "KINDS",
    "all_kinds_together",
    "any_exchange",
    "each_kind_alone",
    "hostile_exchange",
    "jobs",
    "legal_refusals",
    "wrong_for_good",
]

LEGAL = (FaultKind.STATUS_403_LOCATION, FaultKind.STATUS_451, FaultKind.STATUS_451_PAGE)
"""A refusal for legal reasons ends the run at once by design, so that it is tried separately."""
KINDS = tuple(kind for kind in FaultKind if kind not in LEGAL)
SHUT_OUT = frozenset(
    {
        FaultKind.STATUS_403,
        FaultKind.STATUS_418_BARE,
        FaultKind.STATUS_418_TEXT,
        FaultKind.STATUS_429_DAYS,
    }
)
"""Bans of days, or without an end: a run does not wait for them and reports the missing spans."""
SILENT = frozenset({FaultKind.HANG, FaultKind.SLOW_DRIP, FaultKind.SLOW_LORIS})
"""Answers that never arrive: after eight in a row an egress is given up, and missing spans are reported."""

PERMANENT_KINDS = (
    FaultKind.OFF_GRID_ROW,
    FaultKind.IMPOSSIBLE_ROW,
    FaultKind.NEGATIVE_VOLUME,
    FaultKind.NAN_TEXT,
    FaultKind.TEXT_VALUE,
    FaultKind.HUGE_NUMBER,
)
"""Rows that are wrong by themselves, whatever the request."""
CANDLES = ("/fapi/v1/klines", "/dapi/v1/klines", "/api/v3/klines", "/api/v5/market/history-candles")
DENIALS = frozenset({FaultKind.EMPTY_PAGE, FaultKind.REPEATED_PAGE, FaultKind.WRONG_WINDOW})
"""Answers that say "no rows". Two of them confirm an absence, so that a fault repeated twice is believed."""


def hostile_exchange(effort: Effort) -> Iterator[Result]:
    """Try every kind of wrong answer."""
    with faulty_exchange() as exchange:
        yield each_kind_alone(exchange, effort)
        yield all_kinds_together(exchange, effort)
        yield any_exchange(exchange, effort)
        yield wrong_for_good(exchange, effort)
        yield legal_refusals(exchange, effort)
    yield command_line(effort)


def each_kind_alone(exchange: FaultyExchange, effort: Effort) -> Result:
    """Answer each request wrongly once, with one kind of fault per run."""
    trial = Trial("every first answer has one kind of fault: the true rows are stored", unit="runs")
    venues = list(DATASETS)
    for number, kind in enumerate(KINDS):
        for venue in [venues[number % len(venues)]] if effort.name == "quick" else venues:
            faults = Faults(rate=1, kinds=[kind], seed=effort.seed)
            job = ExchangeJob(
                venue=venue,
                faults=faults,
                datasets=DATASETS[venue],
                rows=30,
                concurrency=12,
            )
            with trial.attempt(f"{kind} at {venue}"):
                observed = exchange.try_out(job)
                assert observed.complete or kind in SHUT_OUT | SILENT, f"missing: {observed.reasons}"
    return trial.result()


def all_kinds_together(exchange: FaultyExchange, effort: Effort) -> Result:
    """Answer a third of all requests wrongly, with all kinds of faults."""
    trial = Trial("30 % faults of all kinds: true rows, or missing spans with reasons", unit="runs")
    whole = 0
    for number in range(effort.choose(4, 60, 3000)):
        seed, venue = effort.seed * 10_000 + number, list(DATASETS)[number % len(DATASETS)]
        job = ExchangeJob(
            venue=venue,
            faults=Faults(rate=0.3, kinds=KINDS, seed=seed),
            datasets=DATASETS[venue],
            interval=("5m", "15m", "1h")[number // len(DATASETS) % 3],
            egresses=(1, 3)[number % 2],
        )
        with trial.attempt(f"seed {seed}: {job}"):
            observed = exchange.try_out(job)
            whole += observed.complete
            assert observed.complete or _is_excused(observed), f"missing: {observed.reasons}"
    with trial.attempt("most runs have faults, and are complete all the same"):
        assert 2 * whole > trial.tried, f"only {whole} of them"
    return trial.result()


def any_exchange(exchange: FaultyExchange, effort: Effort) -> Result:
    """Let hypothesis choose the faults and the query."""
    trial = Trial("any faults of an exchange that answers correctly in the end", unit="exchanges")
    tried = 0

    @seeded(effort.seed)
    @settings(
        max_examples=effort.choose(8, 120, 5000),
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(jobs())
    def check(job: ExchangeJob) -> None:
        nonlocal tried
        tried += 1
        observed = exchange.try_out(job)
        excused = _is_excused(observed) or job.faults.times > 1
        assert observed.complete or excused, f"missing: {observed.reasons}"

    with trial.attempt(f"seed {effort.seed}"):
        try:
            check()
        except AssertionError as error:  # its notes hold the smallest example
            raise AssertionError("\n".join([str(error), *getattr(error, "__notes__", ())])) from error
    trial.tried = tried
    return trial.result()


def _is_excused(observed: RunObservation) -> bool:
    """Tell whether a run may be incomplete: bans, silence, or a listing that left the time of a listing out.

    A listing is read once. Without the time nothing proves that there were no rows before the first one.
    """
    untold = FaultKind.NO_VALUE in observed.met and all("keep no more" in one for one in observed.reasons)
    return untold or bool(observed.met & (SHUT_OUT | SILENT))


@st.composite
def jobs(draw: st.DrawFn) -> ExchangeJob:
    """Draw a job: a venue, datasets, settings and faults."""
    venue = draw(st.sampled_from(sorted(DATASETS)))
    times = draw(st.sampled_from([1, 1, 1, 2, 3]))
    kinds = [kind for kind in KINDS if times == 1 or kind not in DENIALS]
    faults = Faults(
        rate=draw(st.sampled_from([0.1, 0.3, 0.6, 1.0])),
        kinds=draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6, unique=True)),
        seed=draw(st.integers(0, 10**6)),
        times=times,
    )
    return ExchangeJob(
        venue=venue,
        faults=faults,
        datasets=draw(st.lists(st.sampled_from(DATASETS[venue]), min_size=1, max_size=3, unique=True)),
        interval=draw(st.sampled_from(["5m", "15m", "1h"])),
        rows=draw(st.integers(1, 200)),
        page=draw(st.integers(2, 120)),
        concurrency=draw(st.integers(1, 12)),
        egresses=draw(st.sampled_from([1, 1, 2, 3])),
    )


def wrong_for_good(exchange: FaultyExchange, effort: Effort) -> Result:
    """Serve some rows wrongly in every answer: they are recorded as unusable, and all others are stored."""
    trial = Trial("rows that stay wrong are recorded as unusable, and retried on demand", unit="runs")
    for number, kind in enumerate(PERMANENT_KINDS * effort.choose(1, 5)):
        venue = list(DATASETS)[(number + 1) % len(DATASETS)]
        faults = Faults(rate=1, kinds=[kind], seed=effort.seed + number, times=1000, paths=CANDLES)
        job = ExchangeJob(venue=venue, faults=faults, datasets=DATASETS[venue], rows=60)
        with trial.attempt(f"{kind} at {venue}, seed {faults.seed}"):
            observed = exchange.try_out(job)
            assert observed.complete, f"missing: {observed.reasons}"
            assert observed.unusable, "every row of every answer was right"
    return trial.result()


def legal_refusals(exchange: FaultyExchange, effort: Effort) -> Result:
    """Refuse the location in the middle of a run."""
    trial = Trial("a legal refusal ends a run at once, and the store is consistent", unit="runs")
    for number, kind in enumerate(LEGAL * effort.choose(1, 5)):
        faults = Faults(rate=0.1, kinds=[kind], seed=effort.seed + number, times=100)
        job = ExchangeJob(
            venue=list(DATASETS)[number % len(DATASETS)],
            faults=faults,
            page=10,
            egresses=1 + 2 * (number % 2),
        )
        with trial.attempt(f"{kind}, seed {faults.seed}"):
            store = MemorySink()
            report = exchange.run(job, store, faults)
            refused = exchange.exchange.request_log.faults[kind]
            exchange.assert_right(job, store, report)
            assert (refused == 0) == report.complete
            assert refused == 0 or "refuses this location" in (report.error or "")
            # Only requests already in flight may be refused as well.
            assert refused <= job.concurrency
    return trial.result()
