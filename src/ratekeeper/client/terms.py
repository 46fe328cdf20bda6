"""What a call is and how long it may take: the facts that plan and drivers share.

It decides nothing about retries and knows no error; a `Turn` only keeps the time.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

from ratekeeper.core import units

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from ratekeeper.client.faults import Wire
    from ratekeeper.client.keys import ApiKey
    from ratekeeper.core.backoff import Backoff, RetryBudget
    from ratekeeper.core.patience import Patience
    from ratekeeper.providers.catalog import Provider

_SHORTEST_S = 0.001  # a time-out of 0 would mean none to some transports

TURN = "ratekeeper.turn"  # the request extension that carries the `Turn`


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all calls of a client share."""

    provider: Provider
    wire: Wire
    key: ApiKey | None
    backoff: Backoff
    budget: RetryBudget
    patience: Patience
    guard: threading.Lock  # of both
    draw: random.Random
    now_us: Callable[[], int]
    priority: str
    resend_lost: bool
    max_answer: int


class Gate:
    """Whether a call may leave: closed from outside when nothing more is to be sent.

    A call is out between leaving and its answer; while it stands in line or waits to
    be tried again it is not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._out = False
        self._closed: Exception | None = None

    def go(self) -> None:
        """Let the call out, or raise why it must stay."""
        with self._lock:
            if self._closed is not None:
                raise self._closed
            self._out = True

    def back(self) -> None:
        """Take note that the call is in again, or raise why it must not go out."""
        with self._lock:
            self._out = False
            if self._closed is not None:
                raise self._closed

    def close(self, why: Exception) -> bool:
        """Let the call out no more; True if it is in and will never be answered."""
        with self._lock:
            self._closed = why
            return not self._out


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: what goes over the wire, and how long it may take in all."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = dataclasses.field(repr=False)  # the key
    body: bytes | None = dataclasses.field(default=None, repr=False)
    stream: bool = False
    timeout_us: int | None = None
    gate: Gate | None = None


class Turn:
    """How much time a call has left, and what each step of HTTP may take of it.

    `timeouts` is the very mapping that the transport reads, kept true: the time spent
    in line is over when the request leaves, and known only then.
    """

    def __init__(self, call: Call, terms: Terms) -> None:
        self._now_us = terms.now_us
        self._wire = terms.wire
        self._gate = call.gate
        self._until_us: int | None = None
        if call.timeout_us is not None:
            self._until_us = self._now_us() + call.timeout_us
        self.timeouts: dict[str, float | None] = {}
        self.proxy = ""  # the host of the proxy on the way, once that is known
        self._left_at_us: int | None = None  # the line, None while it stands in it

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
        if self._gate is not None:
            self._gate.go()
        self.proxy = proxy
        self._left_at_us = self._now_us()
        self.reset()

    def took_us(self) -> int | None:
        """Return how long ago the attempt left; None where it has not."""
        return None if self._left_at_us is None else self._now_us() - self._left_at_us

    def back(self) -> None:
        """Take note that an attempt has ended; raise where no other may be made."""
        self._left_at_us = None
        if self._gate is not None:
            self._gate.back()

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
