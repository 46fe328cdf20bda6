"""Many calls at once, their results in order: a bound on what is read and kept.

The order-keeping is one pure ledger; threads and tasks work on it. Requests are taken
one by one as places become free, so an iterable of a million costs no memory. The first
refusal that all others would share (a bad key, no permission, no credit) stops what has
not been sent: it becomes the result of all that is left.
"""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any

from ratekeeper.client import refusals
from ratekeeper.client.terms import Gate
from ratekeeper.errors import (
    AuthenticationError,
    BillingStopped,
    ConfigError,
    RatekeeperError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator


def check(requests: object, concurrency: int, *, also_async: bool = False) -> None:
    """Refuse what could never work before anything is sent."""
    if type(concurrency) is not int or concurrency < 1:
        msg = f"concurrency={concurrency!r}: expected a whole number, at least 1"
        raise ConfigError(msg)
    if isinstance(requests, str | bytes | dict) or not (
        isinstance(requests, Iterable)
        or (also_async and isinstance(requests, AsyncIterable))
    ):
        msg = f"expected an iterable of requests, not {type(requests).__name__}"
        raise ConfigError(msg)


def _stops_all(result: object) -> bool:
    """Say whether every other call would end the same way."""
    is_closed = isinstance(result, AuthenticationError | BillingStopped)
    return is_closed or refusals.is_forbidden(result)


class Ledger:
    """Which requests were taken, which are done, and which is the next to give.

    `ahead` bounds how many may be taken and not yet given; None keeps no bound.
    """

    def __init__(self, ahead: int | None) -> None:
        self._ahead = ahead
        self._taken = 0
        self._given = 0
        self._open: dict[int, Gate] = {}
        self._done: dict[int, Any] = {}
        self.halt: Exception | None = None
        self.is_exhausted = False  # no more requests will be taken

    @property
    def has_room(self) -> bool:
        """Whether another request may be taken now."""
        return self._ahead is None or self._taken - self._given < self._ahead

    @property
    def is_finished(self) -> bool:
        """Whether every result has been given."""
        return self.is_exhausted and self._given == self._taken

    @property
    def is_ready(self) -> bool:
        """Whether the next result in order is there."""
        return self._given in self._done

    def take(self) -> tuple[int, Gate]:
        """Count a request as taken; gives its place, and the gate it must pass."""
        place, gate = self._taken, Gate()
        self._taken += 1
        self._open[place] = gate
        if self.halt is not None:
            gate.close(self.halt)
        return place, gate

    def put(self, place: int, result: Any) -> None:
        """Keep the result of a request, unless it has one already."""
        if self._open.pop(place, None) is None:
            return
        self._done[place] = result
        if self.halt is None and _stops_all(result):
            self.stop(result)

    def stop(self, why: Exception) -> None:
        """Let nothing more be sent; what is not under way has its result now."""
        self.halt = why
        for place, gate in list(self._open.items()):
            if gate.close(why):
                self.put(place, why)

    def give(self) -> Any:
        """Return the next result in order."""
        result = self._done.pop(self._given)
        self._given += 1
        return result


def in_threads(
    send: Callable[[Any, Gate], Any],
    requests: Iterable[Any],
    concurrency: int,
    ahead: int | None,
) -> Iterator[Any]:
    """Send requests from so many threads; yield results or exceptions, in order."""
    crew = _Crew(send, requests, ahead)
    hands = max(1, min(concurrency, operator.length_hint(requests, concurrency)))
    for _ in range(hands):
        threading.Thread(target=crew.work, daemon=True).start()
    try:
        yield from crew.results()
    finally:
        crew.leave()


class _Crew:
    """Threads that share one iterator and one ledger."""

    def __init__(
        self,
        send: Callable[[Any, Gate], Any],
        requests: Iterable[Any],
        ahead: int | None,
    ) -> None:
        self._send = send
        self._requests = iter(requests)
        self._source = threading.Lock()  # of the caller's iterator, and nothing else
        self._changed = threading.Condition()
        self._ledger = Ledger(ahead)
        self._left = False
        self._broken: BaseException | None = None  # what the iterator raised

    def work(self) -> None:
        """Take, send and put down, until nothing is left."""
        while (job := self._take()) is not None:
            place, gate, request = job
            try:
                gate.back()
                result = self._send(request, gate)
            except Exception as error:  # noqa: BLE001 - it is the result
                result = error
            with self._changed:
                self._ledger.put(place, result)
                self._changed.notify_all()

    def _take(self) -> tuple[int, Gate, Any] | None:
        with self._source:
            with self._changed:
                self._changed.wait_for(lambda: self._ledger.has_room or self._left)
                if self._left or self._ledger.is_exhausted:
                    return None
            try:
                request = next(self._requests)
            except StopIteration:
                self._exhaust(None)
                return None
            except BaseException as error:  # noqa: BLE001 - raised to the caller
                self._exhaust(error)
                return None
            with self._changed:
                return *self._ledger.take(), request

    def _exhaust(self, broken: BaseException | None) -> None:
        with self._changed:
            self._ledger.is_exhausted = True
            self._broken = broken
            self._changed.notify_all()

    def results(self) -> Iterator[Any]:
        """Yield the results in order as they come."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._ledger.is_ready or self._ledger.is_finished
                )
                if not self._ledger.is_ready:
                    break
                result = self._ledger.give()
                self._changed.notify_all()
            yield result
        if self._broken is not None:
            raise self._broken

    def leave(self) -> None:
        """Take nothing more and send nothing again: nobody waits for results."""
        with self._changed:
            self._left = True
            self._ledger.stop(RatekeeperError("nobody waits for the answer"))
            self._changed.notify_all()


async def in_tasks(
    send: Callable[[Any, Gate], Awaitable[Any]],
    requests: Iterable[Any] | AsyncIterable[Any],
    concurrency: int,
    ahead: int | None,
) -> AsyncIterator[Any]:
    """Send requests from so many tasks; yield results or exceptions, in order."""
    team = _Team(send, requests, ahead)
    hands = max(1, min(concurrency, operator.length_hint(requests, concurrency)))
    tasks = [asyncio.create_task(team.work()) for _ in range(hands)]
    try:
        async for result in team.results():
            yield result
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Team:
    """Tasks that share one iterator and one ledger."""

    def __init__(
        self,
        send: Callable[[Any, Gate], Awaitable[Any]],
        requests: Iterable[Any] | AsyncIterable[Any],
        ahead: int | None,
    ) -> None:
        self._send = send
        self._requests = _one_by_one(requests)
        self._source = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._ledger = Ledger(ahead)
        self._broken: BaseException | None = None

    async def work(self) -> None:
        """Take, send and put down, until nothing is left."""
        while (job := await self._take()) is not None:
            place, gate, request = job
            try:
                gate.back()
                result = await self._send(request, gate)
            except Exception as error:  # noqa: BLE001 - it is the result
                result = error
                await asyncio.sleep(0)  # a million that are not sent hold up nobody
            async with self._changed:
                self._ledger.put(place, result)
                self._changed.notify_all()

    async def _take(self) -> tuple[int, Gate, Any] | None:
        async with self._source:
            async with self._changed:
                await self._changed.wait_for(lambda: self._ledger.has_room)
            if self._ledger.is_exhausted:
                return None
            try:
                request = await anext(self._requests)
            except StopAsyncIteration:
                await self._exhaust(None)
                return None
            except Exception as error:  # noqa: BLE001 - raised to the caller
                await self._exhaust(error)
                return None
            return *self._ledger.take(), request

    async def _exhaust(self, broken: BaseException | None) -> None:
        async with self._changed:
            self._ledger.is_exhausted = True
            self._broken = broken
            self._changed.notify_all()

    async def results(self) -> AsyncIterator[Any]:
        """Yield the results in order as they come."""
        while True:
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._ledger.is_ready or self._ledger.is_finished
                )
                if not self._ledger.is_ready:
                    break
                result = self._ledger.give()
                self._changed.notify_all()
            yield result
        if self._broken is not None:
            raise self._broken


async def _one_by_one(
    requests: Iterable[Any] | AsyncIterable[Any],
) -> AsyncIterator[Any]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
