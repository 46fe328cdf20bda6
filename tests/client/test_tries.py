"""What an SDK's own retries may cost, at every door they come through."""

from __future__ import annotations

import contextlib
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from ratekeeper import LimitedTransport, Limiter, ProviderOverloaded
from ratekeeper.client.tries import Tries
from ratekeeper.core.backoff import BUDGET, COST, COST_THROTTLED
from ratekeeper.providers.facts import Kind
from tests.client.kits import CHAT
from tests.client.sdks import AnthropicMiddleware, AsyncOpenAIHttpx2, limited
from tests.client.wire import Wire, completion, http

RETRIES = BUDGET // COST
JSON = "content-type: application/json"
DOWN = b'{"error": {"message": "No.", "type": "server_error"}}'
AGAIN = {"x-stainless-retry-count": "1"}
URL = "https://api.openai.com/v1/chat/completions"


def pays(tries: Tries) -> int:
    """Count the retries that are paid for."""
    paid = 0
    with contextlib.suppress(ProviderOverloaded):
        while True:
            tries.pay()
            paid += 1
    return paid


class Provider:
    """Answers with one status until told another, and counts what it is sent."""

    def __init__(self, status: int = 503) -> None:
        self.status = status
        self.calls = 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.calls += 1
        if self.status == 0:
            msg = "refused"
            raise httpx2.ConnectError(msg, request=request)
        return httpx2.Response(self.status, json={"error": {"message": "No."}})


def client(provider: Provider, **options: Any) -> httpx2.Client:
    limiter = Limiter("1M rpm", "9 concurrent")
    wrap = httpx2.MockTransport(provider)
    return httpx2.Client(transport=LimitedTransport(limiter, wrap=wrap, **options))


def test_retries_end_where_failures_are_all_there_is() -> None:
    tries = Tries("openai")
    tries.failed()

    assert RETRIES == pays(tries)


def test_a_retry_that_the_provider_asked_for_is_cheaper() -> None:
    tries = Tries("openai")
    tries.failed(Kind.THROTTLED)

    assert BUDGET // COST_THROTTLED == pays(tries)


def test_answers_pay_for_retries() -> None:
    tries = Tries("openai")
    pays(tries)
    for _ in range(2 * COST):
        tries.answered()

    assert 2 == pays(tries)


def test_what_cannot_be_paid_for_says_whose_fault_it_is() -> None:
    tries = Tries("openai")
    pays(tries)
    with pytest.raises(ProviderOverloaded, match="openai has failed too often") as said:
        tries.pay()

    assert (503, 0, "openai") == (
        said.value.status,
        said.value.attempts,
        said.value.provider,
    )


@pytest.mark.parametrize("status", [0, 500, 503])
def test_a_provider_that_is_down_is_sent_few_retries(status: int) -> None:
    provider = Provider(status)
    with client(provider) as http_client:
        for _ in range(3 * RETRIES):
            with contextlib.suppress(httpx2.ConnectError):
                http_client.post(URL, json=CHAT, headers=AGAIN)

    assert RETRIES == provider.calls


def test_first_attempts_are_always_sent() -> None:
    provider = Provider()
    with client(provider) as http_client:
        for _ in range(3 * RETRIES):
            http_client.post(URL, json=CHAT, headers={"x-stainless-retry-count": "0"})

    assert 3 * RETRIES == provider.calls


def test_a_retry_that_is_not_sent_is_answered_and_takes_nothing() -> None:
    provider = Provider()
    limiter = Limiter("1M rpm", "9 concurrent")
    wrap = httpx2.MockTransport(provider)
    transport = LimitedTransport(limiter, wrap=wrap)
    with httpx2.Client(transport=transport) as http_client:
        for _ in range(RETRIES):
            http_client.post(URL, json=CHAT, headers=AGAIN)
        answer = http_client.post(URL, json=CHAT, headers=AGAIN)
        used = [row.used for row in limiter.status().values()]

    assert (503, "false") == (answer.status_code, answer.headers["x-should-retry"])
    assert (Kind.OVERLOADED, False) == (
        answer.extensions["ratekeeper"].kind,
        answer.extensions["ratekeeper"].retry,
    )
    assert [RETRIES, 0] == used


def test_it_is_raised_where_refusals_are() -> None:
    with client(Provider(), raise_refusals=True) as http_client:
        for _ in range(RETRIES):
            http_client.post(URL, json=CHAT, headers=AGAIN)
        with pytest.raises(ProviderOverloaded, match="not sent again"):
            http_client.post(URL, json=CHAT, headers=AGAIN)


def test_a_provider_that_is_back_earns_its_retries_again() -> None:
    provider = Provider()
    with client(provider) as http_client:
        for _ in range(2 * RETRIES):
            http_client.post(URL, json=CHAT, headers=AGAIN)
        provider.status = 200
        for _ in range(COST):
            http_client.post(URL, json=CHAT)
        before = provider.calls
        http_client.post(URL, json=CHAT, headers=AGAIN)

    assert before + 1 == provider.calls


@pytest.mark.parametrize(
    ("face", "error"),
    [
        (AsyncOpenAIHttpx2, openai.InternalServerError),
        (AnthropicMiddleware, anthropic.InternalServerError),
    ],
    ids=str,
)
def test_an_sdk_raises_its_own_error_once(face: Any, error: Any) -> None:
    with (
        Wire(http(503, DOWN, JSON, "retry-after-ms: 1")) as wire,
        limited(face, wire.url, "1M rpm", retries=RETRIES + 9) as sdk,
    ):
        with pytest.raises(error, match="failed too often lately") as caught:
            sdk.plain()
        again = len(wire.requests)

    assert 503 == caught.value.status_code
    assert 1 + RETRIES == again


def test_a_good_answer_costs_nothing() -> None:
    with (
        Wire(http(200, completion(), JSON)) as wire,
        limited(AsyncOpenAIHttpx2, wire.url, "1M rpm", retries=2) as sdk,
    ):
        for _ in range(3):
            sdk.plain()

    assert 3 == len(wire.requests)
