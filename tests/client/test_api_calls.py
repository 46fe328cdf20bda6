"""What goes over the wire, and what comes back: bodies, headers, answers, streams."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import httpx2
import pytest

from ratekeeper import (
    AnswerTooLarge,
    AsyncClient,
    Client,
    ConfigError,
    MemoryStore,
    ProviderError,
    ProviderThrottled,
)
from ratekeeper.simulator.cues import FaultPlan
from ratekeeper.simulator.server import Simulator, serving
from tests.client import clients, wire
from tests.client.clients import KEY, MESSAGES, OK, Told, error, virtual


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str) -> clients.Opened:
    return clients.opener(kind)


def _sent(told: Told) -> Any:
    return json.loads(told.requests[-1].content)


def test_the_body_sent_is_the_body_given(kind: str) -> None:
    body: dict[str, Any] = {
        "model": "gpt-5.4",
        "messages": [{"role": "user", "content": "你好, world 🌍"}],
        "max_tokens": 0,
        "temperature": None,
        "priority": 3,
        "stream": False,
        "extra": {"nested": [1, 2.5, True]},
    }
    told = Told(OK)
    with virtual(kind, told) as ai:
        ai.do(lambda client: client.chat_completion(**body))

    assert body == _sent(told)


def test_a_field_that_is_absent_stays_absent(kind: str) -> None:
    told = Told(OK)
    with virtual(kind, told, model=None) as ai:
        ai.do(lambda client: client.chat_completion(model="m", messages=MESSAGES))

    assert {"model": "m", "messages": MESSAGES} == _sent(told)


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_chat_without_model_or_messages_is_refused(kind: str, missing: str) -> None:
    body = {k: v for k, v in clients.CHAT.items() if k != missing}
    told = Told(OK)
    with (
        virtual(kind, told) as ai,
        pytest.raises(ConfigError, match=f"needs {missing}="),
    ):
        ai.do(lambda client: client.chat_completion(**body))

    assert [] == told.requests


@pytest.mark.parametrize("value", [object(), math.nan, math.inf, {1, 2}, "\ud800"])
def test_what_json_cannot_hold_is_refused_before_sending(kind: str, value: Any) -> None:
    told = Told(OK)
    with virtual(kind, told) as ai, pytest.raises(ConfigError, match="as JSON"):
        ai.chat(user=value)

    assert [] == told.requests


def test_anthropic_is_told_to_use_its_own_endpoint(kind: str) -> None:
    told = Told(OK)
    with (
        virtual(kind, told, "anthropic") as ai,
        pytest.raises(ConfigError, match=r'request\("POST", "/v1/messages"'),
    ):
        ai.chat()

    assert [] == told.requests


def test_the_callers_headers_win_and_stay_as_they_are(kind: str) -> None:
    own = {"X-Team": "search", "User-Agent": "mine/1"}
    more = {"X-Team": "batch"}
    told = Told((200, {}, {}))
    with virtual(kind, told, headers=own) as ai:
        ai.do(lambda client: client.request("GET", "/models", headers=more))

    headers = told.requests[0].headers
    assert ("batch", "mine/1") == (headers["x-team"], headers["user-agent"])
    assert {"X-Team": "search", "User-Agent": "mine/1"} == own
    assert {"X-Team": "batch"} == more


@pytest.mark.parametrize(
    "headers", [{"x": "a\r\nb: c"}, {"x\n": "a"}, {"x": "é"}, {"x": 1}, {1: "x"}]
)
def test_a_header_that_would_split_the_request_is_refused(
    kind: str, headers: Any
) -> None:
    with pytest.raises(ConfigError, match="printable ASCII"):
        virtual(kind, Told(OK), headers=headers)


@pytest.mark.parametrize("base", ["http://h.example/v1", "http://h.example/v1/"])
@pytest.mark.parametrize("path", ["/models", "models", "//models"])
def test_slashes_make_no_difference(kind: str, base: str, path: str) -> None:
    told = Told((200, {}, {}))
    with virtual(kind, told, base) as ai:
        ai.do(lambda client: client.request("get", path, params={"a": "b c", "d": 1}))

    assert "http://h.example/v1/models?a=b+c&d=1" == str(told.requests[0].url)
    assert "GET" == told.requests[0].method


@pytest.mark.parametrize("path", ["https://evil.example/v1", "http://evil/", 7])
def test_no_path_leads_to_another_host(kind: str, path: Any) -> None:
    told = Told(OK)
    with virtual(kind, told) as ai, pytest.raises(ConfigError, match="a path below"):
        ai.do(lambda client: client.request("GET", path))

    assert [] == told.requests


@pytest.mark.parametrize("path", ["/@evil.example", "/..//evil.example", "/%2e%2e/"])
def test_strange_paths_stay_on_the_host(kind: str, path: str) -> None:
    told = Told((200, {}, {}))
    with virtual(kind, told) as ai:
        ai.do(lambda client: client.request("GET", path))

    assert "api.openai.com" == told.requests[0].url.host


def test_an_empty_answer_is_none(make: clients.Opened) -> None:
    with wire.Wire(wire.http(204)) as server, make(server.url) as ai:
        answer = ai.do(lambda client: client.request("DELETE", "/files/1"))

    assert answer is None


GARBAGE = {
    "a page for people": b"<html>hello</html>",
    "half an object": b'{"id": ',
    "deep": b"[" * 100_000,
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
def test_an_answer_that_is_no_json_is_told_so(
    make: clients.Opened, body: bytes
) -> None:
    with wire.Wire(wire.http(200, body)) as server:
        host = server.url.split("/")[2]
        with make(server.url) as ai, pytest.raises(ProviderError) as caught:
            ai.chat()
        sent = len(server.requests)

    assert f"{host} answered 200 with something that is not JSON" in str(caught.value)
    assert 1 == sent


def test_a_redirect_is_not_followed(make: clients.Opened) -> None:
    moved = wire.http(301, b"", "location: https://evil.example/v1")
    with (
        wire.Wire(moved) as server,
        make(server.url) as ai,
        pytest.raises(ProviderError, match="redirect, which is not followed"),
    ):
        ai.chat()


def test_an_error_inside_a_200_is_that_error(kind: str) -> None:
    inside = {"error": {"code": 429, "message": "Rate limit exceeded"}}
    told = Told((200, {}, inside), OK)
    with virtual(kind, told) as ai:
        answer = ai.chat()

    assert OK[2] == answer
    assert 2 == len(told.requests)


LARGE = {
    "declared": wire.Script(wire.http(200, b" " * 1001, "content-type: x")),
    "found": wire.Script(wire.STREAM_HEAD, *wire.chunked(*[b" " * 91] * 11)),
    "never sent": wire.Script(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n", 5.0),
}


@pytest.mark.parametrize("script", LARGE.values(), ids=LARGE)
def test_an_answer_beyond_the_bound_is_not_read(
    make: clients.Opened, script: wire.Script
) -> None:
    with (
        wire.Wire(script) as server,
        make(server.url, max_answer=1000, limits=["1M rpm", "20 concurrent"]) as ai,
    ):
        with pytest.raises(AnswerTooLarge, match="more than 1,000 bytes") as failed:
            ai.do(lambda client: client.request("POST", "/responses", json={}))
        used = ai.used()

    assert (200, 1) == (failed.value.status, failed.value.attempts)
    assert 1 == len(server.requests)
    assert [1, 0] == used


def test_an_answer_of_just_the_bound_is_read(make: clients.Opened) -> None:
    body = wire.completion()
    with (
        wire.Wire(wire.http(200, body, "content-type: x")) as server,
        make(server.url, max_answer=len(body)) as ai,
    ):
        answer = ai.chat()

    assert "1" == answer["id"]


def test_a_closed_client_says_so(kind: str) -> None:
    told = Told(OK)
    ai = virtual(kind, told)
    if kind == "sync":
        ai.client.close()
    else:
        ai.do(lambda client: client.close())

    with ai, pytest.raises(ConfigError, match="closed"):
        ai.chat()


BAD: dict[str, list[Any]] = {
    "attempts": [0, -1, 1.5, True, None, "3"],
    "max_answer": [0, -1, 1.5, True, None, "3"],
    "timeout": [-1, "5", math.nan, True],
    "connect_timeout": [0, -1, None],
    "read_timeout": [0, math.nan, None],
    "backoff": [-1, None, math.inf],
    "limits": ["500 rpx", []],
    "priority": ["urgent", 3],
    "base_url": ["ftp://x", "nonsense", "http://256.1.1.1/v1"],
    "transport": [object()],
    "proxy": ["nonsense", "ftp://x", 7, "http://u:p@h:99999", "http://:80"],
    "store": ["redis-typo://x"],
    "api_key": [b"bytes", 7],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in BAD.items() for value in values],
)
def test_a_wrong_option_is_a_config_error_that_names_it(
    kind: str, name: str, value: Any
) -> None:
    options: dict[str, Any] = {"api_key": KEY, "limits": ["5 rpm"], name: value}
    maker = Client if kind == "sync" else AsyncClient
    with pytest.raises(ConfigError) as caught:
        maker("openai", **options)

    assert str(caught.value)


def test_a_tier_gives_the_limits(kind: str) -> None:
    told = Told(OK)
    options: dict[str, Any] = {"limits": None, "tier": "free", "model": "gpt-4"}
    with virtual(kind, told, **options) as ai:
        limits = [str(limit) for limit in ai.client.limiter.limits]

    assert any(limit.startswith("50 requests/minute") for limit in limits)


def test_a_stream_iterates_to_its_end_and_the_connection_is_used_again(
    make: clients.Opened,
) -> None:
    parts = wire.chunked(
        *wire.events(wire.delta("a"), wire.delta("b"), wire.usage(3, 2))
    )
    script = wire.Script(wire.STREAM_HEAD, *parts)
    with wire.Wire(script) as server, make(server.url) as ai:
        got = [ai.chunks() for _ in range(3)]
        connections = server.connections

    assert [wire.delta("a"), wire.delta("b"), wire.usage(3, 2)] == got[0]
    assert 1 == connections


def test_a_stream_can_be_left_early(make: clients.Opened) -> None:
    parts = wire.chunked(*wire.events(wire.delta("a"), wire.delta("b")), end=False)
    script = wire.Script(wire.STREAM_HEAD, *parts, 5.0)
    with wire.Wire(script) as server, make(server.url) as ai:
        got = ai.chunks(1)
        left = server.left.wait(2)

    assert [wire.delta("a")] == got
    assert left


CUTS = {
    "bytes one by one": 1,
    "three at a time": 3,
    "all at once": 10_000,
}


@pytest.mark.parametrize("size", CUTS.values(), ids=CUTS)
def test_chunks_are_read_however_the_bytes_are_cut(
    make: clients.Opened, size: int
) -> None:
    text = b': hello\r\n\r\ndata: {"a":\r\ndata: "\xc3\xa9"}\r\n\r\nevent: x\n'
    text += (
        b'data:{"b":1}\n\ndata: {"choices":[{"finish_reason":"stop"}]}\r\rdata: [DONE]'
    )
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    script = wire.Script(wire.STREAM_HEAD, *wire.chunked(*pieces))
    with wire.Wire(script) as server, make(server.url) as ai:
        got = ai.chunks()

    assert [{"a": "é"}, {"b": 1}, {"choices": [{"finish_reason": "stop"}]}] == got


def _chunked_error(*events: Any, done: bool = True) -> wire.Script:
    return wire.Script(
        wire.STREAM_HEAD, *wire.chunked(*wire.events(*events, done=done))
    )


def test_an_error_as_the_first_chunk_is_tried_again(make: clients.Opened) -> None:
    refused = {"error": {"code": "rate_limit_exceeded", "message": "Slow."}}
    scripts: list[wire.Script | bytes] = [
        _chunked_error(refused),
        _chunked_error(wire.delta("a")),
    ]
    with wire.Wire(*scripts) as server, make(server.url, timeout=None) as ai:
        got = ai.chunks()

    assert [wire.delta("a")] == got


def test_an_error_after_chunks_comes_after_them_and_is_not_tried_again(
    make: clients.Opened,
) -> None:
    refused = {"error": {"code": "rate_limit_exceeded", "message": "Slow."}}
    with (
        wire.Wire(_chunked_error(wire.delta("a"), refused)) as server,
        make(server.url) as ai,
    ):
        first = ai.chunks(1)
        with pytest.raises(ProviderThrottled):
            ai.chunks()
        sent = len(server.requests)

    assert ([wire.delta("a")], 2) == (first, sent)


def test_what_breaks_after_the_last_word_does_no_harm(make: clients.Opened) -> None:
    parts = wire.chunked(*wire.events(wire.delta("a")), end=False)
    script = wire.Script(wire.STREAM_HEAD, *parts, end="close")
    with wire.Wire(script) as server, make(server.url) as ai:
        got = ai.chunks()

    assert [wire.delta("a")] == got


def test_a_stream_that_is_over_stays_over() -> None:
    parts = wire.chunked(*wire.events(wire.delta("a")))
    script = wire.Script(wire.STREAM_HEAD, *parts)
    with wire.Wire(script) as server, clients.opener("sync")(server.url) as ai:
        stream = ai.client.chat_completion(**clients.CHAT, stream=True)
        first = list(stream)
        again = list(stream)
        stream.close()

    assert ([wire.delta("a")], []) == (first, again)


def test_an_error_in_the_same_packet_comes_after_the_chunks_before_it(
    make: clients.Opened,
) -> None:
    refused = {"error": {"code": "rate_limit_exceeded", "message": "Slow."}}
    both = b"".join(wire.events(wire.delta("a"), refused))
    script = wire.Script(wire.STREAM_HEAD, *wire.chunked(both))
    with wire.Wire(script) as server, make(server.url) as ai:
        first = ai.chunks(1)
        with pytest.raises(ProviderThrottled):
            ai.chunks()

    assert [wire.delta("a")] == first


def test_a_chat_stream_is_whole_by_its_finish_reason_too(make: clients.Opened) -> None:
    last = b'data: {"choices": [{"finish_reason": "stop"}]}'  # and no empty line
    script = wire.Script(wire.STREAM_HEAD, *wire.chunked(last))
    with wire.Wire(script) as server, make(server.url) as ai:
        got = ai.chunks()

    assert [{"choices": [{"finish_reason": "stop"}]}] == got


def test_a_chat_stream_that_ends_too_soon_is_not_taken_for_whole(
    make: clients.Opened,
) -> None:
    script = _chunked_error(wire.delta("a"), done=False)
    with (
        wire.Wire(script) as server,
        make(server.url) as ai,
        pytest.raises(ProviderError, match="ended before it was complete"),
    ):
        ai.chunks()


def test_a_stream_of_nonsense_is_told_so(make: clients.Opened) -> None:
    script = wire.Script(wire.STREAM_HEAD, *wire.chunked(b"data: <html>\n\n"))
    with (
        wire.Wire(script) as server,
        make(server.url) as ai,
        pytest.raises(ProviderError, match="a chunk that is no JSON object"),
    ):
        ai.chunks()


def test_a_chunk_beyond_the_bound_is_not_kept(
    make: clients.Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratekeeper.client.chunks._LARGEST", 1 << 16)
    huge = b"data: " + b"x" * (1 << 18) + b"\n\n"
    script = wire.Script(wire.STREAM_HEAD, *wire.chunked(huge))
    with (
        wire.Wire(script) as server,
        make(server.url) as ai,
        pytest.raises(ProviderError, match="an event larger than"),
    ):
        ai.chunks()


def test_a_single_answer_to_a_stream_request_is_told_so(make: clients.Opened) -> None:
    answer = wire.http(200, wire.completion(), "content-type: application/json")
    with (
        wire.Wire(answer) as server,
        make(server.url) as ai,
        pytest.raises(ProviderError, match="a single answer where a stream"),
    ):
        ai.chunks()


def test_request_streams_the_events_of_any_endpoint(make: clients.Opened) -> None:
    said = [{"type": "message_start"}, {"type": "message_stop"}]
    script = wire.Script(
        wire.STREAM_HEAD, *wire.chunked(*wire.events(*said, done=False))
    )
    with wire.Wire(script) as server, make(server.url) as ai:
        body = {"model": "claude", "stream": True}
        stream: Any = ai.do(
            lambda client: client.request("POST", "/messages", json=body, stream=True)
        )
        got = ai.do(lambda _: _all(stream)) if ai.is_async else list(stream)

    assert said == got


async def _all(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


def test_a_provider_that_enforces_refuses_nothing(make: clients.Opened) -> None:
    simulator = Simulator("openai", ["600 rpm", "1M tpm"])
    with (
        serving(simulator) as url,
        make(url, limits=["600 rpm", "1M tpm"], attempts=1) as ai,
    ):
        results = ai.batch([clients.CHAT] * 12, concurrency=4)

    assert 12 == sum(isinstance(result, dict) for result in results)
    assert {"200": 12} == simulator.stats["by_status"]
    assert simulator.stats["connections"] <= 4


def test_a_provider_in_trouble_is_asked_again(make: clients.Opened) -> None:
    plan = FaultPlan({1: "status=529", 2: "status=500"})
    simulator = Simulator("openai", ["6000 rpm"], faults=plan)
    with serving(simulator) as url, make(url) as ai:
        ai.chat()

    assert {"529": 1, "500": 1, "200": 1} == simulator.stats["by_status"]


def test_a_stream_left_early_gives_its_slot_back(make: clients.Opened) -> None:
    parts = wire.chunked(*wire.events(wire.delta("a"), wire.delta("b")), end=False)
    script = wire.Script(wire.STREAM_HEAD, *parts, 5.0)
    with (
        wire.Wire(script) as server,
        make(server.url, limits=["1 concurrent"], timeout=2) as ai,
    ):
        got = [ai.chunks(1) for _ in range(3)]

    assert [[wire.delta("a")]] * 3 == got


def test_a_failed_call_gives_its_slot_back_while_it_waits(kind: str) -> None:
    told = Told(error(500, retry_after="60"), OK)
    with virtual("async", told, limits=["1 concurrent"]) as ai:
        results = ai.batch([clients.CHAT] * 2, concurrency=2)

    assert 2 == sum(isinstance(result, dict) for result in results)
    assert told.waits_s[0] < 60  # the second went while the first one waited


def test_a_cancelled_call_leaves_nothing_behind() -> None:
    answers: list[wire.Script | bytes] = [
        wire.Script(5.0),
        wire.http(200, wire.completion()),
    ]
    make = clients.opener("async")

    async def cancel(ai: AsyncClient) -> None:
        task = asyncio.create_task(ai.chat_completion(**clients.CHAT))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with (
        wire.Wire(*answers) as server,
        make(server.url, limits=["1 concurrent"], timeout=2) as ai,
    ):
        ai.do(cancel)
        left = server.left.wait(2)
        answer = ai.chat()

    assert left
    assert 13 == answer["usage"]["total_tokens"]


def test_two_clients_of_one_name_share_their_limits(kind: str) -> None:
    store = MemoryStore()
    options: dict[str, Any] = {"store": store, "name": "ours", "limits": ["9 rpd"]}
    make = clients.opener(kind)
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=OK[2]))
    with (
        make("openai", transport=transport, **options) as one,
        make("openai", transport=transport, **options) as two,
    ):
        one.chat()
        two.chat()
        used = one.used()

    assert [2] == used
