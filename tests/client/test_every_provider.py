"""Every provider by name: through the client, and below OpenAI's own SDK."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

import ratekeeper
from ratekeeper import Client, ConfigError
from ratekeeper.client import keys
from ratekeeper.providers.catalog import PROVIDERS, Provider
from ratekeeper.providers.facts import Dialect
from ratekeeper.providers.presets import Preset, presets
from ratekeeper.simulator.server import Simulator, serving
from tests.client.clients import CHAT, MESSAGES
from tests.client.wire import completion, delta, usage

COMPATIBLE = sorted(
    name for name, one in PROVIDERS.items() if one.speaks is Dialect.OPENAI
)
LIMITS = ("1000 rpm", "1M tpm")
WORDS = {"RESOURCE": "my-org", "REGION": "eu-west-1", "PROJECT": "p"}


def base_url(provider: Provider) -> str:
    """Return a base URL of ours where each account has its own."""
    url = provider.base_url or provider.base_form
    for word, own in WORDS.items():
        url = url.replace(word, own)
    return url


def key_of(provider: Provider) -> str:
    body = "0123456789abcdefghijKLMNOPQRSTUV0123456789abcdefghij5678abcd"
    return (provider.key_prefixes or ("",))[0] + body


class Recorder:
    """A provider that answers any chat, and remembers what it was asked."""

    def __init__(self, answer: httpx2.Response | None = None) -> None:
        self.requests: list[httpx2.Request] = []
        self.answer = answer

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if self.answer is not None:
            return self.answer
        if json.loads(request.content).get("stream"):
            chunks = (delta("All"), delta(" is well."), usage(8, 5))
            body = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks)
            kind = {"content-type": "text/event-stream"}
            return httpx2.Response(200, headers=kind, text=body + "data: [DONE]\n\n")
        kind = {"content-type": "application/json"}
        return httpx2.Response(200, headers=kind, content=completion())

    @property
    def transport(self) -> httpx2.MockTransport:
        return httpx2.MockTransport(self)


def client(provider: Provider, recorder: Recorder) -> Client:
    return Client(
        provider.name,
        api_key=key_of(provider),
        base_url=None if provider.base_url else base_url(provider),
        limits=LIMITS,
        transport=recorder.transport,
    )


@pytest.mark.parametrize("name", COMPATIBLE)
def test_a_chat_goes_where_the_provider_is_with_its_key_as_it_takes_one(
    name: str,
) -> None:
    provider, recorder = PROVIDERS[name], Recorder()
    with client(provider, recorder) as ai:
        reply = ai.chat_completion(**CHAT)
    (request,) = recorder.requests
    scheme = f"{provider.auth_scheme} " if provider.auth_scheme else ""

    assert "All is well." == reply["choices"][0]["message"]["content"]
    assert f"{base_url(provider)}/chat/completions" == str(request.url)
    assert scheme + key_of(provider) == request.headers[provider.auth_header]
    assert CHAT == json.loads(request.content)


@pytest.mark.parametrize("name", COMPATIBLE)
def test_a_stream_is_read_and_settled_by_its_usage(name: str) -> None:
    provider, recorder = PROVIDERS[name], Recorder()
    with client(provider, recorder) as ai:
        chunks = list(ai.chat_completion(**CHAT, stream=True))
        used = ai.limiter.status()

    assert 3 == len(chunks)
    assert 1 == next(one.used for text, one in used.items() if "request" in text)
    assert 0 < next(one.used for text, one in used.items() if "token" in text)


@pytest.mark.parametrize("name", COMPATIBLE)
def test_openais_sdk_runs_over_a_ready_made_client_of_each(name: str) -> None:
    provider, recorder = PROVIDERS[name], Recorder()
    http = ratekeeper.http_client(name, *LIMITS, transport=recorder.transport)
    messages: Any = MESSAGES
    with openai.OpenAI(
        base_url=base_url(provider),
        api_key=key_of(provider),
        http_client=http,
        max_retries=0,
    ) as ai:
        reply = ai.chat.completions.create(model="m", messages=messages)

    assert "All is well." == reply.choices[0].message.content
    assert 1 == len(recorder.requests)


@pytest.mark.parametrize("name", ["azure", "bedrock", "vertex"])
def test_a_base_url_of_ones_own_is_asked_for_and_taken_from_the_environment(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = PROVIDERS[name]
    variable = f"{name.upper()}_BASE_URL"
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=f"export {variable}=https://"):
        Client(name, api_key=key_of(provider), limits=LIMITS)
    monkeypatch.setenv(variable, base_url(provider))
    recorder = Recorder()
    with Client(
        name,
        api_key=key_of(provider),
        limits=LIMITS,
        transport=recorder.transport,
    ) as ai:
        ai.chat_completion(**CHAT)

    assert str(recorder.requests[0].url).startswith(base_url(provider))


@pytest.mark.parametrize(
    ("name", "path", "words"),
    [
        ("gemini", "/v1beta/models/gemini-2.5-flash:generateContent", "google-genai"),
        ("vertex", "/models/gemini-3-pro:streamGenerateContent", "google-genai"),
        ("cohere", "/v2/chat", "cohere's own SDK"),
        ("bedrock", "/model/m/converse", "AWS signs such calls"),
    ],
)
def test_what_is_not_below_openais_path_is_refused_with_what_to_do(
    name: str, path: str, words: str
) -> None:
    recorder = Recorder()
    with client(PROVIDERS[name], recorder) as ai:
        with pytest.raises(ConfigError, match=words):
            ai.request("POST", path, json={})

        assert [] == recorder.requests


def test_a_key_of_bedrock_reaches_converse_at_the_host_itself() -> None:
    provider, recorder = PROVIDERS["bedrock"], Recorder()
    host = "https://bedrock-runtime.us-east-1.amazonaws.com"
    with Client(
        "bedrock",
        api_key=key_of(provider),
        base_url=host,
        limits=LIMITS,
        transport=recorder.transport,
    ) as ai:
        ai.request("POST", "/model/m/converse", json={"messages": []})

    assert f"{host}/model/m/converse" == str(recorder.requests[0].url)


def test_a_native_call_below_a_ready_made_client_is_counted() -> None:
    answer = {"usageMetadata": {"promptTokenCount": 20, "candidatesTokenCount": 9}}
    recorder = Recorder(httpx2.Response(200, json=answer))
    limiter = ratekeeper.Limiter("60 rpm", "250k tpm")
    wrapped = ratekeeper.LimitedTransport(limiter, "gemini", wrap=recorder.transport)
    url = "https://generativelanguage.googleapis.com/v1beta/models/g:generateContent"
    with httpx2.Client(transport=wrapped) as http:
        http.post(url, json={"contents": [{"parts": [{"text": "word " * 900}]}]})
    used = [one.used for one in limiter.status().values()]

    assert [1, 20] == used


def test_an_error_inside_a_200_is_raised_as_what_it_is() -> None:
    body = {
        "error": {
            "code": 402,
            "message": "Insufficient credits",
            "metadata": {"reason": "openrouter_credits"},
        }
    }
    recorder = Recorder(httpx2.Response(200, json=body))
    with (
        client(PROVIDERS["openrouter"], recorder) as ai,
        pytest.raises(ratekeeper.BillingStopped),
    ):
        ai.chat_completion(**CHAT)

    assert 1 == len(recorder.requests)


def test_an_error_that_stands_bare_in_a_stream_is_one() -> None:
    body = {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited"}
    kind = {"content-type": "text/event-stream"}
    text = f"data: {json.dumps(delta('All'))}\n\ndata: {json.dumps(body)}\n\n"
    recorder = Recorder(httpx2.Response(200, headers=kind, text=text))
    with client(PROVIDERS["mistral"], recorder) as ai:
        chunks = ai.chat_completion(**CHAT, stream=True)
        first = next(chunks)
        with pytest.raises(ratekeeper.ProviderThrottled):
            next(chunks)

    assert "All" == first["choices"][0]["delta"]["content"]


@pytest.mark.parametrize(
    "name", ["openai", "azure", "deepseek", "gemini", "groq", "holysheep", "mistral"]
)
def test_a_client_runs_against_the_simulated_provider_of_its_name(name: str) -> None:
    provider = PROVIDERS[name]
    with (
        serving(Simulator(name, ["1000 rpm", "1M tpm"])) as url,
        Client(name, api_key=key_of(provider), base_url=url, limits=LIMITS) as ai,
    ):
        reply = ai.chat_completion(**CHAT)
        chunks = list(ai.chat_completion(**CHAT, stream=True))

    assert reply["usage"]["prompt_tokens"] > 0
    assert chunks


def test_a_days_stop_of_geminis_is_not_waited_for() -> None:
    quota = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
    details = [{"violations": [{"quotaId": quota}]}, {"retryDelay": "5s"}]
    body = {"error": {"code": 429, "message": "Over.", "details": details}}
    recorder = Recorder(httpx2.Response(429, json=body))
    with (
        client(PROVIDERS["gemini"], recorder) as ai,
        pytest.raises(ratekeeper.ProviderThrottled) as caught,
    ):
        ai.chat_completion(**CHAT)

    assert 1 == len(recorder.requests)
    assert caught.value.retry_after_s is not None
    assert 5 < caught.value.retry_after_s <= 25 * 3600


@pytest.mark.parametrize(
    "one", presets(), ids=lambda p: f"{p.provider}-{p.tier}-{p.models[0]}"
)
def test_a_client_keeps_the_limits_of_every_preset(one: Preset) -> None:
    model = one.models[0].replace("*", "x")
    recorder = Recorder()
    with ratekeeper.http_client(
        one.provider, tier=one.tier, model=model, transport=recorder.transport
    ) as http:
        answer = http.post("https://h.example/v1/chat/completions", json=CHAT)

    assert 200 == answer.status_code


@pytest.mark.parametrize(
    "prefix", sorted({one for all_ in PROVIDERS.values() for one in all_.key_prefixes})
)
def test_a_key_of_any_known_form_is_masked_in_a_text(prefix: str) -> None:
    """A provider may repeat another key than the one that was sent."""
    key = prefix + key_of(PROVIDERS["mistral"])

    assert "The key '[key]' is wrong." == keys.masked(f"The key '{key}' is wrong.")
