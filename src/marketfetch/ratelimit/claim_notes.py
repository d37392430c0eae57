"""Notes about addresses: how much of an address's budget its last holder has spent. Times are seconds."""

from __future__ import annotations

import attrs

__all__ = ["LeftNote", "Note"]


@attrs.frozen
class Note:
    """What the last holder of an address tells the next one.

    `spent` has pairs of an age in seconds and a weight. `closed` is the number of seconds for which the
    exchange asked for a pause. `vanished` is None, unless the last holder ended without a word: then it is
    the number of seconds since when that holder surely spends nothing, and how much it spent is not known.

    Example: `Note(spent=((12.0, 40),))`: a weight of 40 was spent 12 seconds ago.
    """

    spent: tuple[tuple[float, int], ...] = ()
    closed: float = 0.0
    vanished: float | None = None


@attrs.define
class LeftNote:
    """A Note as a board stores it: with moments on the board's clock instead of ages, and its author."""

    author: str
    spent: tuple[tuple[float, int], ...] = ()
    closed: float = 0.0
    vanished: float | None = None

    @classmethod
    def of(cls, note: Note, author: str, now: float) -> LeftNote:
        """Turn the ages of a note into moments."""
        spent = tuple((now - age, weight) for age, weight in note.spent)
        closed = now + note.closed if note.closed > 0 else 0.0
        return cls(author, spent, closed, None if note.vanished is None else now - note.vanished)

    def note(self, now: float) -> Note:
        """Turn the moments into ages again."""
        spent = tuple((now - moment, weight) for moment, weight in self.spent)
        return Note(
            spent, max(0.0, self.closed - now), None if self.vanished is None else now - self.vanished
        )

    def moved(self, step: float) -> LeftNote:
        """Return the same note for a clock that was set by `step` seconds."""
        spent = tuple((moment + step, weight) for moment, weight in self.spent)
        vanished = None if self.vanished is None else self.vanished + step
        return LeftNote(self.author, spent, self.closed + step, vanished)

    def united(self, other: LeftNote) -> LeftNote:
        """Put two notes together. The author is "", so that the authors of both notes read the result."""
        vanished = [each.vanished for each in (self, other) if each.vanished is not None]
        return LeftNote(
            "", self.spent + other.spent, max(self.closed, other.closed), max(vanished) if vanished else None
        )

    def over(self, now: float, period: float) -> bool:
        """Whether the exchange no longer counts anything of the note."""
        moments = [moment for moment, _ in self.spent]
        if self.vanished is not None:
            moments.append(self.vanished)
        return self.closed <= now and all(moment + period <= now for moment in moments)
