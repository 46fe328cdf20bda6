"""Where prices come from: the operator, a file in litellm's format, genai-prices."""

from __future__ import annotations

import datetime
import json
import os
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import genai_prices.data_snapshot
import pytest
from genai_prices.types import (
    ConditionalPrice,
    ModelPrice,
    StartDateConstraint,
    TimeOfDateConstraint,
)

from ratekeeper import ConfigError, price_book
from ratekeeper.client import prices
from ratekeeper.client.prices import book_of
from ratekeeper.core.units import NANO
from ratekeeper.providers.facts import Usage
from ratekeeper.providers.pricing import PriceBook
from ratekeeper.providers.quote import Quote


def quote(book: PriceBook, provider: str, model: str, body: bytes = b"") -> Quote:
    quotes = book.quotes(provider, model, "usd")
    assert quotes is not None
    return quotes.of(body)


def written(folder: Path, data: object) -> Path:
    path = folder / "model_prices.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


# genai-prices.


@pytest.mark.parametrize(
    ("provider", "theirs", "model"),
    [
        ("openai", "openai", "gpt-4o"),
        ("openai", "openai", "gpt-4o-mini-2024-07-18"),
        ("openai", "openai", "gpt-4.1"),
        ("openai", "openai", "o3"),
        ("anthropic", "anthropic", "claude-sonnet-4-5-20250929"),
        ("anthropic", "anthropic", "claude-haiku-4-5"),
        ("gemini", "google", "gemini-2.5-pro"),
        ("gemini", "google", "gemini-2.5-flash"),
        ("xai", "x-ai", "grok-3"),
        ("bedrock", "aws", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ],
)
@pytest.mark.parametrize("tokens", [1, 1000, 150_000, 200_001, 900_000])
def test_a_compiled_price_is_the_librarys_own_rounded_up(
    provider: str, theirs: str, model: str, tokens: int
) -> None:
    cached = tokens // 3
    used = Usage(input_tokens=tokens, output_tokens=77, cache_read_tokens=cached)
    truth = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=tokens, output_tokens=77, cache_read_tokens=cached
        ),
        model_ref=model,
        provider_id=theirs,
    ).total_price

    paid = quote(price_book(), provider, model).actual(used)

    assert 0 <= paid - truth * NANO < 1


def test_google_names_models_with_a_path() -> None:
    book = price_book()
    plain = quote(book, "gemini", "gemini-2.5-flash")

    assert plain == quote(book, "gemini", "models/gemini-2.5-flash")
    assert plain == quote(book, "vertex", "publishers/google/models/gemini-2.5-flash")


def test_audio_and_urgent_answers_are_dearer() -> None:
    book = price_book()
    one = Usage(input_tokens=1)
    flash = [
        quote(book, "gemini", "gemini-2.5-flash", body).actual(one)
        for body in (b"", b'{"mimeType": "audio/mp3"}', b'{"mimeType": "video/mp4"}')
    ]
    tiers = [
        quote(book, "openai", "gpt-4.1", b'{"service_tier": "%b"}' % tier).actual(one)
        for tier in (b"default", b"flex", b"priority")
    ]

    assert [300, 1000, 1000] == flash
    assert [2000, 2000, 3500] == tiers


def test_nobody_can_know_what_is_behind_a_deployments_name() -> None:
    book = price_book()

    assert book.quotes("azure", "gpt-4o", "usd") is None
    assert book.quotes("llm.example.com", "gpt-4o", "usd") is None


def test_a_model_nobody_has_listed_is_unknown() -> None:
    assert price_book().quotes("openai", "my-own", "usd") is None


def test_without_the_extra_the_operators_own_prices_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    book = price_book({"gpt-4o": {"input": 1, "output": 1}})

    assert not prices.warm()
    assert book.quotes("openai", "gpt-4o", "usd") is not None
    assert book.quotes("openai", "gpt-4o-mini", "usd") is None


def listed(price: int) -> Any:
    return ModelPrice(input_mtok=Decimal(price), output_mtok=Decimal(1))


PAST, FUTURE = datetime.date(2020, 1, 1), datetime.date(2400, 1, 1)
NIGHT = TimeOfDateConstraint(datetime.time(0, 30), datetime.time(6, 30))


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([(None, 5)], 5),
        ([(None, 5), (StartDateConstraint(PAST), 3)], 3),
        ([(None, 5), (StartDateConstraint(FUTURE), 3)], 5),
        ([(None, 5), (StartDateConstraint(FUTURE), 9)], 9),
        ([(None, 5), (NIGHT, 9)], 9),
        ([(None, 5), (NIGHT, 2)], 5),
        ([(None, 9), (NIGHT, 9), (StartDateConstraint(PAST), 3)], 3),
    ],
)
def test_of_prices_by_date_and_hour_the_highest_from_now_on_counts(
    conditions: list[tuple[Any, int]],
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = SimpleNamespace(
        prices=[ConditionalPrice(when, prices=listed(n)) for when, n in conditions],
        price_variants=None,
        context_window=None,
    )
    maker = SimpleNamespace(find_model=lambda *_, **__: found)
    lists = SimpleNamespace(find_provider=lambda *_: maker, providers=[])
    monkeypatch.setattr(genai_prices.data_snapshot, "get_snapshot", lambda: lists)

    row = quote(price_book(), "openai", "m").rows[0]
    assert expected * 1000 * NANO == row.put


# A file in litellm's format.

FILE: dict[str, Any] = {
    "sample_spec": {"input_cost_per_token": 0, "max_tokens": "a text"},
    "m": {
        "input_cost_per_token": 1e-7,
        "output_cost_per_token": 4e-07,
        "cache_read_input_token_cost": 2.5e-08,
        "cache_creation_input_token_cost": 1.25e-07,
        "cache_creation_input_token_cost_above_1hr": 2e-07,
        "input_cost_per_token_above_200k_tokens": 2e-07,
        "output_cost_per_token_above_200k_tokens": 8e-07,
        "input_cost_per_token_priority": 3e-07,
        "input_cost_per_audio_token": 9e-07,
        "max_input_tokens": 1000,
        "max_output_tokens": 100,
        "litellm_provider": "openai",
    },
    "dashscope/qwen": {
        "litellm_provider": "dashscope",
        "tiered_pricing": [
            {
                "range": [0, 32000.0],
                "input_cost_per_token": 1e-06,
                "output_cost_per_token": 5e-06,
            },
            {"range": [32000.0, 128000.0], "input_cost_per_token": 2e-06},
        ],
    },
    "elsewhere": {"input_cost_per_token": 1, "litellm_provider": "somebody"},
}


def test_a_files_prices_are_read_as_they_are_written(tmp_path: Path) -> None:
    book = price_book(file=written(tmp_path, FILE))
    price = book.price("openai", "m")

    assert price is not None
    base, above = price.tiers
    assert (Fraction("1e-7"), Fraction("4e-7")) == (base.input, base.output)
    assert (200_000, Fraction("2e-7")) == (above.above, above.input)
    assert Fraction("8e-7") == above.output
    assert Fraction("2.5e-8") == above.cache_read  # not named above: as below
    assert (Fraction("1.25e-7"), Fraction("2e-7")) == (
        base.cache_write,
        base.cache_write_1h,
    )
    assert (100, 1000) == (price.max_output, price.context)


def test_a_files_dearer_ways_are_read(tmp_path: Path) -> None:
    book = price_book(file=written(tmp_path, FILE))
    one = Usage(input_tokens=1)
    bodies = (b"", b'"service_tier":"priority"', b'{"type": "input_audio"}')

    assert [100, 300, 900] == [
        quote(book, "openai", "m", body).actual(one) for body in bodies
    ]


def test_a_file_may_price_by_ranges_under_a_providers_name(tmp_path: Path) -> None:
    book = price_book(file=written(tmp_path, FILE))
    found = quote(book, "dashscope", "qwen")

    assert 1000 * 32_000 == found.actual(Usage(input_tokens=32_000))
    assert 2000 * 32_001 + 5000 == found.actual(
        Usage(input_tokens=32_001, output_tokens=1)
    )


def test_one_providers_entry_is_not_anothers(tmp_path: Path) -> None:
    book = price_book(file=written(tmp_path, FILE))

    assert book.price("openai", "elsewhere") is None
    assert book.price("groq", "m") is None


@pytest.mark.parametrize(
    "entry",
    [
        {},
        [],
        "x",
        {"input_cost_per_token": None},
        {"input_cost_per_token": -1e-7, "output_cost_per_token": 1e-7},
        {"input_cost_per_token": "many", "output_cost_per_token": 1e-7},
        {"input_cost_per_token": 1e300, "output_cost_per_token": 1e-7},
        {"input_cost_per_token": True, "output_cost_per_token": 1e-7},
        {"tiered_pricing": "x"},
        {"tiered_pricing": [5, {}, {"range": 5}, {"range": []}, {"range": ["x"]}]},
        {"input_cost_per_token_above_200k_tokens": 1e-7},
        {"max_output_tokens": "8k", "max_input_tokens": -1},
    ],
)
def test_an_entry_that_lacks_a_price_is_unknown_never_nothing(
    entry: object, tmp_path: Path
) -> None:
    book = price_book(file=written(tmp_path, {"my-own": entry}))

    assert book.quotes("openai", "my-own", "usd") is None


@pytest.mark.parametrize(
    "cost",
    [
        "input_cost_per_second",
        "output_cost_per_image",
        "input_cost_per_character",
        "input_cost_per_query",
    ],
)
def test_an_entry_that_charges_by_something_else_makes_tokens_free_for_nobody(
    cost: str, tmp_path: Path
) -> None:
    free = {"input_cost_per_token": 0.0, "output_cost_per_token": 0}
    book = price_book(
        file=written(tmp_path, {"free": {**free, cost: 0}, "own": {**free, cost: 1e-4}})
    )

    assert 0 == quote(book, "openai", "free").worst(1000, 1000)
    assert book.quotes("openai", "own", "usd") is None


def test_tokens_of_images_count_at_their_own_price(tmp_path: Path) -> None:
    entry = {
        "input_cost_per_token": 1e-7,
        "input_cost_per_image_token": 2e-7,
        "output_cost_per_token": 1e-7,
        "output_cost_per_image_token": 3e-6,
    }
    book = price_book(file=written(tmp_path, {"m": entry}))

    assert 200 + 3000 == quote(book, "openai", "m").worst(1, 1)


def test_a_provider_that_left_the_price_list_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lists: Any = genai_prices.data_snapshot.get_snapshot()
    others = [one for one in lists.providers if one.id != "openai"]
    left = genai_prices.data_snapshot.DataSnapshot(others, from_auto_update=False)
    monkeypatch.setattr(genai_prices.data_snapshot, "get_snapshot", lambda: left)

    assert price_book().quotes("openai", "gpt-4o", "usd") is None
    assert price_book().quotes("xai", "grok-3", "usd") is not None


def test_the_price_list_remembers_no_names_of_a_callers() -> None:
    lists: Any = genai_prices.data_snapshot.get_snapshot()
    book = price_book()
    before = len(lists._lookup_cache), len(lists._provider_cache)
    for at in range(50):
        assert book.quotes("openai", f"nobodys-{at}", "usd") is None
        assert book.quotes("openai", f"ft:gpt-4o-mini-2024-07-18:x:{at}", "usd")

    after = len(lists._lookup_cache), len(lists._provider_cache)
    assert sum(after) - sum(before) <= 1


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "5", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"],
    ids=["empty", "words", "list", "number", "deep", "long"],
)
def test_a_file_that_is_none_is_told_by_name(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model_prices\.json"):
        price_book(file=written(tmp_path, text))


def test_a_missing_file_is_told_by_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the prices in"):
        price_book(file=tmp_path / "none.json")


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, FILE)
    os.truncate(path, 2**40)  # holes: nothing is on the disk

    with pytest.raises(ConfigError, match="too large"):
        price_book(file=path)


def test_figures_of_not_a_number_in_a_file_are_no_prices(tmp_path: Path) -> None:
    text = '{"x": {"input_cost_per_token": NaN, "output_cost_per_token": Infinity}}'

    assert price_book(file=written(tmp_path, text)).quotes("openai", "x", "usd") is None


# Whatever stands for a book.


def test_a_mapping_a_path_and_a_book_all_stand_for_one(tmp_path: Path) -> None:
    path = written(tmp_path, FILE)
    book = price_book()

    assert book is book_of(book)
    assert book_of(path).price("openai", "m") is not None
    assert book_of(str(path)).price("openai", "m") is not None
    assert book_of({"x": {"input": 1}}).price("openai", "x") is not None
    assert book_of(None).price("openai", "gpt-4o") is not None
