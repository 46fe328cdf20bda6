"""The transports for the legacy httpx: thin twins over the same door.

`OpenAI(http_client=httpx.Client(transport=LimitedTransport(limiter)))`; the options
`wrap` and `raise_refusals` are those of `ratekeeper.LimitedTransport`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import httpx
except ModuleNotFoundError as error:
    message = "the transports for the legacy httpx need it: pip install httpx"
    raise ModuleNotFoundError(message, name="httpx") from error

from ratekeeper.client.door import AsyncDoor, SyncDoor
from ratekeeper.client.flow import AsyncMeteredStream, MeteredStream

if TYPE_CHECKING:
    from ratekeeper.limiter import AsyncLimiter, Limiter


class MeteredByteStream(MeteredStream, httpx.SyncByteStream):
    """A metered stream that httpx takes for its own."""


class AsyncMeteredByteStream(AsyncMeteredStream, httpx.AsyncByteStream):
    """A metered stream that httpx takes for its own."""


class LimitedTransport(httpx.BaseTransport):
    """See `ratekeeper.LimitedTransport`."""

    def __init__(self, limiter: Limiter, provider: Any = "openai", **more: Any) -> None:
        self._door = SyncDoor(httpx, limiter, provider, body=MeteredByteStream, **more)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Wait in line, send, and meter the answer as it is read."""
        return self._door.handle(request)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close the transport below."""
        self._door.wrap.close()


class AsyncLimitedTransport(httpx.AsyncBaseTransport):
    """See `ratekeeper.AsyncLimitedTransport`."""

    def __init__(
        self, limiter: AsyncLimiter, provider: Any = "openai", **more: Any
    ) -> None:
        self._door = AsyncDoor(
            httpx, limiter, provider, body=AsyncMeteredByteStream, **more
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait in line, send, and meter the answer as it is read."""
        return await self._door.handle(request)  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._door.wrap.aclose()
