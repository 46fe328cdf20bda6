"""Waiter: a call that asks for a grant, and what has become of it.

It knows its own class, flow and arrival; the line decides what they are worth.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from ratekeeper.core.units import SECOND
from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratekeeper.core.learning import Mark
    from ratekeeper.core.meter import Meter

RISE = 30 * SECOND  # a waiter rises one class each time it has waited this long


class Priority(IntEnum):
    """The classes of the line, first served first."""

    INTERACTIVE = 0
    NORMAL = 1
    BATCH = 2

    @classmethod
    def named(cls, name: str) -> Priority:
        """Return the class a caller names, as in `priority="batch"`."""
        try:
            return cls[name.upper()]
        except (KeyError, AttributeError):
            msg = f"priority={name!r}: expected interactive, normal or batch"
            raise ConfigError(msg) from None


LAST = len(Priority)  # behind every class: a call that must not overtake, nor wait


class State(IntEnum):
    """What has become of a waiter."""

    WAITING = 0
    GRANTED = 1
    REFUSED = 2  # its deadline is lost
    LEFT = 3  # cancelled, or its owner is gone
    LET_GO = 4  # it may stand in another line, and keeps its place there


class Seat(Protocol):
    """Where a waiter is told of its fate: a parked thread, or a future of a loop."""

    def wake(self, waiter: Waiter) -> bool:
        """Tell the owner; False when it is gone for good."""

    def is_gone(self) -> bool:
        """Say whether the owner will never take what it waits for."""


class Waiter:
    """A call that asks for a grant, and its place in line if it has to wait.

    The store fills in the meters, the arrival and the deadline when the call enters.
    """

    __slots__ = (
        "again",
        "arrived_us",
        "costs",
        "counted_us",
        "deadline_us",
        "flow",
        "granted_us",
        "held_by",
        "lacks",
        "least_us",
        "marks",
        "meters",
        "priority",
        "seat",
        "seq",
        "state",
        "stood",
        "timeout_us",
        "wait_us",
        "wake_us",
        "weight",
    )

    def __init__(
        self,
        costs: Sequence[int],
        *,
        timeout_us: int | None = None,
        priority: int = Priority.NORMAL,
        flow: str = "",
        weight: int = 1,
        again: bool = False,
        place: tuple[int, int] | None = None,
        seat: Seat | None = None,
    ) -> None:
        self.costs = costs
        self.timeout_us = timeout_us
        self.priority = priority
        self.flow = flow
        self.weight = weight  # of its flow: the last one said counts
        self.again = again  # it has had its turn before: it goes ahead of its class
        self.seat = seat
        self.meters: Sequence[Meter] = ()
        self.marks: Sequence[Mark | None] = ()  # how its limits stood when it went
        self.counted_us: int | None = None  # when the provider counted it, once known
        # Order and time of arrival, which stay the same in every line it stands in.
        self.seq, self.arrived_us = place or (0, 0)
        self.deadline_us: int | None = None
        self.state = State.WAITING
        self.stood = False  # whether the store counts it among those who wait
        self.lacks: list[Meter] = []  # the limits in whose line it stands
        self.wake_us = 0  # when it is worth looking again
        self.wait_us = 0  # how long it must still wait, when last looked at
        self.least_us = 0  # the same if calls under way give back all they may
        self.held_by: Meter | None = None  # the limit it waits or waited for longest
        self.granted_us = 0

    def __lt__(self, other: Waiter) -> bool:
        return self.seq < other.seq

    def arrive(self, meters: Sequence[Meter], now: int, seq: int) -> None:
        """Come to the line."""
        self.meters = meters
        if not self.arrived_us:
            self.seq, self.arrived_us = seq, now
        self.wake_us = now
        if self.timeout_us is not None:
            self.deadline_us = now + self.timeout_us

    @property
    def place(self) -> tuple[int, int]:
        """What another line knows its place by: order and time of arrival."""
        return self.seq, self.arrived_us

    def go(self, now: int) -> None:
        """Take note that all its limits have granted it."""
        self.state = State.GRANTED
        self.granted_us = now
        marks = [meter.mark(now) for meter in self.meters]
        self.marks = marks if any(marks) else ()

    def cost_of(self, meter: Meter) -> int:
        """Return what this call takes from one of its limits."""
        return self.costs[self.meters.index(meter)]

    def cut(self) -> None:
        """Hold no more than the limits do that have come to be known."""
        self.costs = [
            cost if meter.learner is None else min(cost, meter.limit.amount)
            for meter, cost in zip(self.meters, self.costs, strict=True)
        ]

    def rank(self, now: int) -> int:
        """Return the class it stands in, risen by how long it has waited."""
        return max(0, self.priority - (now - self.arrived_us) // RISE)

    def rises_us(self, rank: int) -> int:
        """Return when it leaves a class for the one above."""
        return self.arrived_us + (self.priority - rank + 1) * RISE

    def rises_by(self, until_us: int, now: int) -> bool:
        """Say whether it is to rise another class until then."""
        rank = self.rank(now)
        return rank > 0 and self.rises_us(rank) <= until_us
