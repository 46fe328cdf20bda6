"""Client and AsyncClient: calls to any OpenAI-compatible endpoint, at full quota.

Each call becomes a plan that a driver runs; the two classes differ in nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, overload

import httpx2

from ratekeeper.client import bulk, call, check, drive, http
from ratekeeper.client.front import UNSET, Front, Unset, host_of
from ratekeeper.client.transport import AsyncLimitedTransport, LimitedTransport
from ratekeeper.errors import ConfigError
from ratekeeper.limiter import AsyncLimiter, Limiter

if TYPE_CHECKING:
    import ssl
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from types import TracebackType

    from ratekeeper.client.check import KeyCheck
    from ratekeeper.client.stream import AsyncStream, Stream
    from ratekeeper.client.terms import Gate

_AHEAD = 4  # results of `iter_batch_chat` that may be ready early, for each place
_CLOSED = "this client is closed: make another, or close it later"


class Client(Front):
    """Calls an AI API within its limits, and again where that helps.

    `provider` is a name or a base URL (a name's own may be changed by `base_url`, or
    a variable such as OPENAI_BASE_URL); its limits are `limits`, or those of a `tier`
    (for a `model`), or else learned from the headers of its answers.
    The key is `api_key`, or in the provider's environment variable.

    `timeout` bounds a whole call in seconds: line, HTTP and retries (a thread notices
    between two reads). The time that answers have taken of late is kept for the answer:
    a call that would have none left for it is refused at once. Of a stream it bounds
    what comes before the first chunk, and `read_timeout` each gap after it. `attempts`
    counts the first one; waits between them are random up to `backoff`, doubled each
    time, and never shorter than the provider's hint. A POST whose answer was lost may
    have been paid for and is not sent again unless `resend_lost`. Of an answer at most
    `max_answer` bytes are read (64 MiB unless said), and a larger one is
    `AnswerTooLarge`; a stream has no such bound. The proxy is the environment's unless
    given. Clients of one `name` and `store` share their limits.
    With a limit such as `$50/day`, `prices` say what models cost: see `http_client`.

    Example:
        >>> with Client("holysheep", limits=["1000 rpm", "200k tpm"]) as ai:
        ...     reply = ai.chat_completion(model="gpt-4o", messages=[...])
    """

    _http: httpx2.Client
    _limiter: Limiter

    @property
    def limiter(self) -> Limiter:
        """The limits of the account: their status, and a way to change them live."""
        return self._limiter

    def _connect(
        self,
        transport: Any,
        proxy: str | None,
        verify: ssl.SSLContext | bool,  # noqa: FBT001 - private
    ) -> None:
        self._limiter = limiter = self._new_limiter(Limiter)
        if transport is not None and not isinstance(transport, httpx2.BaseTransport):
            msg = (
                f"transport= is an httpx2.BaseTransport, not {type(transport).__name__}"
            )
            raise ConfigError(msg)

        def limited(**options: Any) -> LimitedTransport:
            inner = transport or httpx2.HTTPTransport(**http.connections(), **options)
            way = drive.Threshold(inner, host_of(options.get("proxy")))
            return LimitedTransport(
                limiter,
                self._provider,
                wrap=way,
                raise_refusals=True,
                prices=self._prices,
            )

        main, mounts = http.routes(
            limited, proxy=proxy, verify=verify, own=transport is not None
        )
        self._http = httpx2.Client(
            transport=main, mounts=mounts, cookies=http.no_cookies()
        )

    @overload
    def chat_completion(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        stream: Literal[True],
        timeout: float | None = ...,
        **params: Any,
    ) -> Stream: ...
    @overload
    def chat_completion(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        stream: Literal[False] = ...,
        timeout: float | None = ...,
        **params: Any,
    ) -> dict[str, Any]: ...
    @overload
    def chat_completion(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        stream: bool,
        timeout: float | None = ...,
        **params: Any,
    ) -> dict[str, Any] | Stream: ...
    def chat_completion(
        self, *, timeout: float | Unset | None = UNSET, **body: Any
    ) -> Any:
        """Ask for a chat completion; returns the answer as a plain dictionary.

        Every argument but `timeout` is a field of the body and is sent as it is. With
        `stream=True` it returns an iterator of chunks, once the first one is there.
        """
        return self._run(call.plan(self._chat(body, timeout=timeout), self._terms))

    def batch_chat(
        self, requests: Iterable[Mapping[str, Any]], *, concurrency: int = 5
    ) -> list[dict[str, Any] | Exception]:
        """Send many chat requests, at most `concurrency` at once, from threads.

        The results are in order; a failure is the exception, in its place. A refusal
        that would meet all of them (401, 403, no credit) stops those not yet sent.
        """
        bulk.check(requests, concurrency)
        return list(bulk.in_threads(self._send, requests, concurrency, None))

    def iter_batch_chat(
        self, requests: Iterable[Mapping[str, Any]], *, concurrency: int = 5
    ) -> Iterator[dict[str, Any] | Exception]:
        """Do what `batch_chat` does for input without end: results come as they are due.

        Requests are read a little ahead of the results, so neither piles up.
        """
        bulk.check(requests, concurrency)
        ahead = _AHEAD * concurrency
        return bulk.in_threads(self._send, requests, concurrency, ahead)

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = UNSET,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout: float | Unset | None = UNSET,
    ) -> Any:
        """Call any endpoint below the base URL; returns the parsed answer.

        An empty answer is None. With `stream` it returns an iterator of the events'
        data, for a body that asks for a stream.
        """
        asked = self._call(
            method,
            path,
            json,
            params=params,
            headers=headers,
            stream=stream,
            timeout=timeout,
        )
        return self._run(call.plan(asked, self._terms))

    def validate_key(
        self, key: str | None = None, *, model: str | None = None
    ) -> KeyCheck:
        """Ask the provider whether a key (else the client's own) is alive.

        The question costs nothing; with a `model` it is one call of one token, whose
        answer often shows the limits that the free one does not.
        """
        question = self._key_check(key, model)
        if isinstance(question, check.KeyCheck):
            return question
        found: KeyCheck = self._run(check.plan(*question))
        return found

    def _send(self, body: object, gate: Gate) -> Any:
        return self._run(call.plan(self._one_of_many(body, gate), self._terms))

    def _run(self, plan: Any) -> Any:
        if self._http.is_closed:
            raise ConfigError(_CLOSED)
        return drive.run(plan, self._http, self._store)

    def close(self) -> None:
        """Close the connections; a closed client sends nothing."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(Front):
    """The same for tasks; see `Client`.

    Example:
        >>> async with AsyncClient("holysheep", limits=["1000 rpm"]) as ai:
        ...     reply = await ai.chat_completion(model="gpt-4o", messages=[...])
    """

    _http: httpx2.AsyncClient
    _limiter: AsyncLimiter

    @property
    def limiter(self) -> AsyncLimiter:
        """The limits of the account: their status, and a way to change them live."""
        return self._limiter

    def _connect(
        self,
        transport: Any,
        proxy: str | None,
        verify: ssl.SSLContext | bool,  # noqa: FBT001 - private
    ) -> None:
        self._limiter = limiter = self._new_limiter(AsyncLimiter)
        if transport is not None and not isinstance(
            transport, httpx2.AsyncBaseTransport
        ):
            kind = type(transport).__name__
            msg = f"transport= is an httpx2.AsyncBaseTransport, not {kind}"
            raise ConfigError(msg)

        def limited(**options: Any) -> AsyncLimitedTransport:
            inner = transport or httpx2.AsyncHTTPTransport(
                **http.connections(), **options
            )
            way = drive.AsyncThreshold(inner, host_of(options.get("proxy")))
            return AsyncLimitedTransport(
                limiter,
                self._provider,
                wrap=way,
                raise_refusals=True,
                prices=self._prices,
            )

        main, mounts = http.routes(
            limited, proxy=proxy, verify=verify, own=transport is not None
        )
        self._http = httpx2.AsyncClient(
            transport=main, mounts=mounts, cookies=http.no_cookies()
        )

    @overload
    async def chat_completion(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        stream: Literal[True],
        timeout: float | None = ...,  # noqa: ASYNC109 - covers the line as well
        **params: Any,
    ) -> AsyncStream: ...
    @overload
    async def chat_completion(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        stream: Literal[False] = ...,
        timeout: float | None = ...,  # noqa: ASYNC109 - covers the line as well
        **params: Any,
    ) -> dict[str, Any]: ...
    @overload
    async def chat_completion(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        stream: bool,
        timeout: float | None = ...,  # noqa: ASYNC109 - covers the line as well
        **params: Any,
    ) -> dict[str, Any] | AsyncStream: ...
    async def chat_completion(
        self,
        *,
        timeout: float | Unset | None = UNSET,  # noqa: ASYNC109 - and the line
        **body: Any,
    ) -> Any:
        """Ask for a chat completion; see `Client.chat_completion`.

        With `stream=True` it returns an async iterator of chunks.
        """
        return await self._run(
            call.plan(self._chat(body, timeout=timeout), self._terms)
        )

    async def batch_chat(
        self,
        requests: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        *,
        concurrency: int = 5,
    ) -> list[dict[str, Any] | Exception]:
        """Send many chat requests, at most `concurrency` at once; results in order.

        See `Client.batch_chat`; the requests may come from an async iterable.
        """
        bulk.check(requests, concurrency, also_async=True)
        found = bulk.in_tasks(self._send, requests, concurrency, None)
        return [result async for result in found]

    def iter_batch_chat(
        self,
        requests: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        *,
        concurrency: int = 5,
    ) -> AsyncIterator[dict[str, Any] | Exception]:
        """Do what `batch_chat` does for input without end; see `Client`."""
        bulk.check(requests, concurrency, also_async=True)
        ahead = _AHEAD * concurrency
        return bulk.in_tasks(self._send, requests, concurrency, ahead)

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = UNSET,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout: float | Unset | None = UNSET,  # noqa: ASYNC109 - and the line
    ) -> Any:
        """Call any endpoint below the base URL; see `Client.request`."""
        asked = self._call(
            method,
            path,
            json,
            params=params,
            headers=headers,
            stream=stream,
            timeout=timeout,
        )
        return await self._run(call.plan(asked, self._terms))

    async def validate_key(
        self, key: str | None = None, *, model: str | None = None
    ) -> KeyCheck:
        """Ask the provider whether a key is alive; see `Client.validate_key`."""
        question = self._key_check(key, model)
        if isinstance(question, check.KeyCheck):
            return question
        found: KeyCheck = await self._run(check.plan(*question))
        return found

    async def _send(self, body: object, gate: Gate) -> Any:
        return await self._run(call.plan(self._one_of_many(body, gate), self._terms))

    async def _run(self, plan: Any) -> Any:
        if self._http.is_closed:
            raise ConfigError(_CLOSED)
        return await drive.run_async(plan, self._http)

    async def close(self) -> None:
        """Close the connections; a closed client sends nothing."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
