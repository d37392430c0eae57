from __future__ import annotations

import pytest

from chaos.harness.trials import Effort
from chaos.trials.secret_leaks import PASSWORDS, any_text_is_redacted, commands_are_silent
from chaos.trials.secret_leaks_in_objects import objects_are_silent
from tests.support.promises import assert_kept

pytestmark = pytest.mark.slow
QUICK = Effort("quick", seed=21)


def test_no_command_shows_a_credential() -> None:
    assert_kept(commands_are_silent(QUICK))


def test_no_object_error_or_log_record_shows_one() -> None:
    assert_kept(objects_are_silent(PASSWORDS[:3], "zebra"))


def test_any_password_that_stands_where_passwords_stand_is_cut_out() -> None:
    assert_kept(any_text_is_redacted(QUICK))
