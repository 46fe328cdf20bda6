"""What lies over an algorithm: a limit only watched, and a limit whose use is kept.

Each overlay changes what is said of a charge, never the arithmetic under it, and holds
nothing of its own: what it counts stands on the meter, so that a meter may take one on
or put it off while it is in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ratekeeper.core.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Iterable


class Page(Protocol):
    """Where the use of one limit of one key is written down."""

    def note(self, amount: int, at_us: int) -> None:
        """Write down what was taken then; a refund is less than 0."""

    def recall(self, now: int) -> Iterable[tuple[int, int]]:
        """Return what was taken, as instants in order and amounts."""


class Noted(Meter):
    """A limit that writes down what it counts, and starts from what was written."""

    __slots__ = ()

    def restore(self, page: Page, now: int) -> None:
        """Start from what was used before, and write down from here on."""
        self.page = page
        for at_us, amount in page.recall(now):
            super().take(amount, at_us)

    def admit(self, cost: int, now: int) -> None:
        """Charge what fits, and write it down."""
        super().admit(cost, now)
        self._write(cost, now)

    def take(self, cost: int, now: int) -> None:
        """Charge `cost` at `now`, and write it down."""
        super().take(cost, now)
        self._write(cost, now)

    def back(
        self, cost: int, taken_us: int, now: int, counted_us: int | None = None
    ) -> None:
        """Give back part of what was taken, and write it down where it was taken."""
        super().back(cost, taken_us, now, counted_us)
        if taken_us > now - self.limit.window_us:  # before, it changes nothing
            self._write(-cost, taken_us)

    def _write(self, amount: int, at_us: int) -> None:
        assert self.page is not None  # it was restored from one
        if amount:
            self.page.note(amount, at_us)


class Shadow(Meter):
    """A limit that is decided and counted, and lets everything through.

    What is taken above it leaves no debt: it would deny what the limit alone denies.
    A provider's word still holds: a pause is none of its decisions.
    """

    __slots__ = ()

    owes = False

    def wait_us(self, cost: int, now: int) -> int:
        """Return 0: whatever is asked may go now."""
        del cost, now
        return 0

    def never(self, cost: int) -> bool:
        """Say no: nothing is refused."""
        del cost
        return False

    def backlog_us(self, ahead: int, cost: int, now: int) -> int:
        """Return 0: nobody has to wait for it."""
        del ahead, cost, now
        return 0

    def least_us(self, ahead: int, cost: int, back: int, now: int) -> int:
        """Return 0: nobody has to wait for it."""
        del ahead, cost, back, now
        return 0

    def fullness(self, now: int) -> float:
        """Return 0: it is no reason to go elsewhere."""
        del now
        return 0.0

    def admit(self, cost: int, now: int) -> None:
        """Charge all of it, and count it as missed where the limit would have denied."""
        if super().never(cost) or super().wait_us(cost, now):
            self.missed += 1
            self.missed_us = now
        super().take(cost, now)


_LAID: dict[tuple[type[Meter], bool, bool], type[Meter]] = {}


def laid_over(kind: type[Meter], *, noted: bool, shadow: bool) -> type[Meter]:
    """Return an algorithm with these overlays; all share one layout."""
    over = [part for part, wanted in ((Shadow, shadow), (Noted, noted)) if wanted]
    if not over:
        return kind
    found = _LAID.get((kind, noted, shadow))
    if found is None:
        name = "".join(part.__name__ for part in (*over, kind))
        found = type(name, (*over, kind), {"__slots__": (), "__doc__": kind.__doc__})
        _LAID[kind, noted, shadow] = found
    return found
