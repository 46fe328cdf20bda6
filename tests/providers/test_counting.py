"""What each way of counting takes, holds and settles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.providers import counting
from ratekeeper.providers.facts import (
    UNSET_OUTPUT,
    Counting,
    Endpoint,
    RequestFacts,
    Usage,
)

FACTS = RequestFacts(endpoint=Endpoint.CHAT, input_tokens=100, max_output=400)
SHORT = RequestFacts(endpoint=Endpoint.CHAT, input_tokens=100, max_output=30)
USED = Usage(input_tokens=120, output_tokens=60, cache_read_tokens=50)
OVER = Usage(input_tokens=90, output_tokens=900)
UNITS = {"requests", "tokens", "input_tokens", "output_tokens"}

Facts = st.builds(
    RequestFacts,
    endpoint=st.sampled_from(Endpoint),
    input_tokens=st.integers(0, 10**6),
    max_output=st.none() | st.integers(0, 10**6),
    likely_output=st.integers(1, 10**6),  # a guess, or what has been seen
    choices=st.integers(1, 5),
)
Used = st.builds(
    Usage,
    input_tokens=st.integers(0, 10**6),
    output_tokens=st.integers(0, 10**6),
    cache_read_tokens=st.integers(0, 10**6),
    cache_write_tokens=st.integers(0, 10**6),
    cache_write_1h_tokens=st.none(),
    reasoning_tokens=st.just(0),
)


def settle(way: Counting, facts: RequestFacts, usage: Usage) -> dict[str, int]:
    free = way is Counting.GENERATED
    return counting.charged(way, facts, usage, cached_free=free)


@pytest.mark.parametrize(
    ("way", "facts", "charged", "reserved", "used", "over"),
    [
        (Counting.GREATER, FACTS, 400, 400, 400, 400),
        (Counting.GREATER, SHORT, 100, 100, 100, 100),
        (Counting.RELAY, FACTS, 400, 500, 400, 990),
        (Counting.RELAY, SHORT, 100, 130, 180, 990),
        (Counting.SUM, FACTS, 500, 500, 180, 990),
        (Counting.INPUT, FACTS, 100, 100, 120, 90),
        (Counting.GENERATED, FACTS, 100, 500, 130, 990),
        (Counting.FIXED, FACTS, 500, 500, 500, 500),
        (Counting.FIXED, SHORT, 130, 130, 130, 130),
        (Counting.BURNDOWN, FACTS, 500, 500, 180, 990),
    ],
)
def test_tokens_are_counted_as_the_provider_counts(
    way: Counting,
    facts: RequestFacts,
    charged: int,
    reserved: int,
    used: int,
    over: int,
) -> None:
    costs = counting.costs(way, facts)

    assert (charged, reserved) == (costs.charged["tokens"], costs.reserved["tokens"])
    assert (used, over) == (
        settle(way, facts, USED)["tokens"],
        settle(way, facts, OVER)["tokens"],
    )


def test_generated_output_takes_nothing_at_first_and_is_held() -> None:
    costs = counting.costs(Counting.GENERATED, FACTS)
    settled = settle(Counting.GENERATED, FACTS, USED)

    assert (0, 400) == (costs.charged["output_tokens"], costs.reserved["output_tokens"])
    assert (70, 60) == (settled["input_tokens"], settled["output_tokens"])


def test_cached_input_counts_for_the_one_model_where_it_does() -> None:
    facts = RequestFacts(
        endpoint=Endpoint.MESSAGES, model="claude-3-5-haiku-latest", input_tokens=100
    )

    assert 120 == settle(Counting.GENERATED, facts, USED)["input_tokens"]


@pytest.mark.parametrize(
    ("model", "factor"),
    [
        ("claude-3-7-sonnet-20250219-v1:0", 5),
        ("claude-sonnet-4-6", 5),
        ("claude-opus-4-7-v1:0", 5),
        ("claude-opus-4-8-v1:0", 15),
        ("claude-sonnet-5-v1:0", 10),
        ("claude-fable-5-1-v1:0", 10),
        ("openai.gpt-5.6", 10),
        ("amazon.nova-pro-v1:0", 1),
        ("claude-3-5-sonnet-20241022-v2:0", 1),
        ("", 1),
    ],
)
def test_output_burns_down_at_the_models_rate_when_the_call_has_ended(
    model: str, factor: int
) -> None:
    facts = RequestFacts(
        endpoint=Endpoint.CONVERSE, model=model, input_tokens=3000, max_output=32_000
    )
    used = Usage(input_tokens=4000, output_tokens=1000, cache_read_tokens=500)
    settled = counting.charged(Counting.BURNDOWN, facts, used, cached_free=True)

    assert 35_000 == counting.costs(Counting.BURNDOWN, facts).charged["tokens"]
    assert 3500 + 1000 * factor == settled["tokens"]
    assert 1000 == settled["output_tokens"]


def test_bedrock_holds_all_a_model_may_write_where_nobody_bounds_it() -> None:
    facts = RequestFacts(endpoint=Endpoint.CONVERSE, input_tokens=100)
    costs = counting.costs(Counting.BURNDOWN, facts)

    assert 100 + UNSET_OUTPUT == costs.charged["tokens"]
    assert 64_100 == costs.reserved["tokens"]


def test_a_call_without_a_bound_holds_a_guess() -> None:
    facts = RequestFacts(endpoint=Endpoint.CHAT, input_tokens=100, choices=2)

    assert 100 == counting.costs(Counting.GREATER, facts).reserved["tokens"]
    assert (
        100 + 2 * UNSET_OUTPUT == counting.costs(Counting.SUM, facts).reserved["tokens"]
    )


def test_every_choice_may_be_as_long_as_the_bound() -> None:
    facts = RequestFacts(
        endpoint=Endpoint.CHAT, input_tokens=100, max_output=400, choices=3
    )

    assert 1200 == counting.costs(Counting.GREATER, facts).charged["tokens"]
    assert 1300 == counting.costs(Counting.SUM, facts).charged["tokens"]


@pytest.mark.parametrize("way", Counting)
def test_other_calls_are_requests_and_counting_tokens_is_not_even_that(
    way: Counting,
) -> None:
    other = counting.costs(way, RequestFacts(endpoint=Endpoint.OTHER))
    count = counting.costs(way, RequestFacts(endpoint=Endpoint.COUNT_TOKENS))

    assert {"requests": 1, "tokens": 0, "input_tokens": 0, "output_tokens": 0} == (
        other.reserved
    )
    assert {0} == set(count.reserved.values())


def test_a_stream_cut_short_is_charged_what_flowed() -> None:
    assert (120, 20) == (
        counting.partial(Counting.SUM, FACTS, 20)["tokens"],
        counting.partial(Counting.SUM, FACTS, 20)["output_tokens"],
    )
    assert 400 == counting.partial(Counting.GREATER, FACTS, 20)["tokens"]
    assert 500 == counting.partial(Counting.SUM, FACTS, 10_000)["tokens"]


@given(st.sampled_from(Counting), Facts)
def test_what_is_held_is_never_less_than_what_is_charged(
    way: Counting, facts: RequestFacts
) -> None:
    costs = counting.costs(way, facts)

    assert UNITS == set(costs.charged) == set(costs.reserved)
    assert all(costs.reserved[unit] >= costs.charged[unit] >= 0 for unit in UNITS)


@given(st.sampled_from(Counting), Facts, Used)
def test_what_does_not_come_back_is_never_settled_below_its_charge(
    way: Counting, facts: RequestFacts, usage: Usage
) -> None:
    settled = settle(way, facts, usage)
    at_first = counting.costs(way, facts).charged

    assert set(at_first) == set(settled)
    assert all(amount >= 0 for amount in settled.values())
    assert settled["requests"] == at_first["requests"]
    if way in {Counting.GREATER, Counting.RELAY}:
        assert settled["tokens"] >= at_first["tokens"]


@given(st.sampled_from(Counting), Facts, st.integers(1, 10**6))
def test_what_flowed_is_never_free(
    way: Counting, facts: RequestFacts, flowed: int
) -> None:
    settled = counting.partial(way, facts, flowed)

    assert settled["requests"] == counting.costs(way, facts).charged["requests"]
    if facts.endpoint is Endpoint.CHAT and facts.max_output != 0:
        assert settled["output_tokens"] > 0


@given(st.sampled_from(Counting), Facts)
def test_where_nothing_flowed_the_reservation_stands(
    way: Counting, facts: RequestFacts
) -> None:
    assert {} == counting.partial(way, facts, 0)
