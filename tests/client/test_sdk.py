"""The official SDKs, unchanged: each attempt is limited once, and nothing else changes.

The simulator counts on its own what it is sent; answers that must be identical to the
byte come from a server that says the same to everyone.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from typing import Any

import pytest

from ratekeeper.simulator.cues import FaultPlan
from ratekeeper.simulator.server import Simulator, serving
from tests.client.kits import eventually, in_line
from tests.client.sdks import (
    ASK,
    FACES,
    AnthropicMiddleware,
    AsyncAnthropicHttpx2,
    AsyncFace,
    AsyncOpenAIHttpx2,
    OpenAIHttpx2,
    limited,
)
from tests.client.wire import (
    STREAM_HEAD,
    Script,
    Wire,
    chunked,
    completion,
    delta,
    events,
    http,
    message,
    message_events,
    usage,
)

JSON = "content-type: application/json"
HEADERS = (JSON, "x-request-id: req_1", "x-odd: \xb5")


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[OpenAIHttpx2, AsyncAnthropicHttpx2, AnthropicMiddleware])
def few(request: pytest.FixtureRequest) -> Any:
    """Return the faces for tests that take their time."""
    return request.param


@pytest.fixture(params=[f for f in FACES if "Async" in str(f)])
def async_face(request: pytest.FixtureRequest) -> Any:
    return request.param


def simulator(face: Any, **options: Any) -> Simulator:
    limits = [limit for limit in face.limits if "concurrent" not in limit]
    return Simulator(face.provider, limits, **options)


def answer(face: Any) -> bytes:
    return completion() if face.provider == "openai" else message()


def said(face: Any) -> list[bytes]:
    if face.provider == "openai":
        return events(delta("All is"), delta(" well."), usage(8, 5))
    return message_events("All is", " well.")


def tokens(face: Any, used: dict[str, int]) -> int:
    return used["tokens" if face.provider == "openai" else "output_tokens"]


# The same as without.


def test_a_plain_answer_is_identical_to_the_unlimited_one(face: Any) -> None:
    with Wire(http(200, answer(face), *HEADERS)) as wire:
        with face(wire.url, None, 0) as free, limited(face, wire.url) as held:
            assert free.plain() == held.plain()
            free_raw, held_raw = free.raw(), held.raw()

        assert answer(face) == held_raw.http_response.content
        assert free_raw.headers.raw == held_raw.headers.raw


def test_a_streamed_answer_is_identical_to_the_unlimited_one(face: Any) -> None:
    stream = Script(STREAM_HEAD, *chunked(*said(face)))
    with (
        Wire(stream) as wire,
        face(wire.url, None, 0) as free,
        limited(face, wire.url) as held,
    ):
        assert free.stream() == held.stream()
        assert b"".join(said(face)) == held.streaming(stream=True)


def test_an_error_is_identical_to_the_unlimited_one(face: Any) -> None:
    body = b'{"error": {"type": "invalid_request_error", "message": "no"}}'
    with Wire(http(400, body, *HEADERS)) as wire:
        with face(wire.url, None, 0) as free, limited(face, wire.url) as held:
            errors: list[Any] = []
            for one in (free, held):
                with pytest.raises(Exception, match="400") as caught:
                    one.plain()
                errors.append(caught.value)

        assert type(errors[0]) is type(errors[1])
        assert str(errors[0]) == str(errors[1])
        assert errors[0].response.content == errors[1].response.content


def test_the_request_is_identical_to_the_unlimited_one(face: Any) -> None:
    with Wire(http(200, answer(face), JSON)) as wire:
        with face(wire.url, None, 0) as free, limited(face, wire.url) as held:
            free.plain()
            held.plain()

        assert wire.requests[0] == wire.requests[1]


# Every attempt once.


def test_a_call_counts_what_the_provider_counts(face: Any) -> None:
    there = simulator(face)
    with serving(there) as url, limited(face, url) as one:
        for _ in range(3):
            one.plain()
        used = one.used()

        assert 3 == used["requests"] == there.stats["requests"]
        assert 0 == used["concurrent"]
        assert tokens(face, used) >= there.stats["output_tokens_served"]


def test_a_stream_counts_what_the_provider_counts(face: Any) -> None:
    there = simulator(face)
    with serving(there) as url, limited(face, url) as one:
        one.stream()
        used = one.used()

        assert 1 == used["requests"] == there.stats["requests"]
        assert 0 == used["concurrent"]
        assert 0 < tokens(face, used) <= 90


def test_each_retry_of_the_sdk_is_a_grant_of_its_own(face: Any) -> None:
    later = http(429, b'{"error": {"type": "rate_limit_error"}}', "retry-after-ms: 30")
    with Wire(later, later, http(200, answer(face), JSON)) as wire:
        with limited(face, wire.url, retries=2) as one:
            one.plain()
            used = one.used()

        assert 3 == used["requests"] == len(wire.requests)
        assert 0 == used["concurrent"]


def test_retries_after_the_providers_own_trouble_count_in_full(face: Any) -> None:
    trouble = http(500, b"oops", "retry-after-ms: 10")
    lost = Script(end="close")
    with Wire(lost, trouble, http(200, answer(face), JSON)) as wire:
        with limited(face, wire.url, retries=2) as one:
            one.plain()
            used = one.used()

        assert 3 == used["requests"] == len(wire.requests)
        assert 180 < tokens(face, used) <= 270


def test_retries_of_a_connection_that_is_refused_cost_nothing(face: Any) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    with limited(face, f"http://127.0.0.1:{port}/v1", retries=1) as one:
        with pytest.raises(one.unreachable):
            one.plain()

        assert {0} == {*one.used().values()}


def test_a_pause_the_provider_asks_for_holds_the_next_call_back(few: Any) -> None:
    there = simulator(few, faults=FaultPlan({1: "status=429, retry-after=1"}))
    with serving(there) as url, limited(few, url) as one:
        with pytest.raises(one.error):
            one.plain()
        one.plain()

        first, second = there.stats["arrivals_us"]
        assert second - first >= 950_000


@pytest.mark.parametrize("stream", [False, True])
def test_the_responses_api_is_counted_too(stream: bool) -> None:
    there = simulator(OpenAIHttpx2)
    with serving(there) as url, limited(OpenAIHttpx2, url) as one:
        answer = one.sdk.responses.create(
            model="m", input="Hi", max_output_tokens=90, stream=stream
        )
        if stream:
            kinds = [event.type for event in answer]

            assert "response.completed" == kinds[-1]
        used = one.used()

        assert {"requests": 1, "tokens": 90, "concurrent": 0} == used
        assert 1 == there.stats["requests"]


def test_embeddings_are_counted_too() -> None:
    there = simulator(AsyncOpenAIHttpx2)
    with serving(there) as url, limited(AsyncOpenAIHttpx2, url) as one:
        one.run(one.sdk.embeddings.create(model="m", input=["one", "two"]))
        used = one.used()

        assert 1 == used["requests"] == there.stats["requests"]
        assert there.stats["input_tokens_served"] <= used["tokens"] < 90


def test_models_are_listed_for_the_price_of_a_request() -> None:
    nothing = http(200, b'{"data": [], "object": "list"}', JSON)
    with Wire(nothing) as wire, limited(OpenAIHttpx2, wire.url) as one:
        assert [] == one.sdk.models.list().data
        assert {"requests": 1, "tokens": 0, "concurrent": 0} == one.used()


# Refusals.


def test_a_refusal_is_the_sdks_own_rate_limit_error_at_once(face: Any) -> None:
    there = simulator(face)
    limits = ("1 requests/200 s", *face.limits[1:])
    with serving(there) as url, limited(face, url, *limits, retries=2) as one:
        one.plain()
        began = time.perf_counter()
        with pytest.raises(one.error, match="1 requests/200 seconds") as caught:
            one.plain(timeout=20)

        assert time.perf_counter() - began < 1.0
        assert 190 < float(caught.value.response.headers["retry-after"]) <= 200
        assert 1 == there.stats["requests"]


def test_the_sdks_timeout_is_how_long_a_call_waits_in_line(few: Any) -> None:
    there = simulator(few)
    limits = ("1 requests/2 s", *few.limits[1:])
    with serving(there) as url, limited(few, url, *limits) as one:
        one.plain()
        with pytest.raises(one.error):
            one.plain(timeout=0.5)
        one.plain(timeout=5)

        first, second = there.stats["arrivals_us"]
        assert second - first >= 1_900_000


# Leaving early.


def test_leaving_a_stream_frees_the_slot_within_100_ms(face: Any) -> None:
    head = chunked(*said(face)[:4], end=False)
    with Wire(Script(STREAM_HEAD, *head, 4.0)) as wire, limited(face, wire.url) as one:
        one.stream(most=1)
        left = time.perf_counter()
        used = one.used()

        assert time.perf_counter() - left < 0.1
        assert 0 == used["concurrent"]
        assert 1 == used["requests"]
        assert 0 < tokens(face, used) <= 90
        eventually(wire.left.is_set)


def test_a_stream_that_is_forgotten_frees_the_slot(face: Any) -> None:
    head = chunked(*said(face)[:4], end=False)
    with Wire(Script(STREAM_HEAD, *head, 4.0)) as wire, limited(face, wire.url) as one:

        async def forget() -> None:
            options = {**ASK, **one.stream_options}
            async for _ in await one.calls.create(**options, stream=True):
                break
            # A chain of generators, which the loop closes one by one as they are found.
            for _ in range(100):
                gc.collect()
                await asyncio.sleep(0.01)
                if (await one.limiter.status())["5 concurrent"].used == 0:
                    return

        if isinstance(one, AsyncFace):
            one.run(forget())
        else:
            for _ in one.calls.create(**ASK, stream=True, **one.stream_options):
                break
            gc.collect()

        assert 0 == one.used()["concurrent"]


def test_streams_forgotten_by_the_hundred_lock_nothing_up() -> None:
    # Each is a cycle, so the collector closes it, wherever it happens to run: under
    # the lock of the limits as well.
    head = chunked(*events(delta("one"), done=False), end=False)
    limits = ("1M rpm", "1B tpm", "1000 concurrent")
    threshold = gc.get_threshold()
    with (
        Wire(Script(STREAM_HEAD, *head, 4.0)) as wire,
        limited(OpenAIHttpx2, wire.url, *limits) as one,
    ):
        gc.set_threshold(20, 3, 3)
        try:
            for _ in range(60):
                for _ in one.calls.create(**ASK, stream=True):
                    break
                for _ in range(20):
                    one.limiter.acquire(tokens=1).release()
        finally:
            gc.set_threshold(*threshold)
        gc.collect()

        assert 0 == one.used()["concurrent"]


def test_a_cancelled_stream_settles_within_100_ms(async_face: Any) -> None:
    head = chunked(*said(async_face)[:4], end=False)
    script = Script(STREAM_HEAD, *head, 4.0)
    with Wire(script) as wire, limited(async_face, wire.url) as one:

        async def read(begun: asyncio.Event) -> None:
            options = {**ASK, **one.stream_options}
            async for _ in await one.calls.create(**options, stream=True):
                begun.set()

        async def cancel() -> tuple[float, dict[str, int]]:
            begun = asyncio.Event()
            task = asyncio.ensure_future(read(begun))
            await begun.wait()
            began = time.perf_counter()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            status = await one.limiter.status()
            return time.perf_counter() - began, status

        took, status = one.run(cancel())

        assert took < 0.1
        assert 0 == status["5 concurrent"].used
        assert 1 == status["1000 requests/minute"].used


def test_a_cancelled_call_leaves_the_line_without_a_trace(async_face: Any) -> None:
    with Wire(http(200, answer(async_face), JSON)) as wire:
        limits = ("1 requests/200 s", *async_face.limits[1:])
        with limited(async_face, wire.url, *limits) as one:
            one.plain()

            async def cancel() -> Any:
                call = one.calls.create(**ASK)
                task = asyncio.ensure_future(call)
                await in_line(one.limiter)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                return await one.limiter.status()

            status = one.run(cancel())

            assert 0 == status["5 concurrent"].used
            assert 0 == status["1 requests/200 seconds"].waiting
            assert 1 == len(wire.requests)
