"""Limits of money at the HTTP door: a budget is never passed, and what is not paid for
comes back."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import anthropic
import httpx2
import openai
import pytest

import ratekeeper
from ratekeeper import (
    AsyncLimiter,
    BudgetExceeded,
    Client,
    ConfigError,
    Limiter,
    NeverPossible,
    PriceUnknown,
    price_book,
)
from ratekeeper.client.attempt import Attempt, Counter
from ratekeeper.providers.catalog import find_provider
from ratekeeper.simulator.server import Simulator, serving
from ratekeeper.stores.memory import MemoryStore
from ratekeeper.testing import ManualClock
from tests.client.clients import KEY
from tests.client.kits import KITS
from tests.client.wire import Wire, completion, delta, events, http, message, usage

PATH = "/chat/completions"
JSON = "content-type: application/json"
ANSWERED = {"content-type": "application/json"}
STREAMED = {"content-type": "text/event-stream"}
MESSAGES: Any = [{"role": "user", "content": "Hi"}]
PRICES = {"m": {"input": "1", "output": "1000"}}  # a thousandth of a dollar a token
CHAT = {"model": "m", "messages": MESSAGES, "max_tokens": 90}


class Case:
    """A budget on a manual clock, without HTTP."""

    def __init__(
        self, *limits: str, provider: str = "deepseek", prices: Any = PRICES
    ) -> None:
        self.limiter = Limiter(
            *limits or ("$1/day",), store=MemoryStore(clock=ManualClock())
        )
        self.counter = Counter(self.limiter, find_provider(provider), prices)

    def ask(
        self, method: str = "POST", path: str = "/v1/chat/completions", **body: Any
    ) -> Any:
        raw = json.dumps({**CHAT, **body}).encode()
        return self.counter.ask(method, path, raw, timeout=0, again=False)

    def begin(self) -> Attempt:
        ask = self.ask()
        return Attempt(self.counter, ask, self.limiter.acquire(**ask.terms))

    def used(self) -> Decimal:
        (row,) = self.limiter.status().values()
        assert isinstance(row.used, Decimal)
        return row.used

    def held(self, **body: Any) -> Decimal:
        """What a call takes while it runs, rounded to output: input is next to nothing."""
        grant = self.limiter.acquire(**self.ask(**body).terms)
        used = self.used()
        grant.cancel()
        return used.quantize(Decimal("0.001"))


# Before the call.


def test_the_most_a_call_may_cost_is_held() -> None:
    assert Decimal("0.090") == Case().held()
    assert Decimal("0.270") == Case().held(n=3)


def test_a_call_without_a_bound_holds_the_models_longest_answer() -> None:
    longest = {"m": {**PRICES["m"], "max_output": 700}}
    context: dict[str, Any] = {"m": {**PRICES["m"], "context": 500}}

    assert Decimal("0.700") == Case(prices=longest).held(max_tokens=None)
    assert Decimal("0.500") == Case(prices=context).held(max_tokens=None)


def test_a_call_with_many_prompts_holds_an_answer_to_each() -> None:
    case = Case()
    prompts = ["a", "b", "c", "d"]
    ask = case.ask(path="/v1/completions", prompt=prompts, best_of=2)

    assert 720_000_000 <= ask.terms["usd"] < 730_000_000


MANY: dict[str, Any] = {
    "m": {"input": "1", "output": "1", "max_output": 10},
    "dear": {"input": "1", "output": "500", "context": 100},
    "fee": {"input": "1", "output": "1", "request": "0.01", "max_output": 10},
    "endless": {"input": "1", "output": "1"},
}


@pytest.mark.parametrize(
    ("others", "held"),
    [
        (["m"], "0.000"),
        (["dear"], "0.050"),
        (["m", "dear", 5], "0.050"),
        (["fee", "dear"], "0.060"),
    ],
)
def test_a_call_that_several_models_may_answer_holds_the_dearest(
    others: list[Any], held: str
) -> None:
    case = Case(provider="openrouter", prices=MANY)

    assert Decimal(held) == case.held(models=others, max_tokens=None)


def test_a_model_in_reserve_whose_price_or_answer_is_unknown_refuses_the_call() -> None:
    case = Case(provider="openrouter", prices=MANY)

    with pytest.raises(PriceUnknown, match="'nobody-knows'"):
        case.ask(models=["dear", "nobody-knows"])
    with pytest.raises(PriceUnknown, match="max_output"):
        case.ask(models=["endless"], max_tokens=None)


def test_a_call_whose_answer_has_no_bound_is_refused_until_it_has_one() -> None:
    with pytest.raises(PriceUnknown, match="max_output") as raised:
        Case().ask(max_tokens=None)
    assert "'m'" in str(raised.value)
    assert "$1/day" in str(raised.value)


def test_a_call_dearer_than_the_budget_is_never_possible() -> None:
    case = Case("$0.05/day")

    with pytest.raises(NeverPossible, match=r"\$0\.05/day"):
        case.limiter.acquire(**case.ask().terms)


@pytest.mark.parametrize(
    ("provider", "prices", "model"),
    [
        ("openai", None, "nobody-knows"),
        ("openai", {"m": {"output": "1"}}, "m"),
        ("openai", {"m": {"input": "1"}}, "m"),
        ("holysheep", None, "gpt-4o"),
        ("azure", None, "gpt-4o"),
        ("openai", None, ""),
    ],
)
def test_an_unknown_or_half_known_price_is_refused_and_the_message_says_what_to_give(
    provider: str, prices: Any, model: str
) -> None:
    case = Case(provider=provider, prices=prices)

    with pytest.raises(PriceUnknown, match="give prices=") as raised:
        case.ask(model=model)
    assert model in str(raised.value)
    assert isinstance(raised.value, ConfigError)
    assert 0 == case.used()


def test_other_half_of_the_relays_price_makes_it_whole() -> None:
    case = Case(provider="holysheep", prices={"gpt-4o": {"input": "2.50"}})
    got = case.ask(model="gpt-4o", max_tokens=1_000_000, messages=[])

    assert 15 * 10**9 <= got.terms["usd"] < 15.1 * 10**9


def test_a_budget_in_yuan_counts_dollars_by_the_providers_rate() -> None:
    official = Case("100 cny/day").held()
    relay = Case("100 cny/day", provider="holysheep").held()

    assert Decimal("0.657") == official
    assert Decimal("0.090") == relay


def test_a_currency_without_a_rate_is_refused_when_the_limit_is_set_up() -> None:
    with pytest.raises(ConfigError, match="how much of it buys a dollar"):
        Case("€5/day")
    known = Case("€5/day", prices=price_book(PRICES, rates={"eur": "0.5"}))

    assert Decimal("0.045") == known.held()


def test_two_budgets_in_two_currencies_are_both_kept() -> None:
    terms = Case("$1/day", "$9/month", "350 cny/month").ask().terms

    assert {"usd", "cny"} == {name for name in terms if name in {"usd", "cny"}}
    assert 7.2 * terms["usd"] < terms["cny"] <= 7.3 * terms["usd"] + 2


def test_a_teams_budget_is_counted_beside_an_account_without_one() -> None:
    case = Case("100 rpm")
    team = Limiter("$1/day", store=case.limiter._store)
    raw, options = json.dumps(CHAT).encode(), {"also": [(team, "search")]}
    ask = case.counter.ask(
        "POST", "/v1/chat/completions", raw, timeout=0, again=False, options=options
    )

    assert 90_000_000 <= ask.terms["usd"] < 91_000_000


def test_a_teams_budget_in_a_currency_without_a_rate_is_refused() -> None:
    case = Case("100 rpm")
    options = {"also": [(Limiter("€1/day", store=case.limiter._store), "search")]}

    with pytest.raises(ConfigError, match="how much of it buys a dollar"):
        case.counter.ask("POST", PATH, b"{}", timeout=0, again=False, options=options)


@pytest.mark.parametrize(
    ("method", "path", "provider"),
    [
        ("GET", "/v1/models", "openai"),
        ("DELETE", "/v1/files/f", "openai"),
        ("POST", "/v1/messages/count_tokens", "anthropic"),
    ],
)
def test_what_no_provider_charges_costs_nothing(
    method: str, path: str, provider: str
) -> None:
    assert 0 == Case(provider=provider).ask(method, path).terms["usd"]


def test_a_call_that_is_not_charged_by_tokens_needs_a_price_by_the_call() -> None:
    path = "/v1/images/generations"
    told = Case(prices={"*/images/generations": {"request": "0.04"}})
    free = Case(prices={"*/files": {"request": 0}})

    with pytest.raises(PriceUnknown, match="request"):
        Case(prices={"*": {"input": 1, "output": 1}}).ask(path=path)
    assert 40_000_000 == told.ask(path=path).terms["usd"]
    assert 400_000_000 == told.ask(path=path, n=10).terms["usd"]
    assert 0 == free.ask(path="/v1/files").terms["usd"]


def test_a_faster_answer_has_a_price_of_its_own() -> None:
    path, slow = "/v1/messages", {"m": {"input": "1", "output": "100"}}
    fast = {**slow, "m+fast": {"input": "1", "output": "600"}}
    usual, dear = (
        Case(provider="anthropic", prices=fast).ask(path=path, speed=speed).terms["usd"]
        for speed in ("standard", "fast")
    )

    assert dear > 5 * usual
    with pytest.raises(PriceUnknown, match=r"m\+fast"):
        Case(provider="anthropic", prices=slow).ask(path=path, speed="fast")


# After it.


def test_usage_is_what_is_paid() -> None:
    case = Case()
    attempt = case.begin()
    attempt.answered(ANSWERED)
    attempt.feed(completion(8, 5))
    attempt.end()

    assert Decimal("0.005008") == case.used()


def test_a_call_above_its_bounds_is_paid_in_full() -> None:
    case = Case()
    attempt = case.begin()
    attempt.answered(ANSWERED)
    attempt.feed(completion(0, 500))
    attempt.end()

    assert case.used() > Decimal("0.5")


def test_a_call_never_sent_costs_nothing() -> None:
    case = Case()
    case.begin().unsent()

    assert 0 == case.used()


@pytest.mark.parametrize("status", [400, 401, 402, 404, 429])
def test_an_answer_that_is_a_refusal_costs_nothing(status: int) -> None:
    case = Case()
    case.begin().judge(status, {}, b"{}")

    assert 0 == case.used()


def test_a_429_that_means_overload_costs_nothing_either() -> None:
    case = Case(provider="azure")
    body = {"error": {"message": "The service is experiencing high demand"}}
    case.begin().judge(429, {}, json.dumps(body).encode())

    assert 0 == case.used()


@pytest.mark.parametrize("status", [408, 500, 502, 503, 529])
def test_a_call_that_may_have_been_worked_on_keeps_the_worst_case(status: int) -> None:
    case = Case()
    attempt = case.begin()
    held = case.used()
    attempt.judge(status, {}, b"{}")

    assert held == case.used()


def test_a_call_that_got_no_answer_keeps_the_worst_case() -> None:
    case = Case()
    attempt = case.begin()
    held = case.used()
    attempt.unanswered()

    assert held == case.used()


def test_a_cut_stream_pays_for_what_flowed() -> None:
    case = Case()
    attempt = case.begin()
    attempt.answered(STREAMED)
    for part in events(*(delta("word ") for _ in range(20)), done=False):
        attempt.feed(part)
    attempt.end()

    assert Decimal("0.02") <= case.used() < Decimal("0.05")


def test_a_whole_answer_cut_at_any_byte_keeps_the_worst_case() -> None:
    body = completion(8, 60)
    for at in range(len(body)):
        case = Case()
        attempt = case.begin()
        held = case.used()
        attempt.answered(ANSWERED)
        attempt.feed(body[:at])
        attempt.end()

        assert held == case.used()


def test_of_a_cut_stream_the_input_is_paid_as_it_was_held() -> None:
    caches = {"input": "1", "output": "0", "cache_write": "1000"}
    case = Case(prices={"m": caches})
    attempt = case.begin()
    held = case.used()
    attempt.answered(STREAMED)
    for part in events(delta("word "), done=False):
        attempt.feed(part)
    attempt.end()

    assert held == case.used()


@pytest.mark.parametrize(
    "model",
    [
        "gpt-5-mini",
        "openai/o3",
        "x-ai/grok-4",
        "gemini-2.5-flash",
        "google/gemini-3-pro",
        "gemini-flash-latest",
    ],
)
def test_a_model_that_thinks_unseen_keeps_the_worst_case_until_its_usage_is_told(
    model: str,
) -> None:
    spent = []
    for told in ([], [usage(8, 5)]):
        case = Case("$1/day", "1M tpm", prices={model: PRICES["m"]})
        ask = case.ask(model=model)
        attempt = Attempt(case.counter, ask, case.limiter.acquire(**ask.terms))
        attempt.answered(STREAMED)
        for part in events(delta("word "), *told):
            attempt.feed(part)
        attempt.end()
        spent.append(case.limiter.status()["$1/day"].used)

    unknown, known = spent
    assert unknown > Decimal("0.09")
    assert known < Decimal("0.006")


@pytest.mark.parametrize("answered", [STREAMED, ANSWERED])
def test_what_runs_on_in_the_background_keeps_the_worst_case(answered: Any) -> None:
    """Whoever hangs up fetches the rest with another call."""
    case = Case("$1/day", "1M tpm")
    path = "/v1/responses"
    ask = case.ask(path=path, background=True, stream=True, max_output_tokens=90)
    attempt = Attempt(case.counter, ask, case.limiter.acquire(**ask.terms))
    held = {name: row.used for name, row in case.limiter.status().items()}
    attempt.answered(answered)
    for event in (
        {"type": "response.created", "response": {"status": "queued"}},
        {"type": "response.output_text.delta", "delta": "H"},
    ):
        attempt.feed(b"data: %b\n\n" % json.dumps(event).encode())
    attempt.end()

    assert held == {name: row.used for name, row in case.limiter.status().items()}


def test_a_cut_stream_pays_for_no_more_than_its_bound() -> None:
    case = Case()
    attempt = case.begin()
    held = case.used()
    attempt.answered(STREAMED)
    for part in events(*(delta("w") for _ in range(500)), done=False):
        attempt.feed(part)
    attempt.end()

    assert case.used() <= held


def test_a_cut_stream_without_a_bound_pays_for_what_flowed() -> None:
    case = Case(prices={"m": {**PRICES["m"], "max_output": 700}})
    ask = case.ask(max_tokens=None)
    attempt = Attempt(case.counter, ask, case.limiter.acquire(**ask.terms))
    attempt.answered(STREAMED)
    for part in events(*(delta("word ") for _ in range(200)), done=False):
        attempt.feed(part)
    attempt.end()

    assert Decimal("0.2") <= case.used() < Decimal("0.5")


def test_a_stream_of_which_nothing_flowed_keeps_the_worst_case() -> None:
    case = Case()
    attempt = case.begin()
    held = case.used()
    attempt.answered(STREAMED)
    attempt.end()

    assert held == case.used()


def test_an_error_inside_a_stream_pays_for_what_flowed_before_it() -> None:
    case = Case()
    attempt = case.begin()
    attempt.answered(STREAMED)
    error = {"error": {"code": "rate_limit_exceeded", "message": "later"}}
    for part in events(*(delta("word ") for _ in range(20)), error, done=False):
        attempt.feed(part)
    attempt.end()

    assert Decimal("0.02") <= case.used() < Decimal("0.05")


def test_a_limit_at_once_inside_a_stream_costs_nothing() -> None:
    case = Case()
    attempt = case.begin()
    attempt.answered(STREAMED)
    error = {"error": {"code": "rate_limit_exceeded", "message": "later"}}
    for part in events(error, done=False):
        attempt.feed(part)
    attempt.end()

    assert 0 == case.used()


# At the doors.


@pytest.mark.parametrize("kit", KITS.values(), ids=KITS)
def test_a_spent_budget_is_the_providers_own_refusal_not_to_be_tried_again(
    kit: Any,
) -> None:
    with (
        Wire(http(200, completion(8, 85), JSON)) as wire,
        kit("$0.10/day", prices=PRICES) as ai,
    ):
        first, second = ai.post(f"{wire.url}{PATH}"), ai.post(f"{wire.url}{PATH}")

        assert [200, 429] == [first.status_code, second.status_code]
        assert "false" == second.headers["x-should-retry"]
        assert int(second.headers["retry-after"]) > 3600
        assert 1 == len(wire.requests)


@pytest.mark.parametrize("kit", KITS.values(), ids=KITS)
def test_an_unknown_price_is_a_refusal_an_sdk_shows_and_nothing_is_sent(
    kit: Any,
) -> None:
    with Wire() as wire, kit("$1/day", prices={}) as ai:
        answer = ai.post(f"{wire.url}{PATH}")

        assert 429 == answer.status_code
        assert "false" == answer.headers["x-should-retry"]
        assert "retry-after" not in answer.headers
        assert "no full price of 'm'" in answer.text
        assert not wire.requests


def test_openais_own_client_says_that_the_money_is_spent() -> None:
    client = ratekeeper.http_client("openai", "$0.10/day", prices=PRICES)
    with (
        Wire(http(200, completion(8, 85), JSON)) as wire,
        openai.OpenAI(base_url=wire.url, api_key="sk-x", http_client=client) as ai,
    ):
        ai.chat.completions.create(model="m", messages=MESSAGES, max_tokens=90)

        with pytest.raises(openai.RateLimitError, match=r"\$0\.1/day"):
            ai.chat.completions.create(model="m", messages=MESSAGES, max_tokens=90)
        with pytest.raises(openai.RateLimitError, match="give prices="):
            ai.chat.completions.create(model="x", messages=MESSAGES, max_tokens=90)
        assert 1 == len(wire.requests)


def test_anthropics_middleware_counts_money_too() -> None:
    limiter = Limiter("$0.10/day")
    hook = ratekeeper.anthropic_middleware(limiter, prices=PRICES)
    with (
        Wire(http(200, message(8, 85), JSON)) as wire,
        anthropic.Anthropic(base_url=wire.url, api_key="x", middleware=[hook]) as ai,
    ):
        ai.messages.create(model="m", messages=MESSAGES, max_tokens=90)

        with pytest.raises(anthropic.RateLimitError, match=r"\$0\.1/day"):
            ai.messages.create(model="m", messages=MESSAGES, max_tokens=90)
        with pytest.raises(anthropic.RateLimitError, match="give prices="):
            ai.messages.create(model="x", messages=MESSAGES, max_tokens=90)


def test_the_plain_client_raises_what_happened() -> None:
    limits = ["100 rpm", "$0.10/day"]
    with (
        Wire(http(200, completion(8, 85), JSON)) as wire,
        Client(wire.url, api_key=KEY, limits=limits, prices=PRICES) as ai,
    ):
        ai.chat_completion(**CHAT)
        spent = ai.batch_chat([CHAT, {**CHAT, "model": "x"}])

        assert [BudgetExceeded, PriceUnknown] == [type(one) for one in spent]


def test_a_relays_client_counts_its_dollars_as_yuan() -> None:
    prices = {"gpt-4o": {"input": "2.50"}}
    there = Simulator("holysheep", ["1000 rpm", "1M tpm"])
    with (
        serving(there) as url,
        Client(
            "holysheep", api_key=KEY, base_url=url, limits="1 cny/day", prices=prices
        ) as ai,
    ):
        ai.chat_completion(model="gpt-4o", messages=MESSAGES, max_tokens=90)
        (row,) = ai.limiter.status().values()

    put, out = there.stats["input_tokens_served"], there.stats["output_tokens_served"]
    assert out > 0
    assert (put * Decimal("2.50") + out * Decimal(15)) / 10**6 == row.used


def test_streams_are_paid_by_their_usage() -> None:
    parts = events(delta("a"), usage(8, 5))
    answer = http(200, b"".join(parts), "content-type: text/event-stream")
    with (
        Wire(answer) as wire,
        ratekeeper.http_client("openai", "$1/day", prices=PRICES) as ai,
    ):
        ai.post(f"{wire.url}/chat/completions", json={**CHAT, "stream": True})
        (limiter,) = [ai._transport._door._limiter]  # type: ignore[attr-defined]

        assert Decimal("0.005008") == limiter.status()["$1/day"].used


# Two hundred and fifty-six at once.

BUDGET = "$10/day"
DEAR = {"m": {"input": "100", "output": "1000"}}


def spent(stats: dict[str, Any]) -> Decimal:
    put: int = stats["input_tokens_served"]
    out: int = stats["output_tokens_served"]
    return (put * Decimal(100) + out * Decimal(1000)) / 10**6


def test_256_in_flight_never_spend_more_than_their_budget() -> None:
    there = Simulator("openai", ["1M rpm", "1B tpm"], latency_s=0.02)
    body = {**CHAT, "max_tokens": 100}
    with serving(there) as url:

        async def run() -> list[int]:
            limiter = AsyncLimiter(BUDGET)
            transport = ratekeeper.AsyncLimitedTransport(
                limiter,
                provider="openai",
                prices=DEAR,
                wrap=httpx2.AsyncHTTPTransport(
                    limits=httpx2.Limits(max_connections=256)
                ),
            )
            headers = {"authorization": "Bearer sk-x"}
            async with httpx2.AsyncClient(transport=transport, headers=headers) as ai:

                async def one() -> int:
                    path = f"{url}/chat/completions"
                    answer = await ai.post(path, json=body, timeout=15)
                    return answer.status_code

                async def worker() -> list[int]:
                    return [await one() for _ in range(3)]

                rows = await asyncio.gather(*(worker() for _ in range(256)))
                return [status for row in rows for status in row]

        statuses = asyncio.run(run())

    paid = spent(there.stats)
    assert 0 < statuses.count(429) < len(statuses)
    assert statuses.count(200) == there.stats["by_status"]["200"]
    assert Decimal(9) < paid <= Decimal(10)


def test_threads_of_one_account_keep_its_budget_together() -> None:
    there = Simulator("openai", ["1M rpm", "1B tpm"])
    with (
        serving(there) as url,
        ratekeeper.http_client("openai", "$2/day", prices=DEAR) as ai,
        ThreadPoolExecutor(8) as threads,
    ):

        def call(_: int) -> int:
            path, headers = f"{url}/chat/completions", {"authorization": "Bearer x"}
            return ai.post(path, json=CHAT, headers=headers).status_code

        statuses = list(threads.map(call, range(60)))

    assert {200, 429} == {*statuses}
    assert spent(there.stats) <= 2
