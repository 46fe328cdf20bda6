"""What a call is and how long it may take: the facts that plan and drivers share.

It decides nothing about retries and knows no error; a `Turn` only keeps the time.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeAlias

from ratekeeper.core import units

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable

    from ratekeeper.client.faults import Wire
    from ratekeeper.client.keys import ApiKey
    from ratekeeper.core.backoff import Backoff, RetryBudget
    from ratekeeper.providers.catalog import Provider

_SHORTEST_S = 0.001  # a time-out of 0 would mean none to some transports

Halted: TypeAlias = "Callable[[], BaseException | None]"  # why nothing may be sent

TURN = "ratekeeper.turn"  # the request extension that carries the `Turn`


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all calls of a client share."""

    provider: Provider
    wire: Wire
    key: ApiKey | None
    backoff: Backoff
    budget: RetryBudget
    guard: threading.Lock  # of the budget
    draw: random.Random
    now_us: Callable[[], int]
    priority: str
    resend_lost: bool


def _never() -> None:
    return None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: what goes over the wire, and how long it may take in all."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None = None
    stream: bool = False
    timeout_us: int | None = None
    halted: Halted = _never


class Turn:
    """How much time a call has left, and what each step of HTTP may take of it.

    `timeouts` is the very mapping that the transport reads, kept true: the time spent
    in line is over when the request leaves, and known only then.
    """

    def __init__(self, call: Call, terms: Terms) -> None:
        self._now_us = terms.now_us
        self._wire = terms.wire
        self._halted = call.halted
        self._until_us: int | None = None
        if call.timeout_us is not None:
            self._until_us = self._now_us() + call.timeout_us
        self.timeouts: dict[str, float | None] = {}
        self.proxy = ""  # the host of the proxy on the way, once that is known

    def left_us(self) -> int | None:
        """Return what is left of the deadline; None where there is none."""
        if self._until_us is None:
            return None
        return max(0, self._until_us - self._now_us())

    def is_over(self) -> bool:
        """Say whether the deadline has passed."""
        return self.left_us() == 0

    def go(self, proxy: str) -> None:
        """Set the time-outs for what comes next; raise where the call may not leave."""
        if (stop := self._halted()) is not None:
            raise stop
        self.proxy = proxy
        self.reset()

    def reset(self) -> None:
        """Cut every time-out down to what is left."""
        left_us = self.left_us()
        left_s = None if left_us is None else max(_SHORTEST_S, units.seconds(left_us))
        read_s, connect_s = self._wire.read_s, self._wire.connect_s
        self.timeouts.update(
            connect=connect_s if left_s is None else min(connect_s, left_s),
            read=read_s if left_s is None else min(read_s, left_s),
            write=read_s if left_s is None else min(read_s, left_s),
            pool=left_s,
        )
