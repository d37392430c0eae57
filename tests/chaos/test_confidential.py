from __future__ import annotations

from chaos.confidential import PASSWORDS, any_text_is_redacted, commands_are_silent
from chaos.objects import objects_are_silent
from chaos.promises import Scale

QUICK = Scale("quick", seed=21)


def test_no_command_shows_a_credential() -> None:
    outcome = commands_are_silent(QUICK)
    assert outcome.holds, "\n".join(outcome.failures)


def test_no_object_error_or_log_record_shows_one() -> None:
    outcome = objects_are_silent(QUICK, PASSWORDS[:3], "zebra")
    assert outcome.holds, "\n".join(outcome.failures)


def test_any_password_that_stands_where_passwords_stand_is_cut_out() -> None:
    outcome = any_text_is_redacted(QUICK)
    assert outcome.holds, "\n".join(outcome.failures)
