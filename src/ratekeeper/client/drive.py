"""The two drivers of a call's plan, one for threads and one for asyncio.

They perform what the plan asks for and decide nothing. Bodies are read in pieces, so
that neither a slow drip nor a huge answer passes the deadline or the bound.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx2

from ratekeeper.client.call import Held, Open, Read, Send, Sleep, TooLarge
from ratekeeper.client.stream import AsyncStream, Stream
from ratekeeper.client.terms import TURN
from ratekeeper.runtime import aio, sync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from ratekeeper.client.call import Effect
    from ratekeeper.client.terms import Turn
    from ratekeeper.runtime.desk import Desk

_DIGITS = 20  # of a length that are read
_GRACE_S = 0.05  # so that a time-out of HTTP itself, which knows more, comes first


class Threshold(httpx2.BaseTransport):
    """What a call passes when its turn has come: its time is counted again."""

    def __init__(self, inner: httpx2.BaseTransport, proxy: str = "") -> None:
        self._inner = inner
        self._proxy = proxy

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Let the call go with what is left of its time."""
        _leave(request, self._proxy)
        try:
            return self._inner.handle_request(request)
        except UnicodeError as error:  # a name that cannot even be asked for
            msg = "the host's name is malformed"
            raise httpx2.ConnectError(msg) from error

    def close(self) -> None:
        """Close the transport behind."""
        self._inner.close()


class AsyncThreshold(httpx2.AsyncBaseTransport):
    """What a call passes when its turn has come: its time is counted again."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, proxy: str = "") -> None:
        self._inner = inner
        self._proxy = proxy

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Let the call go with what is left of its time."""
        _leave(request, self._proxy)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the transport behind."""
        await self._inner.aclose()


def _leave(request: httpx2.Request, proxy: str) -> None:
    try:
        request.extensions[TURN].go(proxy)
    except Exception as why:
        raise Held(why) from why


@contextlib.asynccontextmanager
async def _deadline(turn: Turn) -> AsyncIterator[None]:
    """End what takes longer than the call may, as a read that timed out."""
    left_us = turn.left_us()
    limit_s = None if left_us is None else left_us / 1e6 + _GRACE_S
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as error:
        msg = "the deadline of the call has passed"
        raise httpx2.ReadTimeout(msg) from error


def _check(turn: Turn, size: int, most: int) -> None:
    """Stop reading a body that is out of time or out of bounds."""
    if size > most:
        raise TooLarge
    if turn.is_over():
        msg = "the deadline of the call has passed"
        raise httpx2.ReadTimeout(msg)


def _declared(answer: httpx2.Response) -> int:
    """Return how many bytes an answer says that it has, 0 where it does not."""
    said = answer.headers.get("content-length", "")
    return int(said[:_DIGITS]) if said.isascii() and said.isdigit() else 0


def run(plan: Generator[Effect, Any, Any], http: httpx2.Client, desk: Desk) -> Any:
    """Run a plan to its result on the calling thread."""
    return sync.drive(plan, lambda effect: _perform(effect, http, desk))


def _perform(effect: Effect, http: httpx2.Client, desk: Desk) -> Any:
    match effect:
        case Send(request):
            return http.send(request, stream=True)
        case Read(answer, turn, most):
            return _read(answer, turn, most)
        case Open(answer, turn, chunks):
            turn.reset()
            return Stream(answer, chunks).begun(turn)
        case Sleep(wait_us):
            return sync.sleep(desk, wait_us)


def _read(answer: httpx2.Response, turn: Turn, most: int) -> bytes:
    turn.reset()
    pieces, size = [], 0
    try:
        _check(turn, _declared(answer), most)
        for piece in answer.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            _check(turn, size, most)
    finally:
        answer.close()
    return b"".join(pieces)


async def run_async(plan: Generator[Effect, Any, Any], http: httpx2.AsyncClient) -> Any:
    """Run a plan to its result in the running task."""
    return await aio.drive(plan, lambda effect: _perform_async(effect, http))


async def _perform_async(effect: Effect, http: httpx2.AsyncClient) -> Any:
    match effect:
        case Send(request):
            async with _deadline(request.extensions[TURN]):
                return await http.send(request, stream=True)
        case Read(answer, turn, most):
            async with _deadline(turn):
                return await _read_async(answer, turn, most)
        case Open(answer, turn, chunks):
            turn.reset()
            async with _deadline(turn):
                return await AsyncStream(answer, chunks).begun()
        case Sleep(wait_us):
            return await asyncio.sleep(wait_us / 1e6)


async def _read_async(answer: httpx2.Response, turn: Turn, most: int) -> bytes:
    turn.reset()
    pieces, size = [], 0
    try:
        _check(turn, _declared(answer), most)
        async for piece in answer.aiter_bytes():
            pieces.append(piece)
            size += len(piece)
            _check(turn, size, most)
    finally:
        await answer.aclose()
    return b"".join(pieces)
