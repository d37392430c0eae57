"""The quick form of what `chaos.trials.soak` tries."""

from __future__ import annotations

import pytest

from chaos.harness.trials import Effort
from chaos.trials.soak import soak
from tests.support.promises import assert_kept


@pytest.mark.slow
def test_thousands_of_requests_under_faults_are_all_answered() -> None:
    assert_kept(soak(Effort("quick", seed=1)))
