"""Providers by name and by URL, and what each of them is."""

from __future__ import annotations

import json
import urllib.parse

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.limits import Algorithm
from ratekeeper.core.policy import rules_of
from ratekeeper.errors import ConfigError
from ratekeeper.providers.catalog import PROVIDERS, Provider, find_provider
from ratekeeper.providers.facts import Dialect, Endpoint, Kind

KEY = "sk-test-" + "x" * 40


@pytest.mark.parametrize(
    ("name", "base_url", "variable", "prefixes"),
    [
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", ("sk-",)),
        ("anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY", ("sk-ant-",)),
        ("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", ("sk-",)),
        (
            "holysheep",
            "https://api.holysheep.ai/v1",
            "HOLYSHEEP_API_KEY",
            ("sk-", "hs-"),
        ),
    ],
)
def test_a_provider_is_known_by_name(
    name: str, base_url: str, variable: str, prefixes: tuple[str, ...]
) -> None:
    provider = find_provider(name)

    assert (name, base_url, variable, prefixes) == (
        provider.name,
        provider.base_url,
        provider.key_variable,
        provider.key_prefixes,
    )
    assert provider == find_provider(name.upper())


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda one: one.name)
def test_every_entry_is_complete_and_can_be_enforced(provider: Provider) -> None:
    rules = rules_of(["60 rpm", "10k tpm", "5 concurrent"], provider.account())

    assert provider.title
    assert provider.key_url.startswith("https://")
    assert provider.key_min_length > 22  # a placeholder's length
    assert all(rule.limit.algorithm for rule in rules)
    assert [rule.refunds for rule in rules][1] == ("tokens" in provider.refunds)
    assert all(0 < rule.guard_us <= 1_000_000 for rule in rules)


def test_what_nobody_knows_is_paced() -> None:
    known = {
        name: algorithm
        for name, provider in PROVIDERS.items()
        if (algorithm := provider.account().unsaid) is not Algorithm.PACED
    }

    assert {
        "anthropic": Algorithm.TOKEN_BUCKET,
        "mistral": Algorithm.SLIDING_WINDOW,
    } == known


@pytest.mark.parametrize(
    "url",
    [
        "https://llm.example.com/v1",
        "https://llm.example.com/v1/",
        "https://llm.example.com/v1///",
        "HTTPS://LLM.example.com/v1",
    ],
)
def test_a_base_url_is_the_same_with_and_without_its_trailing_slash(url: str) -> None:
    provider = find_provider(url)

    assert "https://llm.example.com/v1" == provider.base_url
    assert "llm.example.com" == provider.name == provider.title
    assert Dialect.OPENAI is provider.speaks


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "http://localhost:8080/v1",
        "http://[::1]:8080/v1",
        "https://10.0.0.7/openai/v1",
        "https://host_with_underscore/v1",
    ],
)
def test_any_base_url_is_a_provider(url: str) -> None:
    assert url == find_provider(url).base_url


def test_a_known_host_is_the_known_provider() -> None:
    provider = find_provider("https://api.deepseek.com/beta")

    assert ("deepseek", "https://api.deepseek.com/beta") == (
        provider.name,
        provider.base_url,
    )


def test_a_known_provider_can_be_sent_elsewhere() -> None:
    provider = find_provider("anthropic", base_url="http://127.0.0.1:9000/")

    assert ("anthropic", "http://127.0.0.1:9000") == (provider.name, provider.base_url)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("opnai", "did you mean 'openai'?"),
        ("antropic", "did you mean 'anthropic'?"),
        ("holy-sheep", "did you mean 'holysheep'?"),
        ("acme", "expected one of anthropic, azure, bedrock, cohere"),
        ("", "expected one of"),
        ("api.openai.com/v1", "or a base URL such as https://"),
        ("x" * 100_000, "expected one of"),
    ],
)
def test_an_unknown_name_is_answered_with_the_near_one(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_provider(name)

    assert hint in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@llm.example.com/v1",
        "https://hunter2@llm.example.com/v1",
        "https://llm.example.com/v1?key=hunter2",
        "https://llm.example.com/v1#hunter2",
        "ftp://hunter2/v1",
        "file:///hunter2",
        "javascript://hunter2",
        "://hunter2",
        "https://",
        "https:///hunter2",
        "https://:8080/hunter2",
        "https://hunter2:port/v1",
        "https://hunter2:99999/v1",
        "https://hunter2:/v1",
        "https://hun ter2/v1",
        "https://hunter2/v1\n",
        "https://hunter2/v1\x00",
        "https://hünter2/v1",
        "https://[hunter2/v1",
        "https://[::1/hunter2",
        "https://hunter2[::1]/v1",
        "https://hunter2%2f/v1",
        "https://hunter2\\@evil/v1",
    ],
)
def test_a_wrong_base_url_is_refused_without_repeating_it(url: str) -> None:
    """It may hold a secret."""
    with pytest.raises(ConfigError) as alone:
        find_provider(url)
    with pytest.raises(ConfigError) as instead:
        find_provider("openai", base_url=url)

    assert "hunter2" not in f"{alone.value} {instead.value}"


@given(st.text(max_size=60))
def test_any_text_is_a_provider_or_a_config_error(text: str) -> None:
    for name in (text, f"https://{text}"):
        try:
            provider = find_provider(name)
        except ConfigError:
            continue

        assert urllib.parse.urlsplit(provider.base_url).hostname


def test_a_refusal_says_when_in_whole_seconds_and_to_the_millisecond() -> None:
    status, fields, _ = find_provider("openai").refusal("Wait.", 1_500_001)

    assert 429 == status
    assert {
        "content-type": "application/json",
        "x-should-retry": "false",
        "retry-after": "2",
        "retry-after-ms": "1501",
    } == dict(fields)


def test_a_refusal_that_no_wait_would_help_names_none() -> None:
    _, fields, _ = find_provider("openai").refusal("Never.")

    assert {"content-type", "x-should-retry"} == set(dict(fields))


def test_a_wait_below_zero_is_none_to_wait_for() -> None:
    _, fields, _ = find_provider("openai").refusal("Now.", -5)

    assert "0" == dict(fields)["retry-after"]


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_a_refusal_is_read_back_as_what_it_is(name: str) -> None:
    provider = find_provider(name)
    status, fields, body = provider.refusal("Wait.", 1_500_000, unit="tokens")
    verdict = provider.judge(status, fields, body, 0)

    assert (Kind.THROTTLED, False, 1_500_000) == (
        verdict.kind,
        verdict.retry,
        verdict.retry_after_us,
    )


@pytest.mark.parametrize("endpoint", Endpoint)
@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_an_answer_for_a_provider_in_trouble_is_read_back_as_that(
    name: str, endpoint: Endpoint
) -> None:
    provider = find_provider(name)
    status, fields, body = provider.unavailable("Later.", endpoint=endpoint)
    verdict = provider.judge(status, fields, body, 0)

    assert 503 == status
    assert (Kind.OVERLOADED, False) == (verdict.kind, verdict.retry)
    assert "Later." in body.decode()
    assert "429" not in body.decode()


@pytest.mark.parametrize(
    ("name", "path", "field", "kind"),
    [
        ("deepseek", "/anthropic/v1/messages", "max_tokens", "message_delta"),
        ("holysheep", "/v1/messages", "max_tokens", "message_delta"),
        ("anthropic", "/v1/chat/completions", "max_completion_tokens", "chunk"),
    ],
)
def test_a_provider_that_serves_the_other_shapes_too_is_understood(
    name: str, path: str, field: str, kind: str
) -> None:
    provider = find_provider(name)
    request = {"messages": [{"role": "user", "content": "x" * 400}], field: 50}
    facts = provider.read_request("POST", path, json.dumps(request).encode())
    meter = provider.meter(facts, "text/event-stream")
    usage = {"output_tokens": 9, "completion_tokens": 9}
    meter.feed(
        b"data: " + json.dumps({"type": kind, "usage": usage}).encode() + b"\n\n"
    )
    used = meter.usage()
    body = json.loads(provider.refusal("Wait.", 5, endpoint=facts.endpoint)[2])

    assert 50 == facts.max_output
    assert facts.input_tokens >= 100
    assert used is not None
    assert 9 == used.output_tokens
    assert ("type" in body) == path.endswith("/messages")


def test_openais_sdk_raises_its_own_error_once() -> None:
    sent: list[httpx2.Request] = []
    refusal = find_provider("openai").refusal("Over 5 rpm.", 2_000_000, unit="requests")

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(refusal[0], headers=refusal[1], content=refusal[2])

    with (
        httpx2.Client(transport=httpx2.MockTransport(answer)) as http,
        openai.OpenAI(api_key=KEY, http_client=http, max_retries=5) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}]
        )

    assert 1 == len(sent)
    assert ("requests", "rate_limit_exceeded") == (caught.value.type, caught.value.code)
    assert "Over 5 rpm." in str(caught.value)


def test_anthropics_sdk_raises_its_own_error_once() -> None:
    sent: list[httpx2.Request] = []
    refusal = find_provider("anthropic").refusal("Over 5 rpm.", 2_000_000)

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(refusal[0], headers=refusal[1], content=refusal[2])

    with (
        httpx2.Client(transport=httpx2.MockTransport(answer)) as http,
        anthropic.Anthropic(api_key=KEY, http_client=http, max_retries=5) as client,
        pytest.raises(anthropic.RateLimitError) as caught,
    ):
        client.messages.create(
            model="claude-sonnet-5",
            max_tokens=5,
            messages=[{"role": "user", "content": "hi"}],
        )

    assert 1 == len(sent)
    assert "Over 5 rpm." in str(caught.value)
    assert "rate_limit_error" == json.loads(refusal[2])["error"]["type"]
