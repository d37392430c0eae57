"""The quick form of what `chaos.trials.hostile_network` tries."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos.harness.trials import Effort, Result
from chaos.trials import hostile_network
from tests.support.promises import assert_kept

pytestmark = pytest.mark.slow
QUICK = Effort("quick", seed=1)


@pytest.mark.parametrize(
    "promise",
    [
        hostile_network.one_proxy_fails,
        hostile_network.flapping_proxies,
        hostile_network.dead_network,
        hostile_network.bans,
        hostile_network.legal_refusals,
    ],
)
def test_network_does_its_worst(promise: Callable[[Effort], Result]) -> None:
    assert_kept(promise(QUICK))
