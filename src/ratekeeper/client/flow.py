"""The way of one attempt through the limiter and an HTTP transport, written once.

A plan yields what it needs (a grant, an answer, the head of an error body) and two
drivers fetch it, for threads and for asyncio. Bodies pass through untouched and
unbuffered; only of an error's body is a bounded head read before it is handed on.
It works with the responses of httpx2, httpx and whatever looks like them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import deque
from typing import TYPE_CHECKING, Any

from ratekeeper.client.attempt import Attempt
from ratekeeper.errors import RatekeeperError
from ratekeeper.runtime import aio, sync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator

    from ratekeeper.client.attempt import Ask, Counter
    from ratekeeper.grant import Grant
    from ratekeeper.limiter import AsyncLimiter, Limiter

MOST_HEAD = 64 * 1024  # of an error body; the largest seen is below 8 KiB
_ERROR = 400


@dataclasses.dataclass(frozen=True, slots=True)
class Acquire:
    """Wait in line for a grant."""

    ask: Ask


@dataclasses.dataclass(frozen=True, slots=True)
class Send:
    """Send the request and wait for the headers of its answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Peek:
    """Read the head of an error body."""

    stream: Any


Effect = Acquire | Send | Peek


@dataclasses.dataclass(slots=True)
class Head:
    """The first parts of a body, the rest of it, and how reading it broke off."""

    parts: deque[bytes] = dataclasses.field(default_factory=deque)
    rest: Any = None
    error: Exception | None = None
    size: int = 0

    def add(self, part: bytes) -> bool:
        """Keep a part; False once the head is full."""
        self.parts.append(part)
        self.size += len(part)
        return self.size < MOST_HEAD

    def bytes(self) -> bytes:
        """Return what was read, within the bound."""
        return b"".join(self.parts)[:MOST_HEAD]


def attempt(
    counter: Counter,
    ask: Ask,
    body: Callable[[Any, Attempt, Head], Any],
    was_sent: Callable[[BaseException], bool],
) -> Generator[Effect, Any, Any]:
    """Send a request under one grant; gives back the response, its stream metered.

    `body` wraps a response's stream, `was_sent` says whether the provider may have
    heard of a request that failed. A refusal of the limiter is raised, and so is
    `ProviderOverloaded` for a retry that nothing has paid for.
    """
    tries = counter.tries
    if ask.retry:
        tries.pay()
    grant: Grant = yield Acquire(ask)
    trial = Attempt(counter, ask, grant)
    try:
        response = yield Send()
    except BaseException as error:
        tries.failed()
        if was_sent(error):
            trial.unanswered()
        else:
            trial.unsent()
        raise
    if response is None:  # somebody in between answered without the provider
        trial.unsent()
        return None
    status, headers = response.status_code, response.headers
    head = Head()
    if status < _ERROR:
        tries.answered()
        response.extensions["ratekeeper"] = None
        trial.answered(headers, plain=response.is_closed)
        if response.is_closed:  # read already, as those of mocks and caches are
            trial.feed(response.content)
            trial.end()
            return response
    else:
        try:
            if not response.is_closed:
                head = yield Peek(response.stream)
        finally:
            seen = response.content if response.is_closed else head.bytes()
            verdict = trial.judge(status, headers, seen, plain=response.is_closed)
            tries.failed(verdict.kind)
            response.extensions["ratekeeper"] = verdict
        if response.is_closed:
            return response
    response.stream = body(response.stream, trial, head)
    return response


class MeteredStream:
    """A response stream, metered as it passes; closing it settles the attempt."""

    def __init__(self, stream: Any, trial: Attempt, head: Head) -> None:
        self._stream = stream
        self._trial = trial
        self._head = head
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        head = self._head
        try:
            while head.parts:
                yield head.parts.popleft()
            if head.error is not None:
                raise head.error
            for part in self._stream if head.rest is None else head.rest:
                self._trial.feed(part)
                yield part
        finally:
            self.close()

    def close(self) -> None:
        """Close the stream below, whatever is left of it, and only then settle.

        Whoever takes the slot next finds the connection free.
        """
        if not self._closed:
            self._closed = True
            try:
                self._stream.close()
            finally:
                self._trial.end()


class AsyncMeteredStream:
    """The same for tasks."""

    def __init__(self, stream: Any, trial: Attempt, head: Head) -> None:
        self._stream = stream
        self._trial = trial
        self._head = head
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        head = self._head
        try:
            while head.parts:
                yield head.parts.popleft()
            if head.error is not None:
                raise head.error
            parts = aiter(self._stream if head.rest is None else head.rest)
            async with _closing(parts):
                async for part in parts:
                    self._trial.feed(part)
                    yield part
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the stream below, whatever is left of it, and only then settle."""
        if not self._closed:
            self._closed = True
            try:
                await self._stream.aclose()
            finally:
                self._trial.end()


def run(
    plan: Generator[Effect, Any, Any], limiter: Limiter, send: Callable[[], Any]
) -> Any:
    """Run a plan on the calling thread."""
    return sync.drive(plan, lambda effect: _perform(effect, limiter, send))


async def run_async(
    plan: Generator[Effect, Any, Any],
    limiter: AsyncLimiter,
    send: Callable[[], Awaitable[Any]],
) -> Any:
    """Run a plan in the running task."""
    return await aio.drive(plan, lambda effect: _perform_async(effect, limiter, send))


def _perform(effect: Effect, limiter: Limiter, send: Callable[[], Any]) -> Any:
    match effect:
        case Acquire(ask):
            return limiter.acquire(**ask.terms)
        case Send():
            return send()
        case Peek(stream):
            return _peek(stream)


async def _perform_async(
    effect: Effect, limiter: AsyncLimiter, send: Callable[[], Awaitable[Any]]
) -> Any:
    match effect:
        case Acquire(ask):
            try:
                return await limiter.acquire(**ask.terms)
            except RatekeeperError:
                # A caller that tries again at once must not starve the loop, and with
                # it those who wait in line.
                await asyncio.sleep(0)
                raise
        case Send():
            return await send()
        case Peek(stream):
            return await _peek_async(stream)


def _peek(stream: Any) -> Head:
    head = Head()
    head.rest = iter(stream)
    try:
        for part in head.rest:
            if not head.add(part):
                break
    except Exception as error:  # noqa: BLE001 - raised where the caller reads
        head.error = error
    except BaseException:
        stream.close()
        raise
    return head


async def _peek_async(stream: Any) -> Head:
    head = Head()
    head.rest = aiter(stream)
    try:
        async for part in head.rest:
            if not head.add(part):
                break
    except Exception as error:  # noqa: BLE001 - raised where the caller reads
        head.error = error
    except BaseException:
        await stream.aclose()
        raise
    return head


@contextlib.asynccontextmanager
async def _closing(parts: Any) -> AsyncIterator[None]:
    """Close an async generator that is left early, in its own task."""
    try:
        yield
    finally:
        if hasattr(parts, "aclose"):
            await parts.aclose()
