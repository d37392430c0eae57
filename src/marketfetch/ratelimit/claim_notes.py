"""What the holder of an address leaves to the next one: what is spent of its budget. Times are seconds."""

from __future__ import annotations

import attrs

__all__ = ["LeftNote", "Note"]


@attrs.frozen
class Note:
    """What a holder leaves to the next one.

    `spent` has pairs of an age in seconds and a weight; `closed` is for how many seconds the exchange wants
    nothing from this address. A holder that vanished leaves `spent` empty and `vanished`, the seconds since
    when that holder surely spends nothing: how much it had spent by then is not known.
    """

    spent: tuple[tuple[float, int], ...] = ()
    closed: float = 0.0
    vanished: float | None = None


@attrs.define
class LeftNote:
    """A Note in the time of the board: moments instead of ages; and who left it."""

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
        """Return the same for a clock that was set by `step`."""
        spent = tuple((moment + step, weight) for moment, weight in self.spent)
        vanished = None if self.vanished is None else self.vanished + step
        return LeftNote(self.author, spent, self.closed + step, vanished)

    def united(self, other: LeftNote) -> LeftNote:
        """Put two notes together; its author is nobody, so that both of theirs read it."""
        vanished = [each.vanished for each in (self, other) if each.vanished is not None]
        return LeftNote(
            "", self.spent + other.spent, max(self.closed, other.closed), max(vanished) if vanished else None
        )

    def over(self, now: float, period: float) -> bool:
        """Whether all of it has been forgiven by the exchange."""
        moments = [moment for moment, _ in self.spent]
        if self.vanished is not None:
            moments.append(self.vanished)
        return self.closed <= now and all(moment + period <= now for moment in moments)
