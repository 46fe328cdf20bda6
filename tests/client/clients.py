"""One way to drive Client and AsyncClient alike, on real sockets or in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import ssl
import tempfile
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
)
from pathlib import Path
from typing import Any, Protocol, Self

import httpx2

from ratekeeper import AsyncClient, Client, MemoryStore
from ratekeeper.testing import ManualClock, VirtualLoop

KEY = "sk-0123456789abcdefghijKLMNOPQRSTUV5678abcd"
MESSAGES = [{"role": "user", "content": "Hello"}]
CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES, "max_tokens": 9}
LIMITS = ("1M rpm",)


class Ai(Protocol):
    """A client of either kind, called from a test that does not care which."""

    client: Any
    is_async: bool
    store: Any

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def do(self, act: Callable[[Any], Any]) -> Any: ...
    def chat(self, **body: Any) -> Any: ...
    def chunks(self, most: int | None = None, **body: Any) -> list[dict[str, Any]]: ...
    def batch(self, requests: Any, **options: Any) -> list[Any]: ...
    def stream_batch(self, requests: Any, most: int, **options: Any) -> list[Any]: ...
    def used(self) -> list[Any]: ...


class SyncAi:
    is_async = False

    def __init__(self, provider: str, **options: Any) -> None:
        self.store = options.get("store")
        self.client = Client(provider, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def do(self, act: Callable[[Any], Any]) -> Any:
        return act(self.client)

    def chat(self, **body: Any) -> Any:
        return self.client.chat_completion(**{**CHAT, **body})

    def chunks(self, most: int | None = None, **body: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with self.client.chat_completion(**{**CHAT, "stream": True, **body}) as stream:
            for chunk in stream:
                found.append(chunk)
                if len(found) == most:
                    break
        return found

    def batch(self, requests: Any, **options: Any) -> list[Any]:
        return self.client.batch_chat(requests, **options)

    def stream_batch(self, requests: Any, most: int, **options: Any) -> list[Any]:
        results = self.client.iter_batch_chat(requests, **options)
        return list(itertools.islice(results, most))

    def used(self) -> list[Any]:
        return [row.used for row in self.client.limiter.status().values()]


class AsyncAi:
    is_async = True

    def __init__(
        self,
        provider: str,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        **options: Any,
    ) -> None:
        self.store = options.get("store")
        self.client = AsyncClient(provider, **options)
        self._runner = asyncio.Runner(
            loop_factory=None if loop is None else lambda: loop
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self.client.close())
        self._runner.close()

    def do(self, act: Callable[[Any], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            return await act(self.client)

        return self._runner.run(run())

    def chat(self, **body: Any) -> Any:
        return self.do(lambda ai: ai.chat_completion(**{**CHAT, **body}))

    def chunks(self, most: int | None = None, **body: Any) -> list[dict[str, Any]]:
        async def read(ai: AsyncClient) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            options: Any = {**CHAT, **body, "stream": True}
            async with await ai.chat_completion(**options) as stream:
                async for chunk in stream:
                    found.append(chunk)
                    if len(found) == most:
                        break
            return found

        return self.do(read)  # type: ignore[no-any-return]

    def batch(self, requests: Any, **options: Any) -> list[Any]:
        return self.do(lambda ai: ai.batch_chat(requests, **options))  # type: ignore[no-any-return]

    def stream_batch(self, requests: Any, most: int, **options: Any) -> list[Any]:
        async def read(ai: AsyncClient) -> list[Any]:
            found: list[Any] = []
            results: Any = ai.iter_batch_chat(requests, **options)
            async with contextlib.aclosing(results):
                async for result in results:
                    found.append(result)
                    if len(found) == most:
                        break
            return found

        return self.do(read)  # type: ignore[no-any-return]

    def used(self) -> list[Any]:
        async def read(ai: AsyncClient) -> list[Any]:
            return [row.used for row in (await ai.limiter.status()).values()]

        return self.do(read)  # type: ignore[no-any-return]


Opened = Callable[..., Ai]


def opener(kind: str) -> Opened:
    """Return what opens clients of a kind: `make(url_or_name, **options)`."""

    def make(provider: str, **options: Any) -> Ai:
        options = {"api_key": KEY, "limits": LIMITS, "backoff": 0.001, **options}
        return (
            SyncAi(provider, **options)
            if kind == "sync"
            else AsyncAi(provider, **options)
        )

    return make


class Told:
    """A provider in memory: gives its answers in turn, the last for ever.

    It notes each request and when it came. An exception among the answers is raised.
    """

    def __init__(self, *answers: Any) -> None:
        self._answers = answers
        self.requests: list[httpx2.Request] = []
        self.at_s: list[float] = []
        self.clock: Any = None

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        self.at_s.append(self.clock.now_us() / 1e6)
        answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        status, headers, body = answer
        return httpx2.Response(status, headers=headers, json=body)

    @property
    def waits_s(self) -> list[float]:
        """How long it was between one request and the next."""
        pairs = itertools.pairwise(self.at_s)
        return [round(after - before, 6) for before, after in pairs]


def virtual(kind: str, told: Told, provider: str = "openai", **options: Any) -> Ai:
    """Open a client to a provider in memory, in time that costs nothing."""
    transport = httpx2.MockTransport(told)
    options = {"api_key": KEY, "limits": LIMITS, "draw": random.Random(1), **options}
    if kind == "sync":
        told.clock = ManualClock(auto=True)
        store = MemoryStore(clock=told.clock)
        return SyncAi(provider, store=store, transport=transport, **options)
    loop = VirtualLoop()
    told.clock = loop.clock
    store = MemoryStore(clock=loop.clock)
    try:
        return AsyncAi(provider, loop=loop, store=store, transport=transport, **options)
    except BaseException:
        loop.close()
        raise


OK: tuple[int, dict[str, str], Any] = (
    200,
    {},
    {"id": "1", "choices": [{"index": 0, "message": {"content": "Hi"}}]},
)


def error(
    status: int, code: str = "", message: str = "No.", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Write an error answer in OpenAI's shape; `retry_after` names `retry-after`."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, fields, {"error": {"message": message, "type": code, "code": code}}


def anew(items: list[Any]) -> AsyncIterable[Any]:
    """Return the items as an async iterable."""

    async def give() -> AsyncIterator[Any]:
        for item in items:
            yield item

    return give()


def closed_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """Give a port where connections are neither taken nor refused: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield int(address[1])


# A certificate that nobody signed but itself, for 127.0.0.1, until 2126.
_CERTIFICATE = """
MIIBnDCCAUGgAwIBAgIUW1IBBls2fQ1nvztGUvd1SqidSSswCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyNDIzMzMyOFoYDzIxMjYxMDMx
MjMzMzI4WjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASMsxzZ95vEe5MoYI1GOn/QPU8M6JSki56UUfSmeH6x8M/gjaPSAOyR
ESHPupTh8Qz7PIEaPU31D4fcMaxapCoco28wbTAdBgNVHQ4EFgQU8TfHyU8i0d7o
qsVHENLIgH5uFH8wHwYDVR0jBBgwFoAU8TfHyU8i0d7oqsVHENLIgH5uFH8wDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARhwR/AAABgglsb2NhbGhvc3QwCgYIKoZI
zj0EAwIDSQAwRgIhALG/MBFpkgo8JIWZIAlaCVFqVUkedz5sOND2tiAqkUn6AiEA
2AwcXtKt5c/SvnnxuIBVuMxGSvQhJQAfnPmoGArFBVI=
"""
_PRIVATE = """
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgnL2TzOT9vyGStIko
bBQ34PwVqwgZjKXhNKxfmF/0yRKhRANCAASMsxzZ95vEe5MoYI1GOn/QPU8M6JSk
i56UUfSmeH6x8M/gjaPSAOyRESHPupTh8Qz7PIEaPU31D4fcMaxapCoc
"""


def server_context() -> ssl.SSLContext:
    """Return the TLS side of a server whose certificate nobody trusts."""
    pem = ""
    for name, body in (("PRIVATE KEY", _PRIVATE), ("CERTIFICATE", _CERTIFICATE)):
        pem += f"-----BEGIN {name}-----{body}-----END {name}-----\n"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "server.pem")
        path.write_text(pem)
        context.load_cert_chain(path)
    return context


def client_context() -> ssl.SSLContext:
    """Return the TLS side of a client that trusts that certificate."""
    pem = f"-----BEGIN CERTIFICATE-----{_CERTIFICATE}-----END CERTIFICATE-----\n"
    return ssl.create_default_context(cadata=pem)
