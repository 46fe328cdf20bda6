"""The asyncio driver: a future for each waiter, one timer for each event loop.

The timer moves the line on itself, so a task wakes once: when its fate is decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from ratekeeper.core.effects import Enter, Leave, LookAgain, Park
from ratekeeper.core.line import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ratekeeper.core.effects import Effect, Plan
    from ratekeeper.core.line import Waiter
    from ratekeeper.runtime.desk import Desk

_EARLY_S = 1e-7  # a loop's time is a float, and a timer may fire a hair early
_SPARE = 64  # stale timer entries kept before the heap is swept


class _Timer:
    """The one timer of an event loop, set to the earliest wake time of its waiters."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Weak, as the table of timers is keyed by the loop.
        self._loop = weakref.ref(loop)
        self._heap: list[tuple[float, int, TaskSeat, Waiter]] = []
        self._live: dict[Waiter, float] = {}
        self._order = itertools.count()
        self._handle: asyncio.Handle | None = None
        self._set_for = 0.0  # uvloop's handles of what is due already do not tell

    def arm(self, seat: TaskSeat, waiter: Waiter) -> None:
        """Look at a waiter again at its wake time."""
        loop = self._loop()
        if loop is None:  # pragma: no cover - armed from that very loop
            return
        left_us = max(0, waiter.wake_us - seat.desk.now_us())
        when = loop.time() + left_us / 1e6
        self._live[waiter] = when
        heapq.heappush(self._heap, (when, next(self._order), seat, waiter))
        self._set(loop)

    def disarm(self, waiter: Waiter) -> None:
        """Forget a waiter whose fate is decided."""
        self._live.pop(waiter, None)
        if len(self._heap) > 2 * len(self._live) + _SPARE:
            self._heap = [x for x in self._heap if self._live.get(x[3]) == x[0]]
            heapq.heapify(self._heap)
        if not self._live and self._handle is not None:
            self._heap.clear()
            self._handle.cancel()
            self._handle = None

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        when = self._heap[0][0]
        if self._handle is None or self._set_for > when:
            if self._handle is not None:
                self._handle.cancel()
            self._handle, self._set_for = loop.call_at(when, self._fire), when

    def _fire(self) -> None:
        self._handle = None
        loop = self._loop()
        if loop is None:  # pragma: no cover - it is running this callback
            return
        now = loop.time() + _EARLY_S
        due = []
        while self._heap and self._heap[0][0] <= now:
            when, _, seat, waiter = heapq.heappop(self._heap)
            if self._live.get(waiter) == when:
                due.append((seat, waiter))
        for seat, waiter in due:
            if waiter.state is State.WAITING:
                seat.desk.look_again(waiter)
            if waiter.state is State.WAITING:
                self.arm(seat, waiter)
            else:
                seat.resolve(waiter)
        if self._heap:
            self._set(loop)


_TIMERS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Timer] = (
    weakref.WeakKeyDictionary()
)


class TaskSeat:
    """A waiting task: a future that whoever moves the line resolves."""

    __slots__ = ("_future", "_loop", "_timer", "desk")

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None
        timer = _TIMERS.get(self._loop)
        if timer is None:
            timer = _TIMERS[self._loop] = _Timer(self._loop)
        self._timer = timer

    def wake(self, waiter: Waiter) -> bool:
        """Tell the task, from any thread; False when its loop is closed."""
        tell = self._rearm if waiter.state is State.WAITING else self.resolve
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - exported for this
            tell(waiter)
            return True
        try:
            self._loop.call_soon_threadsafe(tell, waiter)
        except RuntimeError:  # the loop is closed: its tasks will never run again
            _TIMERS.pop(self._loop, None)
            return False
        return True

    def is_gone(self) -> bool:
        """Say whether the loop is closed: its tasks will never run again."""
        gone = self._loop.is_closed()
        if gone:
            _TIMERS.pop(self._loop, None)
        return gone

    async def park(self, waiter: Waiter) -> None:
        """Sleep until the waiter's fate is decided."""
        if waiter.state is not State.WAITING:
            return
        self._future = self._loop.create_future()
        self._timer.arm(self, waiter)
        try:
            await self._future
        finally:
            self._future = None
            self._timer.disarm(waiter)

    def resolve(self, waiter: Waiter) -> None:
        """Let the task go on; call it in its loop."""
        del waiter
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def _rearm(self, waiter: Waiter) -> None:
        if self._future is not None and waiter.state is State.WAITING:
            self._timer.arm(self, waiter)


class Holder(Protocol):
    """A grant whose concurrency slots a task holds."""

    def hold_again(self, hold_us: int) -> bool:
        """Hold its slots for so long from now on; False when none is held any more."""


class Renewals:
    """What the tasks of one event loop hold for equally long: renewed half-way through.

    One timer serves them all. Holders are only looked at: one that is forgotten keeps
    its slots no longer than its hold.
    """

    __slots__ = ("_armed", "_hold_us", "_holders", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, hold_us: int) -> None:
        self._loop = weakref.ref(loop)
        self._hold_us = hold_us
        self._holders: dict[weakref.ref[Holder], float] = {}  # and when, in that order
        self._armed = False

    def add(self, holder: Holder, loop: asyncio.AbstractEventLoop) -> None:
        """Renew the slots of a grant from now on."""
        when = loop.time() + self._hold_us / 2e6
        self._holders[weakref.ref(holder)] = when
        if not self._armed:
            self._armed = True
            loop.call_at(when, self._fire)

    def discard(self, holder: Holder) -> None:
        """Stop, from any thread: the slots are given back."""
        self._holders.pop(weakref.ref(holder), None)

    def _fire(self) -> None:
        loop = self._loop()
        if loop is None:  # pragma: no cover - it is running this callback
            return
        now = loop.time()
        while (first := self._first()) is not None:
            when = self._holders.get(first, now)
            if when > now + _EARLY_S:
                loop.call_at(when, self._fire)
                return
            if self._holders.pop(first, None) is None:
                continue  # given back by another thread just now
            holder = first()
            if holder is not None and holder.hold_again(self._hold_us):
                self._holders[first] = now + self._hold_us / 2e6
        self._armed = False
        _RENEWALS.get(loop, {}).pop(self._hold_us, None)

    def _first(self) -> weakref.ref[Holder] | None:
        while True:
            with contextlib.suppress(RuntimeError):  # changed by another thread
                return next(iter(self._holders), None)


_RENEWALS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, Renewals]] = (
    weakref.WeakKeyDictionary()
)


def keep(holder: Holder, hold_us: int) -> Renewals:
    """Renew the slots of a grant in the running loop until they are discarded."""
    loop = asyncio.get_running_loop()
    by_hold = _RENEWALS.get(loop)
    if by_hold is None:
        by_hold = _RENEWALS[loop] = {}
    renewals = by_hold.get(hold_us)
    if renewals is None:
        renewals = by_hold[hold_us] = Renewals(loop, hold_us)
    renewals.add(holder, loop)
    return renewals


async def drive(plan: Plan, perform: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run a plan to its result in the running task; `perform` does what it asks."""
    try:
        effect = next(plan)
        while True:
            try:
                result = await perform(effect)
            except BaseException as error:  # noqa: BLE001 - the plan cleans up
                effect = plan.throw(error)
            else:
                effect = plan.send(result)
    except StopIteration as stop:
        return stop.value


async def run(plan: Plan, desk: Desk, targets: Sequence[Any] = ()) -> Any:
    """Run a plan of the line in the running task."""
    return await drive(plan, lambda effect: _perform(effect, desk, targets))


async def _perform(effect: Effect, desk: Desk, targets: Sequence[Any]) -> None:
    match effect:
        case Enter(waiter):
            desk.enter(waiter, targets)
        case Park(waiter):
            seat = waiter.seat
            assert isinstance(seat, TaskSeat)
            await seat.park(waiter)
        case LookAgain(waiter):
            desk.look_again(waiter)
        case Leave(waiter):
            desk.leave(waiter)
