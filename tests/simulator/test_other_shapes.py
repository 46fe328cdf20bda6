"""DeepSeek, HolySheep and the rest: OpenAI's shapes with words of their own."""

from __future__ import annotations

import asyncio

import pytest

from ratekeeper.errors import ConfigError
from ratekeeper.simulator.server import Simulator
from ratekeeper.testing import ManualClock
from tests.simulator.asking import ROLES, ask, chat, events


def test_deepseek_sends_no_limit_headers() -> None:
    provider = Simulator("deepseek", ["1 rpm"], clock=ManualClock())
    responses = [chat(provider), chat(provider)]

    assert [200, 429] == [one.status_code for one in responses]
    assert not any("ratelimit" in name for one in responses for name in one.headers)


def test_deepseek_without_credit_is_a_402() -> None:
    response = chat(Simulator("deepseek"), "reason=billing")

    assert response.status_code == 402
    assert response.json()["error"]["message"] == "Insufficient Balance"


def test_deepseek_says_how_many_calls_are_in_flight_and_how_many_may_be() -> None:
    provider = Simulator("deepseek", ["1 concurrent"])

    async def two() -> list[int]:
        first = asyncio.to_thread(chat, provider, "latency=0.3")
        second = asyncio.to_thread(chat, provider, "latency=0.3")
        return sorted(one.status_code for one in await asyncio.gather(first, second))

    assert asyncio.run(two()) == [200, 429]


def test_deepseek_has_chat_and_no_embeddings() -> None:
    provider = Simulator("deepseek")
    body = {"model": "m", "input": "x"}

    assert chat(provider).status_code == 200
    assert ask(provider, "/v1/embeddings", body).status_code == 404


def test_holysheep_tells_its_reset_in_epoch_seconds() -> None:
    provider = Simulator("holysheep", ["1000 rpm", "200k tpm"], clock=ManualClock())
    last = [chat(provider) for _ in range(100)][-1]
    told = {k: v for k, v in last.headers.items() if k.startswith("x-ratelimit")}

    assert told == {
        "x-ratelimit-limit": "1000",
        "x-ratelimit-remaining": "900",
        "x-ratelimit-reset": "1800000006",  # full again after 6 s
    }


def test_holysheep_charges_what_was_used_beyond_the_reservation() -> None:
    provider = Simulator("holysheep", ["100 tpm"], clock=ManualClock())
    chat(provider, "output=95", max_tokens=95)  # and nine of input

    assert chat(provider).headers["retry-after"] == "5"  # 4 in debt, 3 to take


def test_groq_shows_the_requests_of_a_day_and_the_tokens_of_a_minute() -> None:
    limits = ["30 rpm", "1k rpd", "8k tpm", "200k tpd"]
    provider = Simulator("groq", limits, clock=ManualClock())
    told = chat(provider, max_tokens=97).headers

    assert ("1000", "999") == (
        told["x-ratelimit-limit-requests"],
        told["x-ratelimit-remaining-requests"],
    )
    assert ("8000", "7900") == (
        told["x-ratelimit-limit-tokens"],
        told["x-ratelimit-remaining-tokens"],
    )


def test_groq_answers_what_is_too_large_with_a_413_of_its_own() -> None:
    response = chat(Simulator("groq", ["100 tpm"]), max_tokens=200)
    error = response.json()["error"]

    assert (413, "tokens", "rate_limit_exceeded") == (
        response.status_code,
        error["type"],
        error["code"],
    )
    assert "Limit 100, Requested 203, please reduce" in error["message"]
    assert "Used" not in error["message"]


def test_groq_names_the_tier_of_service_in_a_refusal() -> None:
    provider = Simulator("groq", ["100 tpm"], clock=ManualClock())
    chat(provider, max_tokens=80)
    response = chat(provider, max_tokens=80)

    assert 429 == response.status_code
    assert response.json()["error"]["message"].startswith(
        "Rate limit reached for gpt-4o-mini in organization `org_simulated` service "
        "tier `on_demand` on tokens per minute (TPM): Limit 100, Used 83, Requested "
        "83. Please try again in "
    )


@pytest.mark.parametrize("asked", [False, True])
def test_groq_and_mistral_end_a_stream_with_its_usage_asked_for_or_not(
    *, asked: bool
) -> None:
    options = {"include_usage": True} if asked else None
    for name in ("groq", "mistral"):
        response = chat(
            Simulator(name), "output=7", stream=True, stream_options=options
        )
        *_, (_, last), (_, done) = events(response)
        told = last["x_groq"] if name == "groq" else last

        assert "[DONE]" == done
        assert "stop" == last["choices"][0]["finish_reason"]
        assert 7 == told["usage"]["completion_tokens"]


def test_a_stream_without_usage_ends_without() -> None:
    response = chat(Simulator("groq"), "no-usage", stream=True)

    assert "usage" not in response.text


def test_mistral_names_no_limit_and_sends_its_errors_bare() -> None:
    provider = Simulator("mistral", ["60 rpm", "100 tpm"], clock=ManualClock())
    first = chat(provider, "output=9", max_tokens=80)
    chat(provider, "output=60", max_tokens=80)
    refused = chat(provider, max_tokens=80)

    assert ("60", "59", "100") == tuple(
        first.headers[f"x-ratelimit-{name}-minute"]
        for name in ("limit-req", "remaining-req", "limit-tokens")
    )
    assert 429 == refused.status_code
    assert {
        "object": "error",
        "message": "Rate limit exceeded",
        "type": "rate_limited",
        "param": None,
        "code": "1300",
    } == refused.json()


def test_azure_serves_deployments_with_a_key_in_its_own_header() -> None:
    provider = Simulator("azure", ["60 rpm", "10k tpm"], clock=ManualClock())
    path = "/openai/deployments/d/chat/completions"
    body = {"model": "m", "messages": ROLES, "max_tokens": 97}
    told = ask(provider, path, body).headers

    assert {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1",
        "x-ratelimit-renewalperiod-requests": "60",
        "x-ratelimit-limit-tokens": "10000",
        "x-ratelimit-remaining-tokens": "9900",
        "x-ratelimit-reset-tokens": "1",
        "x-ratelimit-renewalperiod-tokens": "60",
    } == {k: v for k, v in told.items() if k.startswith("x-ratelimit")}
    assert "k" == provider.dialect.key({"api-key": " k "})


def test_azure_tells_the_wait_in_seconds_milliseconds_and_words() -> None:
    provider = Simulator("azure", ["100 tpm"], clock=ManualClock())
    chat(provider, max_tokens=80)
    response = chat(provider, max_tokens=80)
    error = response.json()["error"]

    assert "429" == error["code"]
    assert "exceeded token rate limit" in error["message"]
    assert f"retry after {response.headers['retry-after']} seconds" in error["message"]
    assert 0 < int(response.headers["retry-after-ms"]) <= 60_000


def test_to_list_models_takes_nothing() -> None:
    for name, path in (("azure", "/openai/v1/models"), ("groq", "/openai/v1/models")):
        provider = Simulator(name, ["1 rpm"], clock=ManualClock())
        statuses = [ask(provider, path).status_code for _ in range(3)]

        assert [200, 200, 200] == statuses


def test_azure_that_is_busy_says_so_with_a_429() -> None:
    response = chat(Simulator("azure"), "reason=overloaded")

    assert 429 == response.status_code
    assert "high demand" in response.json()["error"]["message"]


def test_another_provider_is_played_in_openais_shapes_under_its_own_name() -> None:
    provider = Simulator("my-relay", ["10 rpm"])

    assert provider.dialect.name == "my-relay"
    assert provider.dialect.key_variable == "MY_RELAY_API_KEY"
    assert chat(provider).json()["object"] == "chat.completion"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("opnai", "did you mean 'openai'"),
        ("cohers", "did you mean 'cohere'"),
        ("no/name", "is not a provider"),
        ("", "is not a provider"),
    ],
)
def test_a_provider_that_is_not_there_is_a_config_error(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Simulator(name)


def test_a_limit_on_what_a_provider_does_not_count_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="openai does not count output_tokens"):
        Simulator("openai", ["400k otpm"])


@pytest.mark.parametrize("provider", ["openai", "anthropic", "deepseek", "holysheep"])
def test_without_limits_a_provider_has_its_usual_ones(provider: str) -> None:
    limits = Simulator(provider).limits

    assert any("requests/minute" in limit for limit in limits)
    assert any("tokens" in limit for limit in limits)
