"""Inside: a provider in the same process, in virtual time, that can fail and recover.

Below any httpx2 client it stands in the place of the network: a request takes its time
to arrive, and the simulator answers it, which enforces by its own code and writes the
provider's own headers. It decides nothing about limits.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import httpx2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ratekeeper.simulator.server import Simulator
    from ratekeeper.testing import VirtualLoop

    Fault = Callable[[httpx2.Request], Awaitable[httpx2.Response]]
    Edit = Callable[[httpx2.Request, httpx2.Response], httpx2.Response]

KEY = "sk-0123456789abcdefghijKLMNOPQRSTUV5678abcd"


class Inside(httpx2.AsyncBaseTransport):
    """Carries requests to a simulator; `fault`, while it is set, answers instead.

    `edit` sees each answer on its way back, and may put another in its place. `log`
    holds, for each attempt, when it arrived (in seconds since the loop began) and the
    status of its answer, 0 where there was none.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        simulator: Simulator,
        *,
        flight_s: tuple[float, float] = (0.0, 0.0),
        edit: Edit | None = None,
    ) -> None:
        self._loop = loop
        self._asgi = httpx2.ASGITransport(simulator)
        self._flight_s = flight_s
        self._draw = random.Random(1)
        self._edit = edit
        self.fault: Fault | None = None
        self.log: list[tuple[float, int]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Let a request arrive, and bring its answer back."""
        await asyncio.sleep(self._draw.uniform(*self._flight_s))
        at = len(self.log)
        self.log.append((self._loop.time(), 0))
        if self.fault is not None:
            answer = await self.fault(request)
        else:
            answer = await self._asgi.handle_async_request(request)
        if self._edit is not None:
            answer = self._edit(request, answer)
        self.log[at] = (self.log[at][0], answer.status_code)
        return answer


async def overloaded(request: httpx2.Request) -> httpx2.Response:
    """Answer 503, as a provider that is down behind its own front does."""
    del request
    error = {"message": "The server is overloaded.", "type": "server_error"}
    return httpx2.Response(503, json={"error": error})


async def refused(request: httpx2.Request) -> httpx2.Response:
    """Refuse the connection."""
    msg = "connection refused"
    raise httpx2.ConnectError(msg, request=request) from ConnectionRefusedError(msg)


async def unconnected(request: httpx2.Request) -> httpx2.Response:
    """Let the time for connecting pass."""
    await asyncio.sleep(request.extensions["timeout"]["connect"])
    msg = "no connection in time"
    raise httpx2.ConnectTimeout(msg, request=request)


async def silent(request: httpx2.Request) -> httpx2.Response:
    """Take the request and never answer it."""
    await asyncio.sleep(request.extensions["timeout"]["read"])
    msg = "no answer in time"
    raise httpx2.ReadTimeout(msg, request=request)
