"""Ready-made clients: the SDKs' own settings, a provider's limits, the right proxies."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import httpx2
import openai
import pytest

import ratekeeper
from ratekeeper.client import http as module
from ratekeeper.errors import ConfigError
from ratekeeper.simulator.server import Simulator, serving
from tests.client.kits import CHAT
from tests.client.wire import Wire, completion, http

JSON = "content-type: application/json"
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_openai_runs_over_a_ready_made_client() -> None:
    with serving(Simulator("openai", ["500 rpm", "120k tpm"])) as url:
        client = ratekeeper.http_client("openai", "500 rpm", "120k tpm")
        with openai.OpenAI(base_url=url, api_key="sk-x", http_client=client) as ai:
            messages: Any = [{"role": "user", "content": "Hi"}]
            reply = ai.chat.completions.create(model="m", messages=messages)

            assert reply.usage is not None


def test_async_anthropic_runs_over_a_ready_made_client() -> None:
    async def run(url: str) -> int:
        client = ratekeeper.async_http_client("anthropic", "50 rpm", "30k itpm")
        async with anthropic.AsyncAnthropic(
            base_url=url, api_key="sk-x", http_client=client
        ) as ai:
            messages: Any = [{"role": "user", "content": "Hi"}]
            reply = await ai.messages.create(model="m", max_tokens=9, messages=messages)
            return reply.usage.output_tokens

    with serving(Simulator("anthropic", ["50 rpm", "30k itpm"])) as url:
        assert 0 < asyncio.run(run(url)) <= 9


def test_its_settings_are_those_of_the_sdks_own_client() -> None:
    theirs: Any = openai.DefaultHttpxClient()
    with ratekeeper.http_client("openai", "500 rpm") as client, theirs:
        assert theirs.timeout == client.timeout
        assert theirs.follow_redirects == client.follow_redirects
        assert openai.DEFAULT_CONNECTION_LIMITS == module.SDK_LIMITS


def test_timeouts_are_the_callers_if_said() -> None:
    with ratekeeper.http_client("openai", "500 rpm", timeout=7) as client:
        assert httpx2.Timeout(7) == client.timeout


@pytest.mark.parametrize("make", [ratekeeper.http_client, ratekeeper.async_http_client])
class TestLimits:
    def test_limits_that_no_header_shows_must_be_given(self, make: Any) -> None:
        with pytest.raises(ConfigError, match=r'"500 rpm".*tier=.*from refusals'):
            make("gemini")

    def test_limits_and_tier_together_are_refused(self, make: Any) -> None:
        with pytest.raises(ConfigError, match="not both"):
            make("openai", "500 rpm", tier="free", model="gpt-4")

    def test_an_unknown_provider_is_named(self, make: Any) -> None:
        with pytest.raises(ConfigError, match=r"openay.*did you mean 'openai'"):
            make("openay", "500 rpm")

    def test_an_unknown_tier_is_named(self, make: Any) -> None:
        with pytest.raises(ConfigError, match="fre"):
            make("openai", tier="fre", model="gpt-4")


def test_a_tier_brings_its_published_limits() -> None:
    with (
        Wire(http(200, completion(), JSON)) as wire,
        ratekeeper.http_client("openai", model="gpt-4", tier="free") as client,
    ):
        body = {**CHAT, "max_tokens": 20_000}
        refused = client.post(f"{wire.url}/chat/completions", json=body)

        assert 429 == refused.status_code
        assert "15k tokens/minute" in refused.text


def test_clients_of_one_name_and_store_share_their_limits() -> None:
    store = ratekeeper.MemoryStore()
    with Wire(http(200, completion(), JSON)) as wire:
        answers = []
        for _ in range(2):
            with ratekeeper.http_client(
                "openai", "1 requests/day", name="shared", store=store
            ) as client:
                url = f"{wire.url}/models"
                options = {"ratekeeper": {"timeout": 0}}
                answers.append(client.get(url, extensions=options).status_code)

    assert [200, 429] == answers


def test_a_transport_of_the_callers_replaces_the_connections() -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, content=completion())

    inner = httpx2.MockTransport(answer)
    with ratekeeper.http_client("openai", "9 rpm", transport=inner) as client:
        client.post("http://provider/v1/chat/completions", json=CHAT)

    assert 1 == len(seen)


def test_calls_go_through_the_proxy_that_is_given() -> None:
    with (
        Wire(http(200, completion(), JSON)) as proxy,
        ratekeeper.http_client("openai", "9 rpm", proxy=proxy.url) as client,
    ):
        client.post("http://provider.invalid/v1/chat/completions", json=CHAT)

        assert proxy.requests[0].startswith(b"POST http://provider.invalid/v1/chat")


def test_calls_go_through_the_environments_proxy_and_are_limited_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Wire(http(200, completion(), JSON)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "direct.invalid")
        with ratekeeper.http_client("openai", "1 requests/day") as client:
            url = "http://provider.invalid/v1/models"
            first = client.get(url, timeout=0.1)
            second = client.get(url, timeout=0.1)
            third = client.get("http://direct.invalid/v1/models", timeout=0.1)

    assert [200, 429, 429] == [r.status_code for r in (first, second, third)]
    assert 1 == len(proxy.requests)


@pytest.mark.parametrize(
    ("no_proxy", "direct", "proxied"),
    [
        ("example.com", "http://a.example.com/", "http://other.com/"),
        ("example.com", "http://example.com/", "http://notexample.com/"),
        (".example.com", "http://a.example.com/", "http://example.com/"),
        ("localhost", "http://localhost:80/", "http://a.localhost/"),
        ("10.1.2.3", "http://10.1.2.3:80/", "http://10.1.2.4/"),
        ("::1", "http://[::1]/", "http://[::2]/"),
        ("[::1]", "http://[::1]/", "http://[::2]/"),
        ("http://only.com", "http://only.com/", "http://other.com/"),
        ("*", "http://anything/", ""),
    ],
)
def test_no_proxy_is_read_as_httpx2_reads_it(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, direct: str, proxied: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", "127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    with (
        httpx2.Client() as theirs,
        ratekeeper.http_client("openai", "9 rpm") as ours,
    ):
        for url in filter(None, (direct, proxied)):
            there: Any = theirs._transport_for_url(httpx2.URL(url))
            here: Any = ours._transport_for_url(httpx2.URL(url))

            assert (there is theirs._transport) == (here is ours._transport)
            assert (url == direct) == (here is ours._transport)
