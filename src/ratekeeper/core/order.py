"""The order of one line: priority class, then fair share of a flow, then arrival.

Nothing here knows what is being waited for, nor decides anything about it. Every answer
costs a few comparisons, however many wait: flows are kept in the order in which they
are served, and a flow is a list in blocks that know the sum of their costs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING

from ratekeeper.core.waiter import Priority

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratekeeper.core.waiter import Waiter

_BLOCK = 64  # waiters in a block when it has just been split
SHARE = 720_720  # a multiple of every weight up to 16: their shares are exact
_FLOWS = 64  # flows looked at for what is served before a waiter
_KEPT = 1024  # flows without waiters whose service is remembered
_STALE = 64  # entries of those who left, kept before they are swept
_AGAIN = "\0again"  # the flow of those who have had their turn: always served first


class _Flow:
    """The waiters of one flow in one class, by arrival, and what each costs."""

    __slots__ = ("_blocks", "_costs", "_sums", "served", "total", "weight")

    def __init__(self, served: int) -> None:
        self.served = served  # service received, over weight: the least goes next
        self.weight = 1
        self.total = 0
        self._blocks: list[list[Waiter]] = []
        self._costs: list[list[int]] = []
        self._sums: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._blocks)

    @property
    def head(self) -> Waiter:
        """The first by arrival."""
        return self._blocks[0][0]

    @property
    def head_cost(self) -> int:
        """What the first by arrival takes."""
        return self._costs[0][0]

    @property
    def second(self) -> Waiter | None:
        """The one after the first."""
        return next(islice((w for block in self._blocks for w in block), 1, 2), None)

    def add(self, waiter: Waiter, cost: int) -> None:
        """Let a waiter in where its arrival puts it."""
        if not self._blocks:
            self._blocks, self._costs, self._sums = [[]], [[]], [0]
        at = self._block_of(waiter)
        block, costs = self._blocks[at], self._costs[at]
        place = bisect_left(block, waiter)
        block.insert(place, waiter)
        costs.insert(place, cost)
        self._sums[at] += cost
        self.total += cost
        if len(block) == 2 * _BLOCK:
            self._blocks.insert(at + 1, block[_BLOCK:])
            self._costs.insert(at + 1, costs[_BLOCK:])
            self._sums.insert(at + 1, sum(costs[_BLOCK:]))
            self._sums[at] -= self._sums[at + 1]
            del block[_BLOCK:], costs[_BLOCK:]

    def remove(self, waiter: Waiter) -> None:
        """Let a waiter out."""
        at = self._block_of(waiter)
        place = bisect_left(self._blocks[at], waiter)
        del self._blocks[at][place]
        cost = self._costs[at].pop(place)
        self._sums[at] -= cost
        self.total -= cost
        if not self._blocks[at]:
            del self._blocks[at], self._costs[at], self._sums[at]

    def before(self, waiter: Waiter) -> int:
        """Return the cost of those who came before a waiter, in the flow or not."""
        at = self._block_of(waiter)
        place = bisect_left(self._blocks[at], waiter)
        return sum(self._sums[:at]) + sum(self._costs[at][:place])

    def _block_of(self, waiter: Waiter) -> int:
        blocks = self._blocks
        if len(blocks) == 1:
            return 0
        return max(0, bisect_right(blocks, waiter, key=_first) - 1)


def _first(block: list[Waiter]) -> Waiter:
    return block[0]


class _Tier:
    """The flows of one class."""

    __slots__ = ("_flows", "_free", "_level", "order", "total")

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._level = 0  # the service a flow that joins starts from
        self._free = 0  # waiters that take nothing of the limit
        self.order: list[tuple[int, int, _Flow]] = []  # those with waiters, as served
        self.total = 0

    def add(self, waiter: Waiter, cost: int) -> None:
        """Let a waiter join its flow."""
        name = _AGAIN if waiter.again else waiter.flow
        flow = self._flows.get(name)
        if flow is None:
            flow = self._flows[name] = _Flow(self._served(waiter))
        elif flow:
            self._unlist(flow)
        else:
            flow.served = self._served(waiter)
        flow.weight = waiter.weight
        flow.add(waiter, cost)
        self.total += cost
        self._free += not cost
        insort(self.order, (flow.served, flow.head.seq, flow))

    def remove(self, waiter: Waiter, cost: int, *, served: bool) -> None:
        """Let a waiter leave; service counts against its flow's fair share."""
        flow = self._flow_of(waiter)
        self._unlist(flow)
        flow.remove(waiter)
        self.total -= cost
        self._free -= not cost
        if served and not waiter.again:
            flow.served += cost * SHARE // flow.weight
        if flow:
            insort(self.order, (flow.served, flow.head.seq, flow))
        elif len(self._flows) > len(self.order) + _KEPT:
            self._flows = {name: flow for name, flow in self._flows.items() if flow}

    def first(self, skip: Waiter | None) -> Waiter | None:
        """Return who is next in this class, or who is next after `skip`."""
        if not self.order:
            return None
        served, _, flow = self.order[0]
        if flow.head is not skip:
            self._level = max(self._level, served)
            return flow.head
        second = flow.second
        if len(self.order) > 1:
            other = self.order[1]
            if second is None or other[:2] < (served, second.seq):
                return other[2].head
        return second

    def is_first(self, waiter: Waiter) -> bool:
        """Say whether a waiter, in the line or not, goes before the first here."""
        return (self._served(waiter), waiter.seq) < self.order[0][:2]

    def earlier(self, waiter: Waiter) -> int:
        """Return the cost of those of a waiter's flow here who came before it."""
        flow = self._flow_of(waiter) if self._has(waiter) else None
        return flow.before(waiter) if flow else 0

    def before(self, waiter: Waiter) -> int:
        """Return the least cost that is served here before a waiter."""
        own = self._flow_of(waiter) if self._has(waiter) else None
        before = self.earlier(waiter)
        if waiter.again:
            return before
        # Its turn comes when the service of its flow has come this far; by then each
        # of the others has come as far, or has nobody left.
        turn = self._served(waiter) + before * SHARE // waiter.weight
        sooner = bisect_left(self.order, (turn, waiter.seq))
        for served, _, flow in self.order[: min(sooner, _FLOWS)]:
            if served < 0:
                before += flow.total
            elif flow is not own:
                share = (turn - served) * flow.weight // SHARE
                before += max(flow.head_cost, min(flow.total, share))
        if not self._free:
            before += max(0, sooner - _FLOWS - 1)  # of the rest, one unit each
        return before

    def _served(self, waiter: Waiter) -> int:
        """Return the service a waiter's flow has had, or starts from."""
        if waiter.again:
            return -1
        flow = self._flows.get(waiter.flow)
        if flow is None:
            return self._level
        return flow.served if flow else max(flow.served, self._level)

    def _flow_of(self, waiter: Waiter) -> _Flow:
        return self._flows[_AGAIN if waiter.again else waiter.flow]

    def _has(self, waiter: Waiter) -> bool:
        return (_AGAIN if waiter.again else waiter.flow) in self._flows

    def _unlist(self, flow: _Flow) -> None:
        del self.order[bisect_left(self.order, (flow.served, flow.head.seq))]


class Line:
    """The waiters that lack one limit."""

    __slots__ = ("_places", "_rises", "_tiers")

    def __init__(self) -> None:
        self._tiers = tuple(_Tier() for _ in Priority)
        self._places: dict[Waiter, tuple[int, int]] = {}  # cost and class
        self._rises: list[tuple[int, int, Waiter]] = []  # when, a heap

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._places)

    def add(self, waiter: Waiter, cost: int, now: int) -> None:
        """Let a waiter join by its class, flow and arrival."""
        self._put(waiter, cost, waiter.rank(now))

    def remove(self, waiter: Waiter, *, served: bool) -> None:
        """Let a waiter leave; service counts against its flow's fair share."""
        cost, rank = self._places.pop(waiter)
        self._tiers[rank].remove(waiter, cost, served=served)
        if len(self._rises) > 2 * len(self._places) + _STALE:
            self._rises = [rise for rise in self._rises if rise[2] in self._places]
            heapify(self._rises)

    def first(self, now: int, *, skip: Waiter | None = None) -> Waiter | None:
        """Return who is next, or who is next after `skip`."""
        self._rise(now)
        for tier in self._tiers:
            found = tier.first(skip)
            if found is not None:
                return found
        return None

    def is_first(self, waiter: Waiter, now: int) -> bool:
        """Say whether a waiter, in the line or not, would be next."""
        first = self.first(now)
        if first is None or first is waiter:
            return True
        rank, other = waiter.rank(now), self._places[first][1]
        if rank != other:
            return rank < other
        return self._tiers[rank].is_first(waiter)

    def ahead(self, waiter: Waiter, now: int) -> int:
        """Return the least cost that is served before `waiter`."""
        self._rise(now)
        rank = waiter.rank(now)
        before = sum(tier.total for tier in self._tiers[:rank])
        if rank < len(self._tiers):
            before += self._tiers[rank].before(waiter)
        return before

    def stay_ahead(self, waiter: Waiter, now: int) -> int:
        """Return the cost of those who are served before `waiter` even if it rises.

        They came earlier, in its flow and its class or one above: they rise as well.
        """
        self._rise(now)
        return sum(tier.earlier(waiter) for tier in self._tiers[: waiter.rank(now) + 1])

    def _put(self, waiter: Waiter, cost: int, rank: int) -> None:
        self._tiers[rank].add(waiter, cost)
        self._places[waiter] = cost, rank
        if rank:
            heappush(self._rises, (waiter.rises_us(rank), waiter.seq, waiter))

    def _rise(self, now: int) -> None:
        """Move up whoever has waited long enough."""
        while self._rises and self._rises[0][0] <= now:
            waiter = heappop(self._rises)[2]
            cost, rank = self._places.get(waiter, (0, 0))
            if waiter.rank(now) < rank:
                self._tiers[rank].remove(waiter, cost, served=False)
                self._put(waiter, cost, waiter.rank(now))
