"""Time that tests own: a manual clock for threads, a virtual event loop for tasks.

A minute of waiting costs no real time and every run of a test sees the same instants.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
from typing import TYPE_CHECKING, Any

from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

EPOCH = 1_800_000_000_000_000  # a round instant in 2027, in epoch microseconds


class ManualClock:
    """A clock that moves only when told to.

    With `auto`, a thread that waits moves it to its own wake time: single-threaded
    tests then wait in no time. Without, `advance` wakes the threads that are due, and
    `run` plays several threads in virtual time.
    """

    def __init__(self, now_us: int = EPOCH, *, auto: bool = False) -> None:
        self._now_us = now_us
        self._auto = auto
        self._guard = threading.Condition()
        self._parked: dict[threading.Lock, int] = {}  # and when each wants to look

    def now_us(self) -> int:
        """Return the time in epoch microseconds."""
        return self._now_us

    def advance(self, seconds: float = 0.0, *, us: int = 0) -> None:
        """Move time on (or, negative, turn the clock back) and wake who is due."""
        with self._guard:
            self._now_us += round(seconds * 1e6) + us
            due = [lock for lock, at in self._parked.items() if at <= self._now_us]
            for lock in due:
                del self._parked[lock]
                lock.release()

    def wait(self, lock: threading.Lock, timeout_us: int) -> bool:
        """Wait until `lock` can be taken or the time has passed; True if taken."""
        with self._guard:
            if lock.acquire(blocking=False):
                return True
            until_us = self._now_us + timeout_us
            if not self._auto and timeout_us > 0:
                self._parked[lock] = until_us
                self._guard.notify_all()
        if self._auto:
            self.advance(us=timeout_us)
        elif timeout_us > 0:
            try:
                lock.acquire()
            finally:
                with self._guard:
                    self._parked.pop(lock, None)
        return self._now_us < until_us

    def wake(self, lock: threading.Lock) -> None:
        """Release a lock, so that whoever waits for it goes on; twice is once."""
        with self._guard:
            self._parked.pop(lock, None)
            if lock.locked():
                lock.release()

    def sleep(self, seconds: float) -> None:
        """Let the calling thread sleep by this clock."""
        lock = threading.Lock()
        with lock:
            self.wait(lock, round(seconds * 1e6))

    def run(self, *tasks: Callable[[], object], patience_s: float = 15.0) -> None:
        """Run each task in a thread, in virtual time: it passes when all are parked.

        Raises what the tasks raised.
        """
        errors: list[BaseException] = []
        left = len(tasks)

        def play(task: Callable[[], object]) -> None:
            nonlocal left
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)
            finally:
                with self._guard:
                    left -= 1
                    self._guard.notify_all()

        threads = [
            threading.Thread(target=play, args=(task,), daemon=True) for task in tasks
        ]
        for thread in threads:
            thread.start()
        while left:
            with self._guard:
                if not self._guard.wait_for(
                    lambda: len(self._parked) >= left, patience_s
                ):
                    msg = f"{len(self._parked)} of {left} threads are parked"
                    raise TimeoutError(msg)
                due_us = min(self._parked.values(), default=self._now_us)
            self.advance(us=max(0, due_us - self._now_us))
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer whenever nothing is ready.

    Its `clock` is the one to give to a store. For code that waits on timers alone: a
    task that waits for a socket or a thread is a deadlock here, and is reported.
    """

    def __init__(self, now_us: int = EPOCH) -> None:
        self.clock = ManualClock(now_us)
        self._start_us = now_us
        super().__init__(_Jump(self))
        self._clock_resolution = _RESOLUTION_S

    def time(self) -> float:
        """Return virtual seconds since the loop began."""
        return (self.clock.now_us() - self._start_us) / 1e6

    def jump(self, seconds: float) -> None:
        """Move time on, rounded up to the microsecond so that timers are due."""
        self.clock.advance(us=max(1, math.ceil((seconds - _RESOLUTION_S) * 1e6)))


_RESOLUTION_S = 1e-7  # below a microsecond, above what sums of floats are off by


class _Jump(selectors.DefaultSelector):
    """A selector that never sleeps: it moves the loop's clock instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._virtual = loop

    def select(self, timeout: float | None = None) -> Any:
        """Poll; where nothing is ready, time passes instead."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            msg = "every task waits and no timer is set: this would hang for ever"
            raise ConfigError(msg)
        self._virtual.jump(timeout)
        return ready


def run_virtual(main: Coroutine[Any, Any, Any], loop: VirtualLoop | None = None) -> Any:
    """Run a coroutine in virtual time and close the loop."""
    with asyncio.Runner(loop_factory=lambda: loop or VirtualLoop()) as runner:
        return runner.run(main)
