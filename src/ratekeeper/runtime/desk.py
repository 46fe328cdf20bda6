"""What a driver needs of a store: where callers enter, look again and leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratekeeper.core.line import Waiter
    from ratekeeper.runtime.clock import Clock


class Desk(Protocol):
    """A store, as the drivers see it."""

    @property
    def clock(self) -> Clock:
        """Return where the store's time comes from."""

    def now_us(self) -> int:
        """Return the store's time in epoch microseconds."""

    def enter(self, waiter: Waiter, targets: Sequence[Any]) -> None:
        """Grant a call, let it stand in line, or refuse it."""

    def look_again(self, waiter: Waiter) -> None:
        """Reconsider a waiter whose wake time has come."""

    def leave(self, waiter: Waiter) -> None:
        """Take a waiter out of the line, or give its grant back."""
