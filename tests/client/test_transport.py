"""The limited transport at the wire: every outcome, exactly once, byte for byte."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import socket
import threading
import time
import zlib
from typing import Any

import httpx2
import pytest

from ratekeeper.client.transport import AsyncLimitedTransport, LimitedTransport
from ratekeeper.errors import (
    ConfigError,
    LimitExceeded,
    NeverPossible,
)
from ratekeeper.limiter import AsyncLimiter, Limiter
from ratekeeper.providers.facts import Kind
from tests.client.kits import CHAT, KITS, AsyncKit, SyncKit, eventually, in_line
from tests.client.wire import (
    STREAM_HEAD,
    Script,
    Wire,
    chunked,
    completion,
    delta,
    events,
    http,
    usage,
)

JSON = "content-type: application/json"
NOTHING = {"requests": 0, "tokens": 0, "concurrent": 0}
THROTTLED = json.dumps(
    {
        "error": {
            "message": "Rate limit reached for m on tokens per min (TPM): Limit 100000. "
            "Please try again in 2s.",
            "type": "tokens",
            "code": "rate_limit_exceeded",
        }
    }
).encode()


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest) -> Any:
    return KITS[request.param]


@pytest.fixture(params=["httpx2-sync", "httpx2-async"])
def kit2(request: pytest.FixtureRequest) -> Any:
    return KITS[request.param]


def chat(wire: Wire) -> str:
    return f"{wire.url}/chat/completions"


async def asked(wire: Wire) -> None:
    """Wait, without blocking the loop, until a request has arrived."""
    await asyncio.to_thread(eventually, lambda: bool(wire.requests))


# Good answers.


def test_an_answer_settles_to_what_the_provider_counts(kit: Any) -> None:
    with Wire(http(200, completion(8, 5), JSON)) as wire, kit(provider="deepseek") as c:
        response = c.post(chat(wire))

        assert completion(8, 5) == response.content
        assert response.extensions["ratekeeper"] is None
        assert {"requests": 1, "tokens": 13, "concurrent": 0} == c.used()


def test_a_stream_settles_to_its_last_usage(kit: Any) -> None:
    said = events(delta("All is"), delta(" well."), usage(8, 5))
    script = Script(STREAM_HEAD, *chunked(*said))
    with Wire(script) as wire, kit(provider="deepseek") as c:
        parts = c.read(chat(wire), 1000)

        assert b"".join(said) == b"".join(parts)
        assert {"requests": 1, "tokens": 13, "concurrent": 0} == c.used()


def test_a_stream_is_not_buffered(kit: Any) -> None:
    first, *rest = chunked(*events(delta("one"), delta("two"), usage(8, 2)))
    script = Script(STREAM_HEAD, first, 4.0, *rest)
    with Wire(script) as wire, kit(provider="deepseek") as c:
        began = time.perf_counter()
        parts = c.read(chat(wire), 1)

        assert events(delta("one"), done=False) == parts
        assert time.perf_counter() - began < 2.0


def test_a_stream_left_early_closes_the_connection_and_counts_what_flowed(
    kit: Any,
) -> None:
    script = Script(
        STREAM_HEAD, *chunked(*events(delta("one "), done=False), end=False)
    )
    with Wire(Script(*script.parts, 4.0)) as wire, kit(provider="deepseek") as c:
        c.read(chat(wire), 1)
        used = c.used()

        assert 0 == used["concurrent"]
        assert 1 == used["requests"]
        assert 0 < used["tokens"] < 90
        eventually(wire.left.is_set)


def test_an_answer_that_tells_no_usage_keeps_the_reservation(kit: Any) -> None:
    with Wire(http(200, b"", JSON)) as wire, kit(provider="openai") as c:
        c.post(chat(wire))

        assert {"requests": 1, "tokens": 90, "concurrent": 0} == c.used()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw-deflate", "br", "zstd"])
def test_an_encoded_answer_is_metered_and_passed_on_as_it_came(
    kit2: Any, encoding: str
) -> None:
    name, packed = encoding, completion(8, 5)
    if encoding == "gzip":
        packed = gzip.compress(packed)
    elif encoding == "deflate":
        packed = zlib.compress(packed)
    elif encoding == "raw-deflate":
        name, packer = "deflate", zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = packer.compress(packed) + packer.flush()
    elif encoding == "br":
        packed = pytest.importorskip("brotli").compress(packed)
    else:
        packed = pytest.importorskip("backports.zstd").compress(packed)
    answer = http(200, packed, JSON, f"content-encoding: {name}")
    with Wire(answer) as wire, kit2(provider="deepseek") as c:
        raw = c.read(chat(wire), 1000)

        assert packed == b"".join(raw)
        assert 13 == c.used()["tokens"]


def test_an_unknown_encoding_counts_as_an_answer_without_usage(kit2: Any) -> None:
    answer = http(200, b"\x00\x01", JSON, "content-encoding: rot13")
    with Wire(answer) as wire, kit2(provider="deepseek") as c:
        assert [b"\x00\x01"] == c.read(chat(wire), 9)
        assert c.used()["tokens"] > 90


def test_a_damaged_encoding_breaks_the_metering_and_not_the_bytes(kit2: Any) -> None:
    packed = gzip.compress(completion(8, 5))[:20] + b"garbage" * 9
    answer = http(200, packed, JSON, "content-encoding: gzip")
    with Wire(answer) as wire, kit2(provider="deepseek") as c:
        assert packed == b"".join(c.read(chat(wire), 1000))
        assert 0 == c.used()["concurrent"]


# Other requests.


def test_a_path_that_takes_no_tokens_counts_as_a_request(kit: Any) -> None:
    with Wire(http(200, b'{"data": []}', JSON)) as wire, kit() as c:
        c.read(f"{wire.url}/models", 9, json=None)

        assert {"requests": 1, "tokens": 0, "concurrent": 0} == c.used()


def test_an_upload_is_passed_through_unread(kit2: Any) -> None:
    seen: list[bool] = []

    def upload() -> Any:
        seen.append(True)
        yield b"first"
        yield b"second"

    async def async_upload() -> Any:
        for part in upload():
            yield part

    with Wire(http(200, b"{}", JSON)) as wire, kit2() as c:
        content = upload() if isinstance(c, SyncKit) else async_upload()
        c.post(chat(wire), json=None, content=content)

        assert [True] == seen
        assert b"first" in wire.requests[0]
        assert {"requests": 1, "tokens": 0, "concurrent": 0} == c.used()


def test_a_multipart_upload_is_sent_whole(kit2: Any) -> None:
    with Wire(http(200, b"{}", JSON)) as wire, kit2() as c:
        c.post(f"{wire.url}/files", json=None, files={"file": ("a.txt", b"hello")})

        assert b"hello" in wire.requests[0]
        assert 1 == c.used()["requests"]


def test_each_hop_of_a_redirect_is_an_attempt_with_the_same_cost(kit2: Any) -> None:
    away = http(307, b"", "location: /v1/chat/completions")
    with (
        Wire(away, http(200, completion(), JSON)) as wire,
        kit2(provider="openai") as c,
    ):
        c.post(f"{wire.url}/old/chat/completions", follow_redirects=True)

        assert 2 == len(wire.requests)
        assert {"requests": 2, "tokens": 180, "concurrent": 0} == c.used()


def test_the_request_goes_out_as_it_was_given(kit2: Any) -> None:
    with Wire(http(200, completion(), JSON)) as wire, kit2() as c:
        extensions = {"ratekeeper": {"key": "team"}}
        c.post(chat(wire), headers={"x-one": "1"}, extensions=extensions)

        head, _, body = wire.requests[0].partition(b"\r\n\r\n")
        assert CHAT == json.loads(body)
        assert b"x-one: 1" in head
        assert b"ratekeeper" not in wire.requests[0]
        assert {"ratekeeper": {"key": "team"}} == extensions


# Errors the provider answers with.


def test_a_429_keeps_the_request_and_pauses_the_limit_it_names(kit: Any) -> None:
    answer = http(429, THROTTLED, JSON, "retry-after: 2")
    with Wire(answer) as wire, kit() as c:
        response = c.post(chat(wire))

        assert THROTTLED == response.content
        verdict = response.extensions["ratekeeper"]
        assert Kind.THROTTLED is verdict.kind
        assert 2_000_000 == verdict.retry_after_us
        assert {"requests": 1, "tokens": 0, "concurrent": 0} == c.used()
        with pytest.raises(LimitExceeded, match="tokens") as caught:
            c.acquire(tokens=1, timeout=0)
        assert 1.0 < caught.value.retry_after_s <= 2.0


def test_a_billing_stop_pauses_nobody(kit2: Any) -> None:
    body = b'{"error": {"code": "insufficient_quota", "message": "pay"}}'
    with Wire(http(429, body, JSON)) as wire, kit2() as c:
        response = c.post(chat(wire))

        assert Kind.BILLING is response.extensions["ratekeeper"].kind
        assert c.acquire(tokens=1, timeout=0).is_open


@pytest.mark.parametrize("status", [500, 502, 503, 529, 408])
def test_the_providers_own_trouble_keeps_what_was_reserved(
    kit2: Any, status: int
) -> None:
    with Wire(http(status, b"oops")) as wire, kit2() as c:
        response = c.post(chat(wire))

        assert b"oops" == response.content
        assert {"requests": 1, "tokens": 90, "concurrent": 0} == c.used()
        assert c.acquire(tokens=1, timeout=0).is_open


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_request_turned_away_used_no_tokens(kit2: Any, status: int) -> None:
    with Wire(http(status, b"{}", JSON)) as wire, kit2() as c:
        c.post(chat(wire))

        assert {"requests": 1, "tokens": 0, "concurrent": 0} == c.used()


def test_a_large_error_body_is_judged_by_its_head_and_handed_on_whole(kit: Any) -> None:
    body = THROTTLED[:-1] + b" " * 300_000 + b"}"
    with Wire(http(429, body, JSON)) as wire, kit() as c:
        response = c.post(chat(wire))

        assert body == response.content
        assert Kind.THROTTLED is response.extensions["ratekeeper"].kind
        assert 0 == c.used()["concurrent"]


def test_an_error_body_that_breaks_off_is_judged_and_breaks_off_for_the_caller(
    kit: Any,
) -> None:
    whole = http(429, THROTTLED, JSON, "retry-after: 2")
    script = Script(whole[:-10], end="close")
    with Wire(script) as wire, kit() as c:
        with pytest.raises(c.lib.RemoteProtocolError):
            c.post(chat(wire))

        assert {"requests": 1, "tokens": 0, "concurrent": 0} == c.used()
        with pytest.raises(LimitExceeded):
            c.acquire(tokens=1, timeout=0)


def test_a_throttle_inside_a_stream_pauses_like_a_429(kit2: Any) -> None:
    error = {"error": {"code": "rate_limit_exceeded", "message": "try again in 3s"}}
    script = Script(STREAM_HEAD, *chunked(*events(delta("one "), error)))
    with Wire(script) as wire, kit2(provider="deepseek") as c:
        c.read(chat(wire), 1000)

        used = c.used()
        assert 0 == used["concurrent"]
        assert 0 < used["tokens"] < 90
        with pytest.raises(LimitExceeded):
            c.acquire(tokens=1, timeout=0)


# Failures below HTTP.


def test_a_refused_connection_gives_everything_back(kit: Any) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    with kit() as c:
        with pytest.raises(c.lib.ConnectError):
            c.post(f"http://127.0.0.1:{port}/v1/chat/completions")

        assert NOTHING == c.used()


def test_a_host_that_does_not_exist_gives_everything_back(kit2: Any) -> None:
    with kit2() as c:
        with pytest.raises(c.lib.ConnectError):
            c.post("http://nowhere.invalid/v1/chat/completions")

        assert NOTHING == c.used()


def test_a_scheme_nobody_speaks_gives_everything_back(kit2: Any) -> None:
    with kit2() as c:
        with pytest.raises(c.lib.UnsupportedProtocol):
            c.post("gopher://127.0.0.1/v1/chat/completions")

        assert NOTHING == c.used()


def test_a_proxy_that_refuses_to_connect_gives_everything_back(kit2: Any) -> None:
    with Wire(http(403, b"no")) as proxy:
        pool = (
            httpx2.HTTPTransport(proxy=proxy.url)
            if kit2 is KITS["httpx2-sync"]
            else httpx2.AsyncHTTPTransport(proxy=proxy.url)
        )
        with kit2(wrap=pool) as c:
            with pytest.raises(httpx2.ProxyError):
                c.post("https://127.0.0.1:9/v1/chat/completions")

            assert NOTHING == c.used()


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_connection_lost_after_sending_counts_in_full(kit: Any, end: str) -> None:
    with Wire(Script(end=end)) as wire, kit() as c:
        with pytest.raises(c.lib.TransportError):
            c.post(chat(wire))

        assert {"requests": 1, "tokens": 90, "concurrent": 0} == c.used()


def test_an_answer_that_does_not_come_in_time_counts_in_full(kit: Any) -> None:
    with Wire(Script(4.0)) as wire, kit() as c:
        with pytest.raises(c.lib.ReadTimeout):
            c.post(chat(wire), timeout=0.1)

        assert {"requests": 1, "tokens": 90, "concurrent": 0} == c.used()


def test_garbage_instead_of_http_counts_in_full(kit: Any) -> None:
    with Wire(Script(b"\x16\x03garbage\r\n\r\n", end="close")) as wire, kit() as c:
        with pytest.raises(c.lib.RemoteProtocolError):
            c.post(chat(wire))

        assert {"requests": 1, "tokens": 90, "concurrent": 0} == c.used()


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_stream_that_breaks_counts_what_flowed(kit: Any, end: str) -> None:
    said = chunked(*events(delta("one "), delta("two "), done=False), end=False)
    script = Script(STREAM_HEAD, *said, end=end)
    with Wire(script) as wire, kit(provider="deepseek") as c:
        with pytest.raises(c.lib.TransportError):
            c.read(chat(wire), 1000)

        used = c.used()
        assert 0 == used["concurrent"]
        assert 0 < used["tokens"] < 90


def test_garbage_between_chunks_ends_the_stream_and_frees_the_slot(kit: Any) -> None:
    said = chunked(*events(delta("one "), done=False), end=False)
    script = Script(STREAM_HEAD, *said, b"zz\r\nnot a chunk", end="close")
    with Wire(script) as wire, kit() as c:
        with pytest.raises(c.lib.RemoteProtocolError):
            c.read(chat(wire), 1000)

        assert 0 == c.used()["concurrent"]


# Waiting and refusing.


def test_a_call_that_cannot_wait_gets_the_providers_own_429(kit: Any) -> None:
    with Wire(http(200, completion(), JSON)) as wire, kit("1 rpm", "9k tpm") as c:
        c.post(chat(wire))
        response = c.post(chat(wire))

        assert 429 == response.status_code
        assert "false" == response.headers["x-should-retry"]
        assert 55 < float(response.headers["retry-after"]) <= 60
        assert "1 requests/minute" in response.json()["error"]["message"]
        assert Kind.THROTTLED is response.extensions["ratekeeper"].kind
        assert 1 == len(wire.requests)


def test_a_call_larger_than_a_limit_is_refused_without_a_wait(kit: Any) -> None:
    with Wire(http(200, completion(), JSON)) as wire, kit("9 rpm", "50 tpm") as c:
        response = c.post(chat(wire))

        assert 429 == response.status_code
        assert "retry-after" not in response.headers
        assert Kind.IMPOSSIBLE is response.extensions["ratekeeper"].kind
        assert [] == wire.requests


def test_a_refusal_is_raised_where_that_is_asked_for(kit: Any) -> None:
    strict = kit("1 rpm", "50 tpm", raise_refusals=True)
    with Wire(http(200, completion(), JSON)) as wire, strict as c:
        with pytest.raises(NeverPossible):
            c.post(chat(wire))
        c.read(f"{wire.url}/models", 9, json=None)
        with pytest.raises(LimitExceeded):
            c.read(f"{wire.url}/models", 9, json=None)

        assert 1 == len(wire.requests)


def test_the_read_timeout_bounds_the_wait_in_line(kit2: Any) -> None:
    with Wire(http(200, completion(), JSON)) as wire, kit2("1 requests/200 s") as c:
        c.post(chat(wire))
        began = time.perf_counter()
        refused = c.post(chat(wire), timeout=100)

        assert 429 == refused.status_code
        assert time.perf_counter() - began < 1.0  # at once, not after the time-out


def test_a_call_waits_its_turn_and_is_sent(kit2: Any) -> None:
    with Wire(http(200, completion(), JSON)) as wire, kit2("1 request/s") as c:
        c.post(chat(wire))
        began = time.perf_counter()
        second = c.post(chat(wire))

        assert 200 == second.status_code
        assert 0.5 < time.perf_counter() - began


def test_a_request_names_its_key_and_its_own_timeout(kit2: Any) -> None:
    with Wire(http(200, completion(), JSON)) as wire, kit2("1 rpm") as c:
        for key, status in (("a", 200), ("b", 200), ("a", 429)):
            options = {"key": key, "timeout": 0, "priority": "batch"}
            response = c.post(chat(wire), extensions={"ratekeeper": options})

            assert status == response.status_code


def test_another_attempt_of_a_call_goes_before_those_that_wait_already() -> None:
    with Wire(http(200, completion(), JSON)) as wire, AsyncKit(httpx2, "1 rps") as c:

        async def race() -> None:
            await c.client.post(chat(wire), json=CHAT)
            calls = []
            for retries in (0, 1):
                headers = {"x-stainless-retry-count": str(retries)}
                call = c.client.post(chat(wire), json=CHAT, headers=headers)
                calls.append(asyncio.ensure_future(call))
                await in_line(c.limiter, retries + 1)
            await asyncio.gather(*calls)

        c.run(race())

        assert b"x-stainless-retry-count: 1" in wire.requests[1]
        assert b"x-stainless-retry-count: 0" in wire.requests[2]


def test_an_unknown_request_option_is_named(kit2: Any) -> None:
    with kit2() as c, pytest.raises(ConfigError, match="prioritty"):
        c.post("http://127.0.0.1:9/v1", extensions={"ratekeeper": {"prioritty": 1}})


def test_a_limit_the_provider_does_not_count_is_refused_at_once(kit2: Any) -> None:
    with pytest.raises(ConfigError, match="images"):
        kit2("5 images/minute")


def test_the_limiter_must_fit_the_transport() -> None:
    with pytest.raises(TypeError, match="expected Limiter, not AsyncLimiter"):
        LimitedTransport(AsyncLimiter("1 rpm"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected AsyncLimiter, not Limiter"):
        AsyncLimitedTransport(Limiter("1 rpm"))  # type: ignore[arg-type]


def test_what_is_reserved_is_never_more_than_a_limit_holds(kit2: Any) -> None:
    small = kit2("500 input_tokens/minute", "9k tpm", provider="anthropic")
    with Wire(http(200, completion(8, 5), JSON)) as wire, small as c:
        body = {**CHAT, "max_tokens": 64_000}
        response = c.post(f"{wire.url}/messages", json=body)

        assert 200 == response.status_code


# Cancelling and forgetting.


def test_a_caller_that_insists_does_not_starve_those_in_line() -> None:
    with Wire(http(200, completion(), JSON)) as wire, AsyncKit(httpx2, "1 rps") as c:

        async def insist() -> None:
            options = {"ratekeeper": {"timeout": 0}}
            while True:
                await c.client.post(chat(wire), json=CHAT, extensions=options)

        async def wait() -> float:
            await c.client.post(chat(wire), json=CHAT)
            began = time.perf_counter()
            insisting = asyncio.ensure_future(insist())
            await c.client.post(chat(wire), json=CHAT)
            insisting.cancel()
            return time.perf_counter() - began

        assert c.run(asyncio.wait_for(wait(), 5)) < 3


def test_a_task_cancelled_in_line_leaves_no_trace() -> None:
    with Wire(http(200, completion(), JSON)) as wire, AsyncKit(httpx2, "1 rpm") as c:
        c.post(chat(wire))

        async def cancel() -> None:
            task = asyncio.ensure_future(
                c.client.post(chat(wire), json=CHAT, timeout=None)
            )
            await in_line(c.limiter)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            row = next(iter((await c.limiter.status()).values()))
            assert (1, 0) == (row.used, row.waiting)

        c.run(cancel())

        assert 1 == len(wire.requests)


def test_a_task_cancelled_after_sending_frees_its_slot_and_keeps_the_cost() -> None:
    with Wire(Script(4.0)) as wire, AsyncKit(httpx2) as c:

        async def cancel() -> float:
            task = asyncio.ensure_future(c.client.post(chat(wire), json=CHAT))
            await asked(wire)
            began = time.perf_counter()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.perf_counter() - began

        assert c.run(cancel()) < 0.1
        assert {"requests": 1, "tokens": 90, "concurrent": 0} == c.used()


def test_a_task_cancelled_before_its_connection_was_made_leaves_no_trace() -> None:
    pool = httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=1))
    with Wire(Script(4.0)) as wire, AsyncKit(httpx2, wrap=pool) as c:

        async def cancel() -> dict[str, Any]:
            first = asyncio.ensure_future(c.client.post(chat(wire), json=CHAT))
            await asked(wire)
            second = asyncio.ensure_future(c.client.post(chat(wire), json=CHAT))
            await asyncio.sleep(0.05)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            status = await c.limiter.status()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            return {row.limit: row.used for row in status.values()}

        used = c.run(cancel())

        assert 1 == used["100 requests/minute"]
        assert 1 == used["5 concurrent"]


def test_a_task_cancelled_while_an_error_is_read_closes_it_and_pauses() -> None:
    whole = http(429, THROTTLED, JSON, "retry-after: 9")
    with Wire(Script(whole[:-10], 4.0)) as wire, AsyncKit(httpx2) as c:

        async def cancel() -> None:
            task = asyncio.ensure_future(c.client.post(chat(wire), json=CHAT))
            await asked(wire)
            await asyncio.sleep(0.05)  # the head of the answer has come
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        c.run(cancel())

        assert {"requests": 1, "tokens": 0, "concurrent": 0} == c.used()
        eventually(wire.left.is_set)
        with pytest.raises(LimitExceeded) as caught:
            c.acquire(tokens=1, timeout=0)
        assert 8 < caught.value.retry_after_s <= 9


def test_an_interrupt_while_an_error_is_read_closes_it(kit2: Any) -> None:
    closed = []

    class Interrupted(httpx2.SyncByteStream, httpx2.AsyncByteStream):
        def __iter__(self) -> Any:
            yield b"{"
            raise KeyboardInterrupt

        async def __aiter__(self) -> Any:
            for part in self:
                yield part

        def close(self) -> None:
            closed.append(True)

        async def aclose(self) -> None:
            closed.append(True)

    def answer(_: Any) -> httpx2.Response:
        return httpx2.Response(429, stream=Interrupted())

    with kit2(wrap=httpx2.MockTransport(answer)) as c:
        with pytest.raises(KeyboardInterrupt):
            c.post("http://provider/v1/chat/completions")

        assert [True] == closed
        assert 0 == c.used()["concurrent"]


def test_a_stream_without_generators_is_read_and_closed_too() -> None:
    class Parts:
        """An async iterator that has nothing to close."""

        def __init__(self) -> None:
            self._rest = iter([b"data: {}\n\n", b"data: [DONE]\n\n"])

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> bytes:
            part = next(self._rest, None)
            if part is None:
                raise StopAsyncIteration
            return part

    class Body(Parts, httpx2.AsyncByteStream):
        async def aclose(self) -> None:
            pass

    def answer(_: Any) -> httpx2.Response:
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=Body())

    with AsyncKit(httpx2, wrap=httpx2.MockTransport(answer)) as c:
        response = c.post("http://provider/v1/chat/completions")

        assert response.content.endswith(b"[DONE]\n\n")
        assert 0 == c.used()["concurrent"]


def test_a_task_cancelled_in_mid_stream_settles_at_once() -> None:
    said = chunked(*events(delta("one "), done=False), end=False)
    with (
        Wire(Script(STREAM_HEAD, *said, 4.0)) as wire,
        AsyncKit(httpx2, provider="deepseek") as c,
    ):

        async def read(begun: asyncio.Event) -> None:
            async with c.client.stream("POST", chat(wire), json=CHAT) as response:
                async for _ in response.aiter_raw():
                    begun.set()

        async def cancel() -> float:
            begun = asyncio.Event()
            task = asyncio.ensure_future(read(begun))
            await begun.wait()
            began = time.perf_counter()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.perf_counter() - began

        assert c.run(cancel()) < 0.1
        used = c.used()
        assert 0 == used["concurrent"]
        assert 0 < used["tokens"] < 90


def test_a_response_nobody_closes_is_settled_when_it_is_forgotten() -> None:
    said = chunked(*events(delta("one "), done=False), end=False)
    with (
        Wire(Script(STREAM_HEAD, *said, 4.0)) as wire,
        SyncKit(httpx2, provider="deepseek") as c,
    ):
        request = c.client.build_request("POST", chat(wire), json=CHAT)
        response = c.client.send(request, stream=True)

        assert 1 == c.used()["concurrent"]

        del response
        gc.collect()

        assert 0 == c.used()["concurrent"]


def test_closing_reading_and_closing_again_settles_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script(STREAM_HEAD, *chunked(*events(delta("one "), usage(8, 5))))
    with Wire(script) as wire, SyncKit(httpx2, provider="deepseek") as c:
        request = c.client.build_request("POST", chat(wire), json=CHAT)
        response = c.client.send(request, stream=True)
        response.read()
        response.stream.close()
        response.close()

        assert 13 == c.used()["tokens"]
        assert [] == [r for r in caplog.records if r.name == "ratekeeper"]


def test_a_caller_that_stops_reading_before_the_end_can_drain_the_rest() -> None:
    said = events(delta("one "), usage(8, 5))
    with (
        Wire(Script(STREAM_HEAD, *chunked(*said))) as wire,
        AsyncKit(httpx2, provider="deepseek") as c,
    ):

        async def drain() -> bytes:
            request = c.client.build_request("POST", chat(wire), json=CHAT)
            response = await c.client.send(request, stream=True)
            parts = aiter(response.stream)
            first = await anext(parts)
            rest = [part async for part in response.stream]
            await parts.aclose()
            await response.aclose()
            return b"".join([first, *rest])

        assert b"".join(said) == c.run(drain())
        assert 13 == c.used()["tokens"]


# Sharing.


def test_threads_share_one_transport() -> None:
    with Wire(http(200, completion(), JSON)) as wire, SyncKit(httpx2) as c:
        threads = [
            threading.Thread(target=lambda: [c.post(chat(wire)) for _ in range(5)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert {"requests": 40, "tokens": 3600, "concurrent": 0} == c.used()
        assert 40 == len(wire.requests)


def test_two_event_loops_and_a_thread_share_one_account() -> None:
    name, store = "shared", "memory://"
    limits = ("50 rpm", "5 concurrent")
    with Wire(http(200, completion(), JSON)) as wire:

        def loop() -> None:
            limiter = AsyncLimiter(*limits, name=name, store=store)
            with AsyncKit(httpx2, limiter=limiter) as c:
                for _ in range(5):
                    c.post(chat(wire))

        threads = [threading.Thread(target=loop) for _ in range(2)]
        limiter = Limiter(*limits, name=name, store=store)
        with SyncKit(httpx2, limiter=limiter) as c:
            for thread in threads:
                thread.start()
            for _ in range(5):
                c.post(chat(wire))
            for thread in threads:
                thread.join()

            assert {"requests": 15, "concurrent": 0} == c.used()


# Transports of other kinds.


def test_a_transport_that_answers_from_memory_is_settled_too(kit: Any) -> None:
    with kit(provider="deepseek") as probe:
        mock = probe.lib.MockTransport(
            lambda _: probe.lib.Response(200, json=json.loads(completion(8, 5)))
        )
    with kit(provider="deepseek", wrap=mock) as c:
        response = c.post("http://provider/v1/chat/completions")

        assert 200 == response.status_code
        assert {"requests": 1, "tokens": 13, "concurrent": 0} == c.used()


def test_an_error_from_memory_is_judged_too(kit: Any) -> None:
    with kit() as probe:
        mock = probe.lib.MockTransport(
            lambda _: probe.lib.Response(429, content=THROTTLED)
        )
    with kit(wrap=mock) as c:
        response = c.post("http://provider/v1/chat/completions")

        assert Kind.THROTTLED is response.extensions["ratekeeper"].kind
        assert 0 == c.used()["tokens"]


@pytest.mark.parametrize(
    ("error", "used"), [("ConnectError", 0), ("ConnectTimeout", 1), ("ReadError", 1)]
)
def test_a_transport_that_tells_nothing_is_believed_by_its_errors(
    kit: Any, error: str, used: int
) -> None:
    with kit() as probe:
        kind = getattr(probe.lib, error)

    def fail(_: Any) -> Any:
        raise kind("no")

    with kit(wrap=probe.lib.MockTransport(fail)) as c:
        with pytest.raises(kind):
            c.post("http://provider/v1/chat/completions")

        assert used == c.used()["requests"]


def test_an_async_listener_hears_every_event_still() -> None:
    heard: list[str] = []

    async def listen(name: str, _: Any) -> None:
        heard.append(name)

    with Wire(http(200, completion(), JSON)) as wire, AsyncKit(httpx2) as c:
        c.post(chat(wire), extensions={"trace": listen})

        assert any("send_request_headers" in name for name in heard)
        assert any("receive_response_body" in name for name in heard)


def test_a_listener_of_the_callers_hears_every_event_still() -> None:
    heard: list[str] = []
    with Wire(http(200, completion(), JSON)) as wire, SyncKit(httpx2) as c:
        listener = {"trace": lambda name, _: heard.append(name)}
        response = c.post(chat(wire), extensions=listener)

        assert any("send_request_headers" in name for name in heard)
        assert any("receive_response_body" in name for name in heard)
        assert listener["trace"] is response.request.extensions["trace"]


@pytest.mark.parametrize(
    ("path", "shape"), [("/v1/chat/completions", None), ("/v1/messages", "error")]
)
def test_a_refusal_speaks_as_the_path_that_was_asked(path: str, shape: str) -> None:
    limiter = Limiter("1 rpm")
    limiter.try_acquire()
    never = httpx2.MockTransport(lambda _: httpx2.Response(200))
    transport = LimitedTransport(limiter, provider="openai", wrap=never)
    with httpx2.Client(transport=transport, timeout=0.1) as client:
        answer = client.post(f"http://llm.test{path}", json={"messages": []})

    assert (429, shape) == (answer.status_code, answer.json().get("type"))
