"""The thread driver: runs a plan, parking the calling thread until its turn."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ratekeeper.core.effects import Enter, Leave, LookAgain, Park
from ratekeeper.core.line import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratekeeper.core.effects import Effect, Plan
    from ratekeeper.core.line import Waiter
    from ratekeeper.runtime.desk import Desk


class ThreadSeat:
    """A parked thread: it sleeps on a lock that whoever moves the line releases."""

    __slots__ = ("_desk", "_lock", "_thread")

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._lock.acquire()
        self._thread = threading.current_thread()

    def wake(self, waiter: Waiter) -> bool:
        """Tell the thread; False when it has ended."""
        del waiter
        self._desk.clock.wake(self._lock)
        return self._thread.is_alive()

    def is_gone(self) -> bool:
        """Say whether the thread has ended."""
        return not self._thread.is_alive()

    def park(self, waiter: Waiter) -> None:
        """Sleep until told, or until it is time to look again."""
        left_us = waiter.wake_us - self._desk.now_us()
        self._desk.clock.wait(self._lock, max(0, left_us))


def drive(plan: Plan, perform: Callable[[Any], Any]) -> Any:
    """Run a plan to its result on the calling thread; `perform` does what it asks."""
    try:
        effect = next(plan)
        while True:
            try:
                result = perform(effect)
            except BaseException as error:  # noqa: BLE001 - the plan cleans up
                effect = plan.throw(error)
            else:
                effect = plan.send(result)
    except StopIteration as stop:
        return stop.value


def run(plan: Plan, desk: Desk, targets: Sequence[Any] = ()) -> Any:
    """Run a plan of the line on the calling thread."""
    return drive(plan, lambda effect: _perform(effect, desk, targets))


def _perform(effect: Effect, desk: Desk, targets: Sequence[Any]) -> None:
    match effect:
        case Enter(waiter):
            desk.enter(waiter, targets)
        case Park(waiter):
            if waiter.state is State.WAITING:
                seat = waiter.seat
                assert isinstance(seat, ThreadSeat)
                seat.park(waiter)
        case LookAgain(waiter):
            desk.look_again(waiter)
        case Leave(waiter):
            desk.leave(waiter)


def sleep(desk: Desk, wait_us: int) -> None:
    """Sleep by the desk's clock."""
    lock = threading.Lock()
    lock.acquire()
    until = desk.now_us() + wait_us
    while (left := until - desk.now_us()) > 0:
        desk.clock.wait(lock, left)
