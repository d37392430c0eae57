"""The quick form of every promise about an exchange that lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chaos.faults.faulty_exchange import DATASETS, ExchangeJob, FaultyExchange, faulty_exchange
from chaos.harness.trials import Effort, Result
from chaos.trials.command_line import command_line
from chaos.trials.hostile_exchange import (
    all_kinds_together,
    any_exchange,
    each_kind_alone,
    legal_refusals,
    wrong_for_good,
)
from marketfetch.testing import FaultKind, Faults
from tests.support.promises import assert_kept

pytestmark = pytest.mark.slow
QUICK = Effort("quick", seed=1)


@pytest.fixture(scope="module")
def exchange() -> Iterator[FaultyExchange]:
    with faulty_exchange() as running:
        yield running


@pytest.mark.parametrize(
    "promise", [each_kind_alone, all_kinds_together, any_exchange, wrong_for_good, legal_refusals]
)
def test_an_exchange_that_lies(
    exchange: FaultyExchange, promise: Callable[[FaultyExchange, Effort], Result]
) -> None:
    assert_kept(promise(exchange, QUICK))


def test_the_command_line_says_what_is_so() -> None:
    assert_kept(command_line(QUICK))


def test_what_decides_in_the_end_is_asked_again_after_a_bad_answer(exchange: FaultyExchange) -> None:
    """The first answer to every question gives the window before the one that was asked for."""
    faults = Faults(rate=1, kinds=[FaultKind.WRONG_WINDOW], seed=1)
    datasets = DATASETS["binance-usdm"]
    observed = exchange.try_out(
        ExchangeJob(venue="binance-usdm", faults=faults, datasets=datasets, rows=30, concurrency=12)
    )
    assert observed.complete, observed.reasons
