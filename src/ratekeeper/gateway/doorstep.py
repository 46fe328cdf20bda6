"""Doorsteps: where calls wait for accounts that are closed, and how they go in again.

They stand there as in any line: by class, fair share and arrival. When an account opens
a few of them go; once it has answered one all others follow, so many in each turn of the
loop, and until then they become more with time: neither a provider that is just back
nor the loop is overrun. It sends nothing, and knows of accounts what they say of
themselves.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from ratekeeper.core.order import Line
from ratekeeper.core.units import SECOND
from ratekeeper.core.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST = 4  # that go when an account opens: one of them may be what it fails at
_DOUBLES_US = SECOND  # as long as nobody was answered: an answer may take a minute
_MOST_DOUBLED = 20
_SLICE = 20  # that go in one turn of the loop: some milliseconds of work
_LOOK_US = SECOND // 20  # how often an account is looked at that may open any moment


class Door(Protocol):
    """What is waited for: an account."""

    @property
    def is_proved(self) -> bool:
        """Whether it has answered since it was closed last."""

    def wait_us(self, now: int, /) -> int:
        """Return how long it is closed, 0: it is open."""


class Doorsteps:
    """Who waits outside of which accounts; for one event loop."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._steps: dict[tuple[Door, ...], _Doorstep] = {}
        self._come = 0

    def __bool__(self) -> bool:
        return bool(self._steps)

    def are_taken(self, doors: tuple[Door, ...]) -> bool:
        """Say whether others wait there already."""
        return doors in self._steps

    def waiter(
        self, priority: int, flow: str, weight: int, arrived_us: int, deadline_us: int
    ) -> Waiter:
        """Return the place of a call, which it keeps however often it waits."""
        self._come += 1
        patience_us = deadline_us - arrived_us
        found = Waiter(
            (), timeout_us=patience_us, priority=priority, flow=flow, weight=weight
        )
        found.arrive((), arrived_us, self._come)
        return found

    def disperse(self) -> None:
        """Let all go, so that they choose anew, at the place they have."""
        steps, self._steps = self._steps, {}
        for step in steps.values():
            step.disperse()

    async def wait(self, doors: tuple[Door, ...], waiter: Waiter) -> bool:
        """Wait until it is this one's turn at one of several doors.

        False where its deadline has come, or is lost, or all were let go.
        """
        assert waiter.deadline_us is not None
        left_us = max(0, waiter.deadline_us - self._now_us())
        step = self._steps.get(doors)
        if step is None:
            step = self._steps[doors] = _Doorstep(doors, self._now_us)
        try:
            async with asyncio.timeout(left_us / 1e6):
                return await step.stand(waiter)
        except TimeoutError:
            return False
        finally:
            step.leave(waiter)
            if not step and self._steps.get(doors) is step:
                step.close()
                del self._steps[doors]


class _Doorstep:
    """Those who wait for the same accounts."""

    def __init__(self, doors: tuple[Door, ...], now_us: Callable[[], int]) -> None:
        self._doors = doors
        self._now_us = now_us
        self._loop = asyncio.get_running_loop()
        self._line = Line()
        self._places: dict[Waiter, asyncio.Future[bool]] = {}
        self._timer: asyncio.Handle | None = None
        self._closed_until_us = 0
        self._opened_us: int | None = None  # None while all are closed
        self._gone = 0  # since then
        self._is_over = False  # all are to go and to choose anew

    def __bool__(self) -> bool:
        return bool(self._places)

    async def stand(self, waiter: Waiter) -> bool:
        """Stand in line; return whether it is its turn, or its deadline is lost."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._places[waiter] = future
        self._line.add(waiter, 1, self._now_us())
        if self._timer is None:  # all who come at once are there by then
            self._timer = self._loop.call_soon(self._look)
        return await future

    def leave(self, waiter: Waiter) -> None:
        """Let one go who has had its turn, or waits no more."""
        if self._places.pop(waiter, None) is not None:
            self._line.remove(waiter, served=False)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def disperse(self) -> None:
        """Let all go in the order of the line, so many in each turn of the loop."""
        self._is_over = True
        self.close()
        self._look()

    def _look(self) -> None:
        """Let in whom the accounts may have now, and look again when there is more."""
        now = self._now_us()
        wait_us = min(door.wait_us(now) for door in self._doors)
        if self._is_over:
            self._wake_next(_SLICE, now, is_its_turn=False)
            later_us = 0
        elif wait_us:
            self._opened_us, self._gone = None, 0
            self._turn_away(now + wait_us, is_known=wait_us > SECOND)
            later_us = max(_LOOK_US, wait_us - SECOND)  # a probe's answer opens it
        else:
            later_us = self._let_in(now)
        self._timer = None
        if self._line:
            self._timer = self._loop.call_later(later_us / 1e6, self._look)

    def _let_in(self, now: int) -> int:
        """Let the next ones go; return when to look again."""
        if self._opened_us is None:
            self._opened_us = now
        is_proved = any(one.is_proved and not one.wait_us(now) for one in self._doors)
        doubled = min((now - self._opened_us) // _DOUBLES_US, _MOST_DOUBLED)
        room = _SLICE if is_proved else min(_SLICE, (_FIRST << doubled) - self._gone)
        self._gone += self._wake_next(room, now, is_its_turn=True)
        return 0 if is_proved else _LOOK_US

    def _wake_next(self, most: int, now: int, *, is_its_turn: bool) -> int:
        """Wake the next ones in line; return how many."""
        many = min(most, len(self._line))
        for _ in range(many):
            waiter = self._line.first(now)
            assert waiter is not None
            self._wake(waiter, is_its_turn=is_its_turn, served=True)
        return many

    def _turn_away(self, until_us: int, *, is_known: bool) -> None:
        """Wake those who cannot wait until then, where that is more than a guess."""
        if is_known and until_us > self._closed_until_us:
            self._closed_until_us = until_us
            for waiter in tuple(self._places):
                if waiter.deadline_us is not None and waiter.deadline_us < until_us:
                    self._wake(waiter, is_its_turn=False, served=False)

    def _wake(self, waiter: Waiter, *, is_its_turn: bool, served: bool) -> None:
        future = self._places.pop(waiter)
        self._line.remove(waiter, served=served)
        if not future.done():  # its call was cancelled
            future.set_result(is_its_turn)
