"""The line: who waits, in which order, and who is next.

A waiter stands in the lines of the limits that deny it now. Order is priority class,
then weighted fair sharing between the flows of a class, then arrival. A call never
overtakes an earlier one on a limit both need and the earlier one lacks.
Everything here is pure: `enter`, `advance` and `withdraw` change meters and lines, and
report the waiters whose fate changed; waking them is the store's business.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from ratekeeper.core.units import MINUTE, SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ratekeeper.core.meter import Meter

RISE = 30 * SECOND  # a waiter rises one class each time it has waited this long


class Priority(IntEnum):
    """The classes of the line, first served first."""

    INTERACTIVE = 0
    NORMAL = 1
    BATCH = 2


class State(IntEnum):
    """What has become of a waiter."""

    WAITING = 0
    GRANTED = 1
    REFUSED = 2  # its deadline is lost
    LEFT = 3  # cancelled, or its owner is gone


class Seat(Protocol):
    """Where a waiter is told of its fate: a parked thread, or a future of a loop."""

    def wake(self, waiter: Waiter) -> bool:
        """Tell the owner; False when it is gone for good."""


class Waiter:
    """A call that asks for a grant, and its place in line if it has to wait.

    The store fills in the meters, the arrival and the deadline when the call enters.
    """

    __slots__ = (
        "again",
        "arrived_us",
        "charged",
        "costs",
        "deadline_us",
        "flow",
        "granted_us",
        "held_by",
        "lacks",
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
        priority: Priority = Priority.NORMAL,
        flow: str = "",
        weight: int = 1,
        again: bool = False,
        seat: Seat | None = None,
    ) -> None:
        self.costs = costs
        self.timeout_us = timeout_us
        self.priority = priority
        self.flow = flow
        self.weight = weight
        self.again = again  # it has had its turn before: it goes ahead of its class
        self.seat = seat
        self.meters: Sequence[Meter] = ()
        self.charged: Sequence[int] = ()  # what its meters had charged when it went
        self.seq = 0  # order of arrival
        self.arrived_us = 0
        self.deadline_us: int | None = None
        self.state = State.WAITING
        self.stood = False  # whether the store counts it among those who wait
        self.lacks: list[Meter] = []  # the limits in whose line it stands
        self.wake_us = 0  # when it is worth looking again
        self.wait_us = 0  # how long it must still wait, when last looked at
        self.held_by: Meter | None = None  # the limit it waits or waited for longest
        self.granted_us = 0

    def __lt__(self, other: Waiter) -> bool:
        return self.seq < other.seq

    def arrive(self, meters: Sequence[Meter], now: int, seq: int) -> None:
        """Come to the line."""
        self.meters = meters
        self.seq = seq - _AHEAD if self.again else seq
        self.arrived_us = now
        self.wake_us = now
        if self.timeout_us is not None:
            self.deadline_us = now + self.timeout_us

    def cost_of(self, meter: Meter) -> int:
        """Return what this call takes from one of its limits."""
        return self.costs[self.meters.index(meter)]

    def rank(self, now: int) -> int:
        """Return the class it stands in, risen by how long it has waited."""
        return max(0, self.priority - (now - self.arrived_us) // RISE)


_AHEAD = 1 << 62  # more than there will ever be arrivals


class _Flow:
    """The waiters of one flow in one class, by arrival."""

    __slots__ = ("served", "waiters")

    def __init__(self, served: int) -> None:
        self.waiters: list[Waiter] = []
        self.served = served  # service received, over weight: the least goes next


class Line:
    """The waiters that lack one limit."""

    __slots__ = ("_classes", "_costs", "_level", "_queued")

    def __init__(self) -> None:
        self._classes: tuple[dict[str, _Flow], ...] = ({}, {}, {})
        self._level = [0, 0, 0]  # per class: the service a flow that joins starts from
        self._costs: dict[Waiter, int] = {}
        self._queued = 0

    def __len__(self) -> int:
        return len(self._costs)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._costs)

    def add(self, waiter: Waiter, cost: int, now: int) -> None:
        """Let a waiter join by its arrival."""
        self._put(waiter, waiter.rank(now))
        self._costs[waiter] = cost
        self._queued += cost

    def remove(self, waiter: Waiter, *, served: bool) -> None:
        """Let a waiter leave; service counts against its flow's fair share."""
        cost = self._costs.pop(waiter)
        self._queued -= cost
        rank = self._rank_of(waiter)
        flow = self._classes[rank][waiter.flow]
        del flow.waiters[bisect_left(flow.waiters, waiter)]
        if served:
            flow.served += max(1, cost) * _SHARE // waiter.weight
        if not flow.waiters and flow.served <= self._level[rank]:
            del self._classes[rank][waiter.flow]

    def first(self, now: int, *, skip: Waiter | None = None) -> Waiter | None:
        """Return who is next, or who is next after `skip`."""
        self._rise(now)
        for rank, flows in enumerate(self._classes):
            best: tuple[int, int] | None = None
            found: Waiter | None = None
            for flow in flows.values():
                for waiter in flow.waiters[:2]:
                    if waiter is not skip:
                        if best is None or (flow.served, waiter.seq) < best:
                            best, found = (flow.served, waiter.seq), waiter
                        break
            if best is not None:
                if skip is None:
                    self._level[rank] = max(self._level[rank], best[0])
                return found
        return None

    def is_first(self, waiter: Waiter, now: int) -> bool:
        """Say whether a waiter, in the line or not, would be next."""
        first = self.first(now)
        if first is None or first is waiter:
            return True
        rank, other = waiter.rank(now), self._rank_of(first)
        if rank != other:
            return rank < other
        if waiter.flow == first.flow:
            return waiter.seq < first.seq
        flows = self._classes[rank]
        mine = flows.get(waiter.flow)
        served = self._level[rank] if mine is None else mine.served
        return (served, waiter.seq) < (flows[first.flow].served, first.seq)

    def ahead(self, waiter: Waiter, now: int) -> int:
        """Return the least cost that is served before `waiter`."""
        rank = waiter.rank(now)
        flows = self._classes[rank]
        only = waiter.flow in flows if len(flows) == 1 else not flows
        if waiter not in self._costs and only and not any(self._classes[rank + 1 :]):
            return self._queued  # it would join at the very end
        before = [w for flows in self._classes[:rank] for w in _all(flows)]
        if waiter.flow in flows:
            mine = flows[waiter.flow].waiters
            before += mine[: bisect_left(mine, waiter)]
        return sum(self._costs[other] for other in before)

    def _put(self, waiter: Waiter, rank: int) -> None:
        flows = self._classes[rank]
        flow = flows.get(waiter.flow)
        if flow is None:
            flow = flows[waiter.flow] = _Flow(self._level[rank])
        elif not flow.waiters:
            flow.served = max(flow.served, self._level[rank])
        insort(flow.waiters, waiter)

    def _rank_of(self, waiter: Waiter) -> int:
        for rank, flows in enumerate(self._classes):
            flow = flows.get(waiter.flow)
            if flow is not None:
                at = bisect_left(flow.waiters, waiter)
                if at < len(flow.waiters) and flow.waiters[at] is waiter:
                    return rank
        raise AssertionError(waiter)  # pragma: no cover - only asked of those in line

    def _rise(self, now: int) -> None:
        """Move up whoever has waited long enough; the first of a flow is its oldest."""
        for rank in (1, 2):
            flows = self._classes[rank]
            for name in list(flows):
                waiters = flows[name].waiters
                while waiters and waiters[0].rank(now) < rank:
                    waiter = waiters.pop(0)
                    self._put(waiter, waiter.rank(now))
                if not waiters and flows[name].served <= self._level[rank]:
                    del flows[name]


_SHARE = 1 << 20  # keeps the integer division by a weight fine enough


def _all(flows: dict[str, _Flow]) -> Iterator[Waiter]:
    for flow in flows.values():
        yield from flow.waiters


def enter(waiter: Waiter, now: int) -> list[Waiter]:
    """Grant a call now, let it stand in line, or refuse it when its deadline is lost.

    Returns every waiter whose state or wake time changed, this one included.
    """
    changed = advance(waiter.meters, now)
    _consider(waiter, now, changed)
    return changed


def look_again(waiter: Waiter, now: int) -> list[Waiter]:
    """Move on the lines a waiter stands in and reconsider it: its wake time has come.

    Returns every waiter whose state or wake time changed.
    """
    changed = advance(list(waiter.lacks), now)
    if waiter.state is State.WAITING:
        _consider(waiter, now, changed)
    return changed


def advance(meters: Iterable[Meter], now: int) -> list[Waiter]:
    """Move the lines of these limits on as far as they go.

    Returns the waiters whose state changed or who must wake earlier than they meant to.
    """
    changed: list[Waiter] = []
    todo = [meter for meter in meters if meter.line is not None]
    while todo:
        meter = todo.pop()
        while meter.line is not None:
            first = meter.line.first(now)
            if first is None:  # pragma: no cover - an empty line is dropped
                break
            lines = list(first.lacks)
            _consider(first, now, changed)
            if meter in first.lacks:
                _remind_second(meter, first, now, changed)
                break
            todo.extend(m for m in lines if m is not meter and m.line is not None)
    return changed


def withdraw(waiter: Waiter, now: int) -> list[Waiter]:
    """Take a waiter out of every line; returns whom that let through."""
    lines = list(waiter.lacks)
    _leave(waiter, lines, served=False)
    waiter.state = State.LEFT
    return advance(lines, now)


def refuse_lost(meters: Iterable[Meter], now: int) -> list[Waiter]:
    """Refuse whom a pause or a lowered amount has made wait in vain.

    Returns every waiter whose state or wake time changed.
    """
    changed: list[Waiter] = []
    for meter in meters:
        for waiter in list(meter.line or ()):
            if waiter.state is not State.WAITING:
                continue  # an earlier one's leaving has let it through
            lines = list(waiter.lacks)
            end_us = waiter.deadline_us
            if meter.never(waiter.cost_of(meter)) or (
                end_us is not None and end_us < meter.paused_until_us
            ):
                _consider(waiter, now, changed)
            if waiter.state is not State.WAITING:
                changed += advance([m for m in lines if m is not meter], now)
    return changed


def _lacking(waiter: Waiter, now: int) -> list[tuple[Meter, int]]:
    """List the limits that hold a call up now, each with its least wait."""
    lacking = []
    for meter, cost in zip(waiter.meters, waiter.costs, strict=True):
        delay = meter.delay_us(cost, now)
        line = meter.line
        if line is not None and not line.is_first(waiter, now):
            first = line.first(now)
            if first is not None:
                delay = max(delay, 1, meter.delay_us(first.cost_of(meter), now))
            ahead = line.ahead(waiter, now)
            delay = max(delay, meter.backlog_us(ahead, cost, now))
        if delay:
            lacking.append((meter, delay))
    return lacking


def _consider(waiter: Waiter, now: int, changed: list[Waiter]) -> None:
    """Grant, refuse or place one call."""
    lacking = _lacking(waiter, now)
    if not lacking:
        for meter, cost in zip(waiter.meters, waiter.costs, strict=True):
            meter.charge(cost, now)
        waiter.charged = [meter.charged for meter in waiter.meters]
        _leave(waiter, waiter.lacks, served=True)
        waiter.state = State.GRANTED
        waiter.granted_us = now
        changed.append(waiter)
        return
    waiter.held_by, waiter.wait_us = max(lacking, key=lambda pair: pair[1])
    if _is_lost(waiter, lacking, now):
        _leave(waiter, waiter.lacks, served=False)
        waiter.state = State.REFUSED
        changed.append(waiter)
        return
    wanted = [meter for meter, _ in lacking]
    _leave(waiter, [m for m in waiter.lacks if m not in wanted], served=False)
    for meter in wanted:
        if meter not in waiter.lacks:
            if meter.line is None:
                meter.line = Line()
                meter.attention = True
            meter.line.add(waiter, waiter.cost_of(meter), now)
            waiter.lacks.append(meter)
    wake = now + waiter.wait_us
    if waiter.deadline_us is not None:
        wake = min(wake, waiter.deadline_us)
    if wake < waiter.wake_us or waiter.wake_us <= now:
        changed.append(waiter)
    waiter.wake_us = wake


def _is_lost(waiter: Waiter, lacking: list[tuple[Meter, int]], now: int) -> bool:
    """Say whether a call's deadline is provably lost, or its budget is spent."""
    if waiter.deadline_us is None:
        return any(meter.limit.is_money and wait > _PATIENCE for meter, wait in lacking)
    sure = max((wait for meter, wait in lacking if meter.exact), default=0)
    return now >= waiter.deadline_us or now + sure > waiter.deadline_us


_PATIENCE = MINUTE  # nobody waits longer than this for money unless told to


def _remind_second(
    meter: Meter, first: Waiter, now: int, changed: list[Waiter]
) -> None:
    """Let the second in line wake when the first, held up elsewhere, lets it pass."""
    if meter.line is None or len(meter.line) == 1:
        return
    passes = now + meter.delay_us(first.cost_of(meter), now)
    if first.wake_us > passes > now:
        second = meter.line.first(now, skip=first)
        if second is not None and second.wake_us > passes:
            second.wake_us = passes
            changed.append(second)


def _leave(waiter: Waiter, meters: Iterable[Meter], *, served: bool) -> None:
    for meter in list(meters):
        if meter.line is not None:
            meter.line.remove(waiter, served=served)
            if not len(meter.line):
                meter.line = None
        waiter.lacks.remove(meter)
