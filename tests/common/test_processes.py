"""The identity of a process where the system tells little of it."""

from __future__ import annotations

import errno
from pathlib import Path

import attrs
import pytest

from marketfetch.common import processes
from marketfetch.common.processes import ProcessIdentity, has_ended, machine_id


def test_a_process_whose_start_is_unknown_may_be_another_one() -> None:
    """As on macOS: nothing says that it has ended, nor that it is the one which wrote the identity."""
    unknown = attrs.evolve(ProcessIdentity.current(), started="")
    assert unknown.is_alive is None
    assert not has_ended(str(unknown))
    assert attrs.evolve(unknown, pid=99**5).is_alive is False


def test_another_process_with_the_same_number_has_ended() -> None:
    assert has_ended(str(attrs.evolve(ProcessIdentity.current(), started="1")))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_no_false_identity_is_made_while_no_file_can_be_opened(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(number, "nothing left")

    me = ProcessIdentity.current()
    machine_id.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", full)
        with pytest.raises(OSError, match="nothing left"):
            ProcessIdentity.current()
        with pytest.raises(OSError, match="nothing left"):
            machine_id()
    assert ProcessIdentity.current() == me


def test_a_system_without_these_files_has_a_name_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_read", lambda _: "")
    machine_id.cache_clear()
    try:
        assert len(machine_id()) == 12
    finally:
        machine_id.cache_clear()
