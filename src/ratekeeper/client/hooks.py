"""A middleware for the Anthropic SDK: limits without an HTTP client of our own.

`Anthropic(middleware=[anthropic_middleware(limiter)])`. The SDK runs it inside its
retry loop, so each attempt is one grant; put it last, so that what other middleware
sends is limited as well. A refusal is raised as the SDK's own `RateLimitError`, which
says of itself that it is not to be tried again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, overload

import httpx2

from ratekeeper.client import flow
from ratekeeper.client.attempt import Counter
from ratekeeper.client.door import (
    REFUSALS,
    Refusal,
    never_left,
    refusal_response,
    unsent_errors,
)
from ratekeeper.client.transport import AsyncMeteredByteStream, MeteredByteStream
from ratekeeper.errors import ProviderOverloaded
from ratekeeper.limiter import AsyncLimiter, Limiter
from ratekeeper.providers.catalog import find_provider

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anthropic

    from ratekeeper.client.attempt import Ask
    from ratekeeper.client.prices import Prices

_UNSENT = unsent_errors(httpx2)
_TIMEOUT_S = 600.0  # the SDK's own


@overload
def anthropic_middleware(
    limiter: Limiter,
    *,
    provider: str = ...,
    timeout: float | None = ...,
    prices: Prices | None = ...,
    **options: Any,
) -> anthropic.MiddlewareCallable: ...
@overload
def anthropic_middleware(
    limiter: AsyncLimiter,
    *,
    provider: str = ...,
    timeout: float | None = ...,
    prices: Prices | None = ...,
    **options: Any,
) -> anthropic.AsyncMiddlewareCallable: ...
def anthropic_middleware(
    limiter: Limiter | AsyncLimiter,
    *,
    provider: str = "anthropic",
    timeout: float | None = _TIMEOUT_S,
    prices: Prices | None = None,
    **options: Any,
) -> anthropic.MiddlewareCallable | anthropic.AsyncMiddlewareCallable:
    """Build a middleware that limits each attempt of an Anthropic client.

    A `Limiter` serves `Anthropic`, an `AsyncLimiter` serves `AsyncAnthropic`. A call
    waits in line for at most `timeout` seconds, and no longer than its own time-out; a
    client's time-out is not seen here. `options` are `key`, `priority` and `hold` of
    `acquire`; `prices` say what calls cost where a limit counts money.

    Example:
        >>> limiter = Limiter("50 rpm", "30k itpm", account="anthropic")
        >>> client = Anthropic(middleware=[anthropic_middleware(limiter)])
    """
    counter = Counter(limiter, find_provider(provider), prices)
    if isinstance(limiter, Limiter):
        return _Hook(counter, limiter, timeout, options).handle
    return _AsyncHook(counter, limiter, timeout, options).handle


class _Hook:
    def __init__(
        self,
        counter: Counter,
        limiter: Limiter,
        timeout: float | None,
        options: Mapping[str, Any],
    ) -> None:
        self._counter = counter
        self._limiter = limiter
        self._timeout = timeout
        self._options = options

    def handle(
        self, request: anthropic.APIRequest, call_next: anthropic.CallNext
    ) -> anthropic.APIResponse[Any]:
        """Send one attempt under a grant."""
        answers: list[anthropic.APIResponse[Any]] = []

        def send() -> httpx2.Response | None:
            answers.append(call_next(request))
            return getattr(answers[0], "http_response", None)

        try:
            ask = _ask(self._counter, request, self._timeout, self._options)
            plan = flow.attempt(self._counter, ask, MeteredByteStream, _was_sent)
            flow.run(plan, self._limiter, send)
        except REFUSALS as error:
            raise _refused(self._counter, request, error) from error
        return answers[0]


class _AsyncHook:
    def __init__(
        self,
        counter: Counter,
        limiter: AsyncLimiter,
        timeout: float | None,
        options: Mapping[str, Any],
    ) -> None:
        self._counter = counter
        self._limiter = limiter
        self._timeout = timeout
        self._options = options

    async def handle(
        self, request: anthropic.APIRequest, call_next: anthropic.AsyncCallNext
    ) -> anthropic.AsyncAPIResponse[Any]:
        """Send one attempt under a grant."""
        answers: list[anthropic.AsyncAPIResponse[Any]] = []

        async def send() -> httpx2.Response | None:
            answers.append(await call_next(request))
            return getattr(answers[0], "http_response", None)

        try:
            ask = _ask(self._counter, request, self._timeout, self._options)
            plan = flow.attempt(self._counter, ask, AsyncMeteredByteStream, _was_sent)
            await flow.run_async(plan, self._limiter, send)
        except REFUSALS as error:
            raise _refused(self._counter, request, error) from error
        return answers[0]


def _ask(
    counter: Counter,
    request: anthropic.APIRequest,
    timeout: float | None,
    options: Mapping[str, Any],
) -> Ask:
    own: object = request.timeout
    if isinstance(own, httpx2.Timeout):
        own = own.read
    if isinstance(own, int | float):
        timeout = own if timeout is None else min(own, timeout)
    body = b""
    if request.json is not None:
        body = json.dumps(request.json, default=str).encode()
    return counter.ask(
        request.method,
        request.url,
        body,
        timeout=timeout,
        again=request.retries_taken > 0,
        options=options,
    )


def _was_sent(error: BaseException) -> bool:
    return not never_left(error, _UNSENT)


def _refused(
    counter: Counter,
    request: anthropic.APIRequest,
    error: Refusal,
) -> anthropic.APIStatusError:
    import anthropic

    sent = httpx2.Request(request.method, request.url)
    response = refusal_response(httpx2, counter.provider, sent, error)
    kind = (
        anthropic.InternalServerError
        if isinstance(error, ProviderOverloaded)
        else anthropic.RateLimitError
    )
    return kind(str(error), response=response, body=response.json())
