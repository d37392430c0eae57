"""The quick form of what `chaos.soak` tries."""

from __future__ import annotations

import pytest

from chaos.promises import Scale
from chaos.soak import soak
from tests.support.promises import assert_kept


@pytest.mark.timeout(180)
def test_thousands_of_requests_under_faults_are_all_answered() -> None:
    assert_kept(soak(Scale("quick", seed=1)))
