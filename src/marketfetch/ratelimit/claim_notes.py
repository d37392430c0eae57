"""Notes about addresses: how much of an address's budget its last holder has spent.

Times in notes are seconds; those of budgets are UTC milliseconds.
"""

from __future__ import annotations

from math import ceil, floor

import attrs

from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE, RateBudget

__all__ = ["StoredUsageNote", "UsageNote", "charge_note", "note_of"]

_ARRIVAL_TIME = 2_000
"""Milliseconds after which the last requests of a process that died have reached the exchange."""


@attrs.frozen
class UsageNote:
    """What the last holder of an address tells the next one.

    `spent` has pairs of an age in seconds and a weight. `closed` is the number of seconds for which the
    exchange asked for a pause. `vanished` is None, unless the last holder ended without a word: then it is
    the number of seconds since when that holder surely spends nothing, and how much it spent is not known.
    `expires` is the number of seconds after which the exchange surely counts nothing of `spent`. The last
    holder knows that from the exchange's clock; the next one may have sent no request yet. None: unknown.

    Example: `UsageNote(spent=((12.0, 40),), expires=3.0)`: a weight of 40 was spent 12 seconds ago, and the
    window in which the exchange counts it ends in 3 seconds.
    """

    spent: tuple[tuple[float, int], ...] = ()
    closed: float = 0.0
    vanished: float | None = None
    expires: float | None = None


def note_of(budget: RateBudget, closed_until: int, now: int) -> UsageNote:
    """Return the note about an address that leaves this process at `now`, in UTC milliseconds."""
    spent = tuple(((now - received) / 1000, weight) for received, weight in budget.spent(now))
    closed = max(budget.blocked_until(now), closed_until)
    return UsageNote(spent, max(0, closed - now) / 1000, None, (budget.spent_until(now) - now) / 1000)


def charge_note(budget: RateBudget, note: UsageNote, now: int) -> None:
    """Add what the last holder has spent to the budget of an address; `now` is UTC milliseconds.

    If that process died without a note, its last requests are unknown: the whole budget counts as spent,
    or, with a header for used weight, the next response tells, and the address waits until it can.
    """
    end = UNKNOWN_UNTIL_RESPONSE if note.expires is None else now + ceil(note.expires * 1000)
    for age, weight in note.spent:
        budget.charge(weight, now - floor(age * 1000), end)
    if note.closed:
        budget.block_until(now + round(note.closed * 1000))
    if note.vanished is not None:
        died = now - floor(note.vanished * 1000)
        if budget.pool.used_header is None:
            budget.charge(budget.pool.capacity, died)
        else:
            budget.mark_unconfirmed()
            budget.block_until(died + _ARRIVAL_TIME)


@attrs.define
class StoredUsageNote:
    """A UsageNote as a board stores it: with moments on the board's clock instead of ages, and its author."""

    author: str
    spent: tuple[tuple[float, int], ...] = ()
    closed: float = 0.0
    vanished: float | None = None
    expires: float | None = None

    @classmethod
    def of(cls, note: UsageNote, author: str, now: float) -> StoredUsageNote:
        """Turn the ages of a note into moments."""
        return cls(
            author,
            tuple((now - age, weight) for age, weight in note.spent),
            now + note.closed if note.closed > 0 else 0.0,
            None if note.vanished is None else now - note.vanished,
            None if note.expires is None else now + note.expires,
        )

    def note(self, now: float) -> UsageNote:
        """Turn the moments into ages again."""
        return UsageNote(
            tuple((now - moment, weight) for moment, weight in self.spent),
            max(0.0, self.closed - now),
            None if self.vanished is None else now - self.vanished,
            None if self.expires is None else max(0.0, self.expires - now),
        )

    def shifted_by(self, step: float) -> StoredUsageNote:
        """Return the same note for a clock that was set by `step` seconds."""
        return StoredUsageNote(
            self.author,
            tuple((moment + step, weight) for moment, weight in self.spent),
            self.closed + step,
            None if self.vanished is None else self.vanished + step,
            None if self.expires is None else self.expires + step,
        )

    def merged_with(self, other: StoredUsageNote) -> StoredUsageNote:
        """Put two notes together. The author is "", so that the authors of both notes read the result."""
        vanished = [each.vanished for each in (self, other) if each.vanished is not None]
        expires = [each.expires for each in (self, other) if each.spent]
        return StoredUsageNote(
            "",
            self.spent + other.spent,
            max(self.closed, other.closed),
            max(vanished) if vanished else None,
            None if None in expires else max(filter(None, expires), default=None),
        )

    def is_expired(self, now: float, period: float) -> bool:
        """Whether the exchange no longer counts anything of the note."""
        moments = [moment for moment, _ in self.spent]
        if self.vanished is not None:
            moments.append(self.vanished)
        return self.closed <= now and all(moment + period <= now for moment in moments)
