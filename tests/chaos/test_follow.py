"""The quick form of what `chaos.trials.follow` tries."""

from __future__ import annotations

import pytest

from chaos.harness.trials import Effort
from chaos.trials.follow import follow
from tests.support.promises import assert_kept


@pytest.mark.slow
def test_hours_with_outages_are_followed() -> None:
    assert_kept(follow(Effort("quick", seed=1)))
