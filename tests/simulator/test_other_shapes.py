"""DeepSeek, HolySheep and the rest: OpenAI's shapes with words of their own."""

from __future__ import annotations

import asyncio

import pytest

from ratekeeper.errors import ConfigError
from ratekeeper.simulator.server import Simulator
from ratekeeper.testing import ManualClock
from tests.simulator.asking import ask, chat


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


def test_another_provider_is_played_in_openais_shapes_under_its_own_name() -> None:
    provider = Simulator("groq", ["10 rpm"])

    assert provider.dialect.name == "groq"
    assert chat(provider).json()["object"] == "chat.completion"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("opnai", "did you mean 'openai'"),
        ("gemini", "does not speak gemini's own shapes yet"),
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
