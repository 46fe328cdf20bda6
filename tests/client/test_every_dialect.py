"""Every provider as the simulator plays it: our client learns from it what is true.

The simulator is written apart from what reads it: what is wrong on either side shows.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

import ratekeeper
from ratekeeper import Denied, LimitedTransport, Limiter, MemoryStore
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.facts import Kind, Usage
from ratekeeper.simulator.dialects import KNOWN, find_dialect
from ratekeeper.simulator.server import Simulator, serving
from ratekeeper.testing import VirtualLoop, run_virtual
from tests.client.clients import KEY, MESSAGES

VERTEX = "/v1/projects/p/locations/l/publishers"
CHAT = {"model": "m", "messages": MESSAGES, "max_tokens": 40}
NOVA = {
    "messages": [{"role": "user", "content": [{"text": "Hello"}]}],
    "inferenceConfig": {"maxTokens": 40},
}
CLAUDE = {"messages": MESSAGES, "max_tokens": 40}
GOOGLE = {
    "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
    "generationConfig": {"maxOutputTokens": 40},
}
INCLUDE = {"stream": True, "stream_options": {"include_usage": True}}
ON_VERTEX = {**CLAUDE, "anthropic_version": "vertex-2023-10-16"}
ON_BEDROCK = {**CLAUDE, "anthropic_version": "bedrock-2023-05-31"}

# What each speaks beside OpenAI's: the path and body of an answer, and of a stream.
OWN: list[tuple[str, tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = [
    (
        "anthropic",
        ("/v1/messages", {"model": "m", **CLAUDE}),
        ("/v1/messages", {"model": "m", **CLAUDE, "stream": True}),
    ),
    (
        "bedrock",
        ("/model/amazon.nova/converse", NOVA),
        ("/model/amazon.nova/converse-stream", NOVA),
    ),
    (
        "bedrock",
        ("/model/anthropic.claude-x/invoke", ON_BEDROCK),
        ("/model/anthropic.claude-x/invoke-with-response-stream", ON_BEDROCK),
    ),
    ("cohere", ("/v2/chat", CHAT), ("/v2/chat", {**CHAT, "stream": True})),
    (
        "gemini",
        ("/v1beta/models/g:generateContent", GOOGLE),
        ("/v1beta/models/g:streamGenerateContent?alt=sse", GOOGLE),
    ),
    (
        "vertex",
        (f"{VERTEX}/google/models/g:generateContent", GOOGLE),
        (f"{VERTEX}/google/models/g:streamGenerateContent?alt=sse", GOOGLE),
    ),
    (
        "vertex",
        (f"{VERTEX}/anthropic/models/claude-x:rawPredict", ON_VERTEX),
        (
            f"{VERTEX}/anthropic/models/claude-x:streamRawPredict",
            {**ON_VERTEX, "stream": True},
        ),
    ),
]
PLACES = [
    *OWN,
    *(
        (name, (path, CHAT), (path, {**CHAT, **INCLUDE}))
        for name in KNOWN
        if name != "anthropic"
        for path in [f"{find_dialect(name).base_path}/chat/completions"]
    ),
]
IDS = [f"{name}-{plain[0].rpartition('/')[2]}" for name, plain, _ in PLACES]
HEADERS = {
    "authorization": f"Bearer {KEY}",
    "x-api-key": KEY,
    "anthropic-version": "2023-06-01",
}
# What a 429 says that names the limit of a minute's requests, if it does.
NAMED: dict[str, tuple[Kind, str | None]] = {
    "fireworks": (Kind.THROTTLED, None),
    "mistral": (Kind.THROTTLED, None),
    "vertex": (Kind.OVERLOADED, None),
}
HINTLESS = {"bedrock", "cohere", "dashscope", "fireworks", "vertex", "zhipu"}


def limits(name: str, rpm: str, tpm: str) -> list[str]:
    return [rpm, tpm.replace("tpm", "itpm") if name == "fireworks" else tpm]


@pytest.mark.parametrize(("name", "plain", "streamed"), PLACES, ids=IDS)
def test_full_demand_on_a_small_limit_draws_no_429(
    name: str, plain: tuple[str, dict[str, Any]], streamed: tuple[str, dict[str, Any]]
) -> None:
    loop = VirtualLoop()
    told = limits(name, "30 rpm", "6k tpm")
    simulator = Simulator(name, told, latency_s=0.2, jitter_s=0.5, clock=loop.clock)

    async def main() -> list[int]:
        store = MemoryStore(clock=loop.clock)
        transport = httpx2.ASGITransport(simulator)
        async with ratekeeper.async_http_client(
            name, *told, store=store, transport=transport, timeout=None
        ) as http:
            calls = [
                http.post(f"http://simulated{path}", json=body, headers=HEADERS)
                for path, body in [plain, streamed] * 30
            ]
            return [one.status_code for one in await asyncio.gather(*calls)]

    statuses = run_virtual(main(), loop)

    assert [200] * 60 == statuses
    assert not simulator.stats["refused_by_limit"]
    assert 50 <= loop.time() <= 300


@pytest.mark.parametrize(("name", "plain", "streamed"), PLACES, ids=IDS)
def test_an_answer_and_a_stream_are_settled_by_what_they_used(
    name: str, plain: tuple[str, dict[str, Any]], streamed: tuple[str, dict[str, Any]]
) -> None:
    provider = find_provider(name)
    simulator = Simulator(name, limits(name, "1000 rpm", "1M tpm"))
    with serving(simulator) as url:
        host = url.removesuffix(simulator.dialect.base_path)
        for path, body in (plain, streamed):
            simulator.reset_stats()
            limiter = Limiter("1000 rpm", "1M tpm")
            wire = LimitedTransport(limiter, name)
            with httpx2.Client(transport=wire, headers=HEADERS) as http:
                cue = {"x-simulate": "output=9"}
                answer = http.post(f"{host}{path}", json=body, headers=cue)
            facts = provider.read_request("POST", path, answer.request.content)
            put = simulator.stats["tokens_served"] - 9
            usage = Usage(input_tokens=put, output_tokens=9)
            used = {one.limit: one.used for one in limiter.status().values()}

            assert 200 == answer.status_code
            assert put > 0
            assert [1, provider.charged(facts, usage)["tokens"]] == list(used.values())


@pytest.mark.parametrize(("name", "plain", "streamed"), PLACES, ids=IDS)
def test_a_429_pauses_the_limit_it_names_for_as_long_as_it_says(
    name: str, plain: tuple[str, dict[str, Any]], streamed: tuple[str, dict[str, Any]]
) -> None:
    provider = find_provider(name)
    simulator = Simulator(name, limits(name, "1000 rpm", "1M tpm"))
    limiter = Limiter("1000 rpm", "1M tpm", account=name)
    path, body = plain
    with (
        serving(simulator) as url,
        httpx2.Client(transport=LimitedTransport(limiter, name)) as http,
    ):
        host = url.removesuffix(simulator.dialect.base_path)
        cue = {**HEADERS, "x-simulate": "reason=throttled, retry-after=7"}
        answer = http.post(f"{host}{path}", json=body, headers=cue)
        again = limiter.try_acquire(tokens=1)
    read = provider.judge(
        answer.status_code, answer.headers.multi_items(), answer.content, 0
    )
    kind, unit = NAMED.get(name, (Kind.THROTTLED, "requests"))
    if "anthropic/models" in path:
        kind, unit = Kind.THROTTLED, "requests"

    assert 429 == answer.status_code
    assert (kind, unit) == (read.kind, read.unit)
    if name not in HINTLESS:
        assert isinstance(again, Denied)
        # A moment is read against the Date of the answer: whole seconds, and a server's
        # own may be a second old.
        assert 5 < again.retry_after_us / 1e6 <= 9
