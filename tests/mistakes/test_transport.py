"""Mistakes of homemade clients that the transport does not repeat, by their row."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

import ratekeeper
from ratekeeper.limiter import Limiter
from ratekeeper.simulator.cues import FaultPlan
from ratekeeper.simulator.server import Simulator, serving
from tests.client.kits import CHAT
from tests.client.wire import Wire, completion, http

JSON = "content-type: application/json"
MESSAGES: Any = CHAT["messages"]


def _sdk(url: str, limiter: Limiter) -> openai.OpenAI:
    limited = ratekeeper.LimitedTransport(limiter, provider="openai")
    return openai.OpenAI(
        base_url=url,
        api_key="sk-x",
        http_client=openai.DefaultHttpxClient(transport=limited),
        max_retries=2,
    )


def test_row_38_three_attempts_are_three_charges_as_the_provider_counts() -> None:
    limiter = Limiter("100 rpm", "100k tpm")
    busy = http(429, b"{}", "retry-after-ms: 20")
    with (
        Wire(busy, busy, http(200, completion(), JSON)) as wire,
        _sdk(wire.url, limiter) as ai,
    ):
        ai.chat.completions.create(model="m", messages=MESSAGES)

        assert 3 == len(wire.requests)
        assert 3 == limiter.status()["100 requests/minute"].used


def test_row_45_a_hundred_calls_use_no_more_connections_than_run_at_once() -> None:
    limiter = Limiter("1000 rpm", "3 concurrent")
    with serving(there := Simulator("openai", ["1000 rpm", "1M tpm"])) as url:
        with _sdk(url, limiter) as ai, ThreadPoolExecutor(8) as threads:

            def call(_: int) -> None:
                ai.chat.completions.create(model="m", messages=MESSAGES, max_tokens=1)

            list(threads.map(call, range(100)))

        assert there.stats["connections"] <= 3
        assert there.stats["worst_in_flight"] <= 3
        assert 100 == there.stats["by_status"]["200"]


def test_row_52_retries_do_not_multiply() -> None:
    limiter = Limiter("100 rpm", "100k tpm")
    faults = FaultPlan(rates={"status=500": 1.0})
    with serving(there := Simulator("openai", faults=faults)) as url:
        with _sdk(url, limiter) as ai, pytest.raises(openai.InternalServerError):
            ai.chat.completions.create(model="m", messages=MESSAGES)

        assert 3 == there.stats["requests"]
        assert 3 == limiter.status()["100 requests/minute"].used


def test_row_52_a_refusal_of_the_limiter_is_not_retried() -> None:
    limiter = Limiter("1 requests/day")
    limiter.acquire()
    with serving(there := Simulator("openai")) as url, _sdk(url, limiter) as ai:
        with pytest.raises(openai.RateLimitError) as caught:
            ai.chat.completions.create(model="m", messages=MESSAGES)

        assert "1 requests/day" in str(caught.value)
        assert 0 == there.stats["requests"]


def test_row_60_the_callers_headers_and_body_stay_as_they_are() -> None:
    headers = {"x-team": "search"}
    body = {**CHAT, "messages": [{"role": "user", "content": "Hi"}]}
    before = copy.deepcopy(body)
    with (
        Wire(http(200, completion(), JSON)) as wire,
        ratekeeper.http_client("openai", "9 rpm") as client,
    ):
        client.post(f"{wire.url}/chat/completions", headers=headers, json=body)

    assert {"x-team": "search"} == headers
    assert before == body
