"""The provider behind every gateway: canned OpenAI answers, as fast as Python can.

    python -m benchmarks.gateways.upstream PORT

It looks at a request no closer than it must (streamed or not, whose story), and says the
usage it was told to say. `GET /plan?…` sets what it does, `GET /seen` tells what came.
A stream's events go out one at a time, at the pace of the plan.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
import time
from typing import Any
from urllib.parse import parse_qsl

import httptools
import uvloop

STREAMED = re.compile(rb'"stream":\s*true')
WITH_USAGE = re.compile(rb'"include_usage":\s*true')
USER = re.compile(rb'"user":\s*"([^"]*)"')
HELD_AFTER = 5  # events of a stream that is held open
WORDS = "The limit was reached, so the call waits its turn in line and goes on then. "
SIZES = (96, 160, 224, 288, 352)  # characters of the answers' texts
HEAD = (
    "HTTP/1.1 200 OK\r\n"
    "date: Wed, 25 Nov 2026 02:00:00 GMT\r\n"
    "content-type: {type}\r\n"
    "openai-organization: bench\r\n"
    "openai-processing-ms: 412\r\n"
    "openai-version: 2020-10-01\r\n"
    "x-request-id: req_5d2c1f0e9b8a47d6a3c4e5f60718293a\r\n"
    "x-ratelimit-limit-requests: 1000000\r\n"
    "x-ratelimit-limit-tokens: 1000000000\r\n"
    "x-ratelimit-remaining-requests: 999999\r\n"
    "x-ratelimit-remaining-tokens: 999999000\r\n"
    "x-ratelimit-reset-requests: 1ms\r\n"
    "x-ratelimit-reset-tokens: 1ms\r\n"
    "{frame}\r\n\r\n"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What it does with a call."""

    chunks: int = 23  # events with text in a stream
    pace_us: int = 0  # between two of them; 0: all at once
    held: int = 0  # 1: streams stop after some events, until the next plan
    prompt: int = 700  # tokens that it says were read
    completion: int = 60  # and written
    noted: int = 0  # 1: keep when each call came


class Canned:
    """The bytes of a plan's answers."""

    def __init__(self, plan: Plan) -> None:
        self.plain = [_plain(size, plan) for size in SIZES]
        self.streams = [_stream(plan, usage=usage) for usage in (False, True)]


def _usage(plan: Plan) -> dict[str, Any]:
    return {
        "prompt_tokens": plan.prompt,
        "completion_tokens": plan.completion,
        "total_tokens": plan.prompt + plan.completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _plain(size: int, plan: Plan) -> bytes:
    message = {"role": "assistant", "content": (WORDS * 9)[:size], "refusal": None}
    body = json.dumps({
        "id": "chatcmpl-bench0000000000000000000000",
        "object": "chat.completion",
        "created": 1764036000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _usage(plan),
        "system_fingerprint": "fp_bench",
    }).encode()  # fmt: skip
    frame = f"content-length: {len(body)}"
    return HEAD.format(type="application/json", frame=frame).encode() + body


def _event(delta: dict[str, str], finish: str | None, **more: Any) -> bytes:
    return _data(json.dumps({
        "id": "chatcmpl-bench0000000000000000000000",
        "object": "chat.completion.chunk",
        "created": 1764036000,
        "model": "gpt-4o-mini-2024-07-18",
        "system_fingerprint": "fp_bench",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }, separators=(",", ":")))  # fmt: skip


def _data(text: str) -> bytes:
    return b"data: %b\n\n" % text.encode()


def events(plan: Plan, *, usage: bool) -> list[bytes]:
    """Return the events of a stream, as OpenAI sends them."""
    none = {"usage": None} if usage else {}
    found = [_event({"role": "assistant", "content": ""}, None, **none)]
    words = WORDS.split()
    found += [
        _event({"content": words[at % len(words)] + " "}, None, **none)
        for at in range(plan.chunks)
    ]
    found.append(_event({}, "stop", **none))
    if usage:
        last = json.loads(found[-1].removeprefix(b"data: "))
        found.append(_data(json.dumps(last | {"choices": [], "usage": _usage(plan)})))
    return [*found, _data("[DONE]")]


def _stream(plan: Plan, *, usage: bool) -> list[bytes]:
    """Frame each event as a chunk of its own; the head goes with the first."""
    chunks = [b"%x\r\n%b\r\n" % (len(e), e) for e in events(plan, usage=usage)]
    head = HEAD.format(type="text/event-stream", frame="transfer-encoding: chunked")
    chunks[0] = head.encode() + chunks[0]
    chunks[-1] += b"0\r\n\r\n"
    return chunks


class Upstream:
    """The plan in force, and what came."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.canned = Canned(self.plan)
        self.calls: list[tuple[int, str]] = []
        self.cut = 0  # streams whose reader left before their end
        self.held: list[Connection] = []
        self.count = 0

    def turn(self, query: str) -> None:
        """Go by another plan, and let go of the streams that were held."""
        told = {name: int(text) for name, text in parse_qsl(query)}
        self.plan = Plan(**told)
        self.canned = Canned(self.plan)
        self.calls, self.cut = [], 0
        held, self.held = self.held, []
        for connection in held:
            connection.go_on()

    def seen(self) -> bytes:
        """Tell what came since the plan was set."""
        told = {"calls": self.calls, "cut": self.cut, "held": len(self.held)}
        body = json.dumps(told).encode()
        frame = f"content-length: {len(body)}"
        return HEAD.format(type="application/json", frame=frame).encode() + body


class Connection(asyncio.Protocol):
    """A connection of the gateway's."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._url = b""
        self._body: list[bytes] = []
        self._rest: list[bytes] = []
        self._at = 0
        self._pace_s = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._upstream.cut += bool(self._rest)
        self._rest = []

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        url, body = self._url.decode(), b"".join(self._body)
        self._url, self._body = b"", []
        if url.startswith("/plan?"):
            self._upstream.turn(url.partition("?")[2])
            url = "/seen"
        if url == "/seen":
            self._transport.write(self._upstream.seen())
        else:
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        here = self._upstream
        here.count += 1
        if here.plan.noted:
            user = USER.search(body)
            at_us = time.monotonic_ns() // 1000
            here.calls.append((at_us, user[1].decode() if user else ""))
        if STREAMED.search(body) is None:
            self._transport.write(here.canned.plain[here.count % len(SIZES)])
            return
        chunks = here.canned.streams[WITH_USAGE.search(body) is not None]
        self._pace_s = here.plan.pace_us / 1e6
        if not self._pace_s and not here.plan.held:
            self._transport.writelines(chunks)
            return
        self._rest, self._at = chunks, 0
        self._next()

    def _next(self) -> None:
        if not self._rest:
            return
        self._transport.write(self._rest[self._at])
        self._at += 1
        if self._at == len(self._rest):
            self._rest = []
        elif self._at == HELD_AFTER and self._upstream.plan.held:
            self._upstream.held.append(self)
        else:
            self._loop.call_later(self._pace_s, self._next)

    def go_on(self) -> None:
        """Send what is left of a held stream."""
        self._pace_s = self._upstream.plan.pace_us / 1e6
        self._next()


async def main(port: int) -> None:
    """Serve until the process is ended."""
    upstream = Upstream()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(upstream), "127.0.0.1", port, backlog=2048
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
