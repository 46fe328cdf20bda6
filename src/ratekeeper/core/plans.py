"""The flows that may wait, written once: generators of effects.

`acquire` holds nothing while it waits, and leaves no trace when it is cancelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.core.effects import Enter, Leave, LookAgain, Park
from ratekeeper.core.line import State

if TYPE_CHECKING:
    from collections.abc import Generator

    from ratekeeper.core.effects import Effect
    from ratekeeper.core.line import Waiter


def acquire(waiter: Waiter) -> Generator[Effect, None, Waiter]:
    """Wait in line until the call is granted or refused."""
    try:
        yield Enter(waiter)
        while waiter.state is State.WAITING:
            yield Park(waiter)
            if waiter.state is State.WAITING:  # not told of anything: it is time
                yield LookAgain(waiter)
    except BaseException:
        yield Leave(waiter)
        raise
    return waiter
