"""Prices: never below what the list says, at most a billionth above, never a guess."""

from __future__ import annotations

import itertools
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.units import NANO
from ratekeeper.errors import ConfigError
from ratekeeper.providers.facts import Endpoint, RequestFacts, Usage
from ratekeeper.providers.pricing import (
    MOST_QUOTES,
    MOST_RATE,
    Price,
    PriceBook,
    Rates,
    figure,
    read_price,
)
from ratekeeper.providers.quote import Quote

PRICES = st.decimals("0", "1000", places=6, allow_nan=False)
TOKENS = st.integers(0, 2_000_000)


def quote(said: dict[str, Any], model: str = "m", body: bytes = b"") -> Quote:
    quotes = PriceBook({model: said}).quotes("openai", model, "usd")
    assert quotes is not None
    return quotes.of(body)


def facts(most: int | None = None, choices: int = 1) -> RequestFacts:
    return RequestFacts(endpoint=Endpoint.CHAT, max_output=most, choices=choices)


@st.composite
def calls(draw: st.DrawFn) -> tuple[int, int, Usage]:
    """Bounds, and a usage within them."""
    put, out = draw(TOKENS), draw(TOKENS)
    used = draw(st.integers(0, put))
    written = draw(st.integers(0, used))
    usage = Usage(
        input_tokens=used,
        output_tokens=draw(st.integers(0, out)),
        cache_read_tokens=draw(st.integers(0, used)),
        cache_write_tokens=written,
        cache_write_1h_tokens=draw(st.none() | st.integers(0, written)),
    )
    return put, out, usage


# Arithmetic.


@given(PRICES, PRICES, PRICES, PRICES, PRICES, calls())
def test_what_a_call_costs_is_never_above_what_was_held_for_it(
    put: Decimal,
    out: Decimal,
    read: Decimal,
    write: Decimal,
    long: Decimal,
    call: tuple[int, int, Usage],
) -> None:
    said = {
        "input": put,
        "output": out,
        "cache_read": read,
        "cache_write": write,
        "cache_write_1h": long,
        "request": "0.001",
    }
    found = quote(said)
    worst = found.worst(call[0], call[1])

    assert worst is not None
    assert found.actual(call[2]) <= worst


@given(PRICES, PRICES, PRICES, PRICES, calls())
def test_a_sum_is_never_below_the_truth_and_at_most_a_billionth_a_part_above(
    put: Decimal,
    out: Decimal,
    read: Decimal,
    write: Decimal,
    call: tuple[int, int, Usage],
) -> None:
    usage = call[2]
    said = {"input": put, "output": out, "cache_read": read, "cache_write": write}
    cached = usage.cache_read_tokens
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    plain = usage.input_tokens - cached - written
    counts = (plain, usage.output_tokens, cached, written)
    truth = sum(
        Fraction(rate) * n
        for rate, n in zip((put, out, read, write), counts, strict=True)
    ) * Fraction(NANO, 10**6)
    paid = quote(said).actual(usage)

    assert truth <= paid <= truth + len(counts)


@given(PRICES, st.sampled_from(["7.3", "0.92", "150.07", "3"]), TOKENS)
def test_another_currency_is_rounded_up_by_less_than_a_billionth(
    price: Decimal, rate: str, tokens: int
) -> None:
    book = PriceBook({"m": {"input": price}}, rates={"eur": rate})
    quotes = book.quotes("openai", "m", "eur")
    truth = Fraction(price) * Fraction(rate) * tokens * Fraction(NANO, 10**6)

    assert quotes is not None
    paid = quotes.usual.actual(Usage(input_tokens=tokens))
    assert truth <= paid <= truth + 2


def test_fractions_of_a_billionth_are_not_lost() -> None:
    found = quote({"input": "0.0028", "output": "0"})  # 2.8 billionths a token

    assert 28 == found.actual(Usage(input_tokens=10))
    assert 3 == found.actual(Usage(input_tokens=1))


def test_reasoning_is_part_of_the_output_and_not_paid_twice() -> None:
    usage = Usage(output_tokens=10, reasoning_tokens=9)

    assert 10_000 == quote({"input": 1, "output": 1}).actual(usage)


def test_writing_a_cache_for_an_hour_costs_what_the_list_says() -> None:
    said = {"input": 1, "output": 1, "cache_write": 2, "cache_write_1h": 3}
    known = Usage(input_tokens=10, cache_write_tokens=10, cache_write_1h_tokens=4)
    untold = Usage(input_tokens=10, cache_write_tokens=10)

    assert 6 * 2000 + 4 * 3000 == quote(said).actual(known)
    assert 10 * 3000 == quote(said).actual(untold)


@pytest.mark.parametrize(
    ("model", "costs"), [("gpt-4o", 1000), ("Claude-sonnet-4-5", 2000)]
)
def test_a_cache_without_a_price_is_never_cheaper_than_its_maker(
    model: str, costs: int
) -> None:
    usage = Usage(input_tokens=1, cache_write_tokens=1)
    long = quote({"input": 1, "output": 1, "cache_write": "2.5"}, "claude-3")

    assert costs == quote({"input": 1, "output": 1}, model).actual(usage)
    assert 2500 == long.actual(usage)


def test_a_call_above_a_threshold_is_priced_by_it_as_a_whole() -> None:
    tiers = (
        Rates(input=Fraction(1), output=Fraction(2)),
        Rates(above=100, input=Fraction(3), output=Fraction(4)),
    )
    book = PriceBook(sources=[lambda *_: Price(tiers=tiers)])
    quotes = book.quotes("openai", "m", "usd")
    assert quotes is not None
    found = quotes.usual

    assert 100 * NANO == found.actual(Usage(input_tokens=100))
    assert 303 * NANO == found.actual(Usage(input_tokens=101))
    assert 100 * NANO == found.worst(100, 0)
    assert (303 + 4) * NANO == found.worst(101, 1)


# The longest answer.


def test_the_bound_of_a_request_counts_for_each_choice() -> None:
    assert 30 == quote({"input": 1, "output": 1}).longest(facts(10, 3))


def test_without_a_bound_the_models_longest_answer_counts_else_its_context() -> None:
    price = {"input": 1, "output": 1}

    assert 200 == quote({**price, "max_output": 100}).longest(facts(None, 2))
    assert 100 == quote({**price, "context": 100}).longest(facts())
    assert quote(price).longest(facts()) is None


def test_a_bound_of_0_is_none_as_some_relays_drop_it() -> None:
    price = {"input": 1, "output": 1}
    embeds = RequestFacts(endpoint=Endpoint.EMBEDDINGS, max_output=0)

    assert quote(price).longest(facts(0)) is None
    assert 100 == quote({**price, "max_output": 100}).longest(facts(0))
    assert 0 == quote(price).longest(embeds)


# Half a price is none.


def test_half_a_price_is_none() -> None:
    book = PriceBook({"a": {"output": 1}, "b": {"input": 1}})
    half = book.quotes("openai", "b", "usd")

    assert book.quotes("openai", "a", "usd") is None
    assert half is not None
    assert half.usual.worst(10, 1) is None
    assert 10_000 == half.usual.worst(10, 0)  # an embedding has no output
    assert 10_000 == half.usual.actual(Usage(input_tokens=10))


def test_the_relays_list_names_output_alone_until_the_operator_adds_input() -> None:
    bare = PriceBook()
    told = PriceBook({"gpt-4o": {"input": "2.50"}})
    whole = told.quotes("holysheep", "gpt-4o", "usd")

    assert bare.price("holysheep", "gpt-4o") is not None
    assert bare.quotes("holysheep", "gpt-4o", "usd") is None
    assert bare.price("openai", "gpt-4o") is None
    assert bare.price("holysheep", "gpt-9") is None
    assert whole is not None
    assert 2500 + 15_000 == whole.usual.worst(1, 1)


@pytest.mark.parametrize(
    ("provider", "dollar"), [("holysheep", NANO), ("openai", 7_300_000_000)]
)
def test_a_yuan_buys_a_dollar_at_the_relay_alone(provider: str, dollar: int) -> None:
    book = PriceBook({"m": {"input": 10**6, "output": 1}})
    quotes = book.quotes(provider, "m", "cny")

    assert quotes is not None
    assert dollar == quotes.usual.actual(Usage(input_tokens=1))


def test_a_price_may_be_in_the_currency_of_the_budget_or_another() -> None:
    said = {"input": "7.3", "output": 1, "currency": "CNY"}
    book = PriceBook({"m": said}, rates={"openai/cny": "7.3"})
    own, dollars = (book.quotes("openai", "m", code) for code in ("cny", "usd"))

    assert own is not None
    assert dollars is not None
    assert 7300 == own.usual.actual(Usage(input_tokens=1))
    assert 1000 == dollars.usual.actual(Usage(input_tokens=1))


def test_without_a_rate_a_price_in_another_currency_is_unknown() -> None:
    book = PriceBook({"m": {"input": 1, "output": 1}})

    assert book.rate("openai", "eur") is None
    assert book.quotes("openai", "m", "eur") is None


def test_what_a_model_costs_when_it_is_faster_is_told_apart() -> None:
    slow = {"claude*": {"input": 5, "output": 25}}
    fast = {"claude-opus-4-6+fast": {"input": 30, "output": 150}}
    more = {"anthropic/claude*+fast": {"input": 30, "output": 150}}
    name = "claude-opus-4-6+fast"

    assert PriceBook(slow).price("anthropic", name) is None
    for told in (fast, more):
        quotes = PriceBook({**slow, **told}).quotes("anthropic", name, "usd")
        assert quotes is not None
        assert 30_000 == quotes.usual.actual(Usage(input_tokens=1))


def test_a_fee_may_be_for_each_of_several_things() -> None:
    fee = quote({"request": "0.04"})
    free = quote({"input": 1, "output": 1})

    assert (40_000_000, 400_000_000) == (fee.worst(0, 0), fee.each(10).worst(0, 0))
    assert free is free.each(10)
    assert fee is fee.each(1)


def test_a_fee_for_each_call_is_a_price_of_its_own() -> None:
    alone = quote({"request": "0.04"})

    assert 40_000_000 == alone.actual(Usage())
    assert 40_000_000 == alone.worst(1000, 1000)
    assert 40_000_000 + 2000 == quote(
        {"input": 1, "output": 1, "request": "0.04"}
    ).worst(1, 1)


def test_a_fee_beside_half_a_price_is_still_half_a_price() -> None:
    book = PriceBook({"m": {"output": 1, "request": 1}})

    assert book.quotes("openai", "m", "usd") is None


# Whose word counts.


def listed(**rates: int) -> Price:
    return Price(tiers=(Rates(**{k: Fraction(v) for k, v in rates.items()}),))  # type: ignore[arg-type]


def test_the_operators_word_comes_first_and_the_lists_fill_in_the_rest() -> None:
    low = Price(
        tiers=(
            Rates(input=Fraction(1), output=Fraction(2), cache_read=Fraction(0)),
            Rates(above=9, input=Fraction(3), output=Fraction(4)),
        ),
        context=50,
        request=Fraction(7),
        dearer=((b"tier", b"fast", (Rates(input=Fraction(8), output=Fraction(9)),)),),
    )
    book = PriceBook({"m": {"input": 10**6}}, sources=[lambda *_: low])
    price = book.price("openai", "m")

    assert price is not None
    assert [1, 1] == [row.input for row in price.tiers]
    assert [2, 4] == [row.output for row in price.tiers]
    assert price.tiers[0].cache_read is None  # of an input at another price
    assert 50 == price.context
    assert 7 == price.request
    assert [1, 9] == [price.dearer[0][2][0].input, price.dearer[0][2][0].output]


def test_a_whole_price_takes_only_bounds_from_the_lists() -> None:
    low = Price(tiers=(Rates(above=0), Rates(above=9)), max_output=5, context=50)
    book = PriceBook({"m": {"input": 1, "output": 1}}, sources=[lambda *_: low])
    price = book.price("openai", "m")

    assert price is not None
    assert 1 == len(price.tiers)
    assert (5, 50) == (price.max_output, price.context)


def test_an_output_of_the_operators_leaves_the_lists_input() -> None:
    low = listed(input=1, output=2, cache_read=0)
    book = PriceBook({"m": {"output": 5 * 10**6}}, sources=[lambda *_: low])
    price = book.price("openai", "m")

    assert price is not None
    assert [1, 5, 0] == [
        price.tiers[0].input,
        price.tiers[0].output,
        price.tiers[0].cache_read,
    ]


def test_lists_in_different_currencies_are_not_mixed() -> None:
    book = PriceBook(
        {"m": {"input": 1, "currency": "cny"}},
        sources=[lambda *_: listed(input=1, output=2)],
    )

    quotes = book.quotes("openai", "m", "usd")
    assert quotes is not None
    assert quotes.usual.worst(1, 1) is None


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("gpt-x", 1),
        ("GPT-X", 1),
        ("gpt-x-2026-08-06", 1),
        ("gpt-x-20260806", 1),
        ("gpt-x@20260806", 1),
        ("gpt-y", 2),
        ("gpt-y-2026-08-06", 3),
        ("gpt-z-mini", 4),
        ("other", None),
        ("2026-08-06", None),
    ],
)
def test_models_are_found_by_name_by_date_and_by_pattern(
    model: str, found: int | None
) -> None:
    book = PriceBook(
        {
            "gpt-x": {"input": 1},
            "gpt-y": {"input": 9},
            "openai/GPT-Y": {"input": 2},
            "gpt-y-2026-08-06": {"input": 3},
            "openai/gpt-z*": {"input": 4},
        }
    )
    price = book.price("openai", model)

    assert found == (price and price.tiers[0].input and price.tiers[0].input * 10**6)


def test_a_pattern_of_one_provider_is_not_another_ones() -> None:
    assert PriceBook({"openai/gpt*": {"input": 1}}).price("groq", "gpt-4o") is None


def test_a_request_that_asks_for_more_pays_more() -> None:
    price = Price(
        tiers=(Rates(input=Fraction(1), output=Fraction(1)),),
        dearer=(
            (b"tier", b"fast", (Rates(input=Fraction(2), output=Fraction(2)),)),
            (b"tier", b"urgent", (Rates(input=Fraction(3), output=Fraction(3)),)),
            (b"audio", b"", (Rates(input=Fraction(4), output=Fraction(4)),)),
        ),
    )
    quotes = PriceBook(sources=[lambda *_: price]).quotes("openai", "m", "usd")
    assert quotes is not None
    bodies = (b"", b"fast", b"tier fast", b"tier urgent", b"tier", b"tier audio")

    assert [1, 1, 2, 3, 1, 4] == [
        quotes.of(body).actual(Usage(input_tokens=1)) // NANO for body in bodies
    ]


def test_a_dearer_way_whose_price_is_unknown_makes_the_model_unknown() -> None:
    price = Price(
        tiers=(Rates(input=Fraction(1), output=Fraction(1)),),
        dearer=((b"tier", b"fast", (Rates(),)),),
    )

    assert PriceBook(sources=[lambda *_: price]).quotes("openai", "m", "usd") is None


def test_a_model_is_looked_up_once_and_what_is_remembered_has_a_bound() -> None:
    asked = itertools.count()

    def source(provider: str, model: str) -> Price | None:
        next(asked)
        return None

    book = PriceBook(sources=[source])
    for _ in range(3):
        book.quotes("openai", "m", "usd")
    once = next(asked)
    for n in range(MOST_QUOTES + 1):
        book.quotes("openai", f"m{n}", "usd")

    assert 1 == once
    assert len(book._quotes) <= MOST_QUOTES


# What is no price.

NO_NUMBERS = ("nan", "NaN", "inf", "-inf", "", "1,5", "$2", "ten", "1e999999", "1e-99")
NO_KINDS: tuple[object, ...] = (True, None, [], b"1")
NO_PRICES = ("-1", "9" * 70, 10**70, -1, -0.5, "1e12", *NO_KINDS)
NO_FIGURES = (*NO_NUMBERS, *NO_PRICES, float("nan"), float("inf"), Decimal("sNaN"))
FIGURES = (
    (0, "0"),
    ("0", "0"),
    (2.5, "2.5"),
    (0.1, "0.1"),
    (1e-7, "1e-7"),
    ("1e-7", "1e-7"),
    (1000, "1000"),
    (" 1 ", "1"),
    (Decimal("0.1"), "0.1"),
)


@pytest.mark.parametrize("value", NO_FIGURES, ids=repr)
def test_what_is_no_price_is_none(value: object) -> None:
    assert figure(value, MOST_RATE) is None


@pytest.mark.parametrize(("value", "expected"), FIGURES, ids=repr)
def test_a_price_is_what_is_written(value: object, expected: str) -> None:
    assert Fraction(expected) == figure(value, MOST_RATE)


@given(st.text(max_size=80) | st.floats() | st.integers() | st.decimals())
def test_whatever_is_given_is_a_price_in_range_or_none(value: object) -> None:
    found = figure(value, MOST_RATE)

    assert found is None or 0 <= found <= MOST_RATE


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("2.50", "expected prices"),
        ({"inptu": 1}, "'inptu' is not known"),
        ({"input": "-1"}, "input is no price"),
        ({"output": "garbage"}, "output is no price"),
        ({"request": "nan"}, "request is no price"),
        ({"input": 1, "currency": "dollars"}, "ISO 4217"),
        ({"input": 1, "currency": 5}, "ISO 4217"),
        ({"cache_read": 1, "output": 1}, "input is not"),
        ({"max_output": 0}, "max_output is a number"),
        ({"context": 1.5}, "context is a number"),
        ({"context": True}, "context is a number"),
    ],
)
def test_a_mistake_in_a_price_names_the_model_and_the_word(
    said: Any, word: str
) -> None:
    with pytest.raises(ConfigError, match=word) as raised:
        read_price("my-model", said)
    assert "my-model" in str(raised.value)


@pytest.mark.parametrize("models", [["gpt-4o"], {5: {}}, {"": {}}, "gpt-4o"])
def test_prices_are_a_mapping_by_model(models: Any) -> None:
    with pytest.raises(ConfigError, match=r"mapping|name of a model"):
        PriceBook(models)


@pytest.mark.parametrize(
    "rates", [["eur"], {"eur": 0}, {"eur": "x"}, {"dollar": 1}, {"x/y": 1}, {5: 1}]
)
def test_rates_are_a_mapping_by_currency(rates: Any) -> None:
    with pytest.raises(ConfigError, match="rate"):
        PriceBook(rates=rates)


def test_a_number_of_ten_thousand_digits_is_no_price() -> None:
    assert figure(10**10_000, MOST_RATE) is None


WAYS = PriceBook(
    sources=[
        lambda *_: Price(
            tiers=(Rates(input=Fraction(1), output=Fraction(1)),),
            dearer=(
                (b"audio", b"", (Rates(input=Fraction(3), output=Fraction(1)),)),
                (
                    b'"service',
                    b'"priority"',
                    (
                        Rates(input=Fraction(2), output=Fraction(4)),
                        Rates(above=9, input=Fraction(5), output=Fraction(4)),
                    ),
                ),
                (b'"mute"', b"", (Rates(input=Fraction(1)),)),
            ),
        )
    ]
)


def ways(body: bytes) -> Quote:
    quotes = WAYS.quotes("openai", "m", "usd")
    assert quotes is not None
    return quotes.of(body)


def test_a_request_that_is_dearer_in_two_ways_pays_the_higher_of_each() -> None:
    both = ways(b'{"service_tier": "priority", "x": "audio"}')

    assert 3 + 4 == both.actual(Usage(input_tokens=1, output_tokens=1)) // NANO
    assert 10 * 5 == both.actual(Usage(input_tokens=10)) // NANO


def test_of_two_ways_one_of_which_has_no_output_nobody_knows_the_output() -> None:
    both = ways(b'{"mute": "audio"}')

    assert both.worst(1, 1) is None
    assert 3 * NANO == both.worst(1, 0)


@pytest.mark.parametrize(
    "body",
    [
        b'{"\\u0073ervice_tier": "priority"}',
        b'{"service_tier": "\\u0070riority"}',
        b'{"service_tier": "priority", "x": "\\u00e9"}',
    ],
)
def test_an_escape_hides_no_dearer_way(body: bytes) -> None:
    assert 2 * NANO == ways(body).actual(Usage(input_tokens=1))


def test_a_body_that_is_no_json_is_read_as_it_is() -> None:
    hidden = b'\\u0073 "service_tier": "priority"'

    assert 2 * NANO == ways(hidden).actual(Usage(input_tokens=1))
    assert NANO == ways(b"\\u0073ervice").actual(Usage(input_tokens=1))


def test_names_longer_than_any_are_not_remembered() -> None:
    book = PriceBook({"*": {"input": 1, "output": 1}})
    for at in range(3):
        assert book.quotes("openai", f"{at}" * 1_000_000, "usd") is not None
    book.quotes("openai", "m", "usd")

    assert 1 == len(book._quotes)
