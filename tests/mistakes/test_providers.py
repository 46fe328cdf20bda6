"""What homemade clients get wrong about providers, and what is right."""

from __future__ import annotations

import json

import pytest

from ratekeeper.providers.catalog import PROVIDERS, find_provider
from ratekeeper.providers.facts import RequestFacts

NOW_US = 1_795_000_000_000_000  # 2026-11-18T11:06:40Z


def chat(*contents: object, **fields: object) -> RequestFacts:
    said = [{"role": "user", "content": content} for content in contents]
    body = json.dumps({"model": "gpt-4o", "messages": said, **fields}).encode()
    return find_provider("openai").read_request("POST", "/v1/chat/completions", body)


def test_26_twenty_messages_of_one_character_are_not_free() -> None:
    """`len // 4` gives each of them nothing."""
    facts = chat(*["x"] * 20)

    assert facts.input_tokens >= 20 * 4


def test_26_a_thousand_chinese_characters_are_more_than_a_quarter_of_them() -> None:
    text = "今天天气很好我们一起去公园散步吧" * 63
    facts = chat(text[:1000])

    assert 500 <= facts.input_tokens <= 3 * 1000 + 20


@pytest.mark.parametrize(
    ("content", "least"),
    [
        (None, 0),
        ([{"type": "text", "text": "word " * 100}], 100),
        ([{"type": "text", "text": "word " * 100}] * 3, 300),
        ([{"type": "image_url", "image_url": {"url": "data:," + "A" * 10**6}}], 85),
    ],
)
def test_27_content_of_every_kind_has_an_estimate(content: object, least: int) -> None:
    """None crashes homemade code, a list of parts counts as so many letters."""
    facts = chat("hi", content)

    assert least < facts.input_tokens < 10_000


def test_27_tool_calls_have_an_estimate() -> None:
    call = {"function": {"name": "look_up", "arguments": "word " * 100}}
    said = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    body = json.dumps({"model": "gpt-4o", "messages": said}).encode()
    facts = find_provider("openai").read_request("POST", "/chat/completions", body)

    assert facts.input_tokens > 100


@pytest.mark.parametrize(
    ("name", "charged", "reserved"),
    [
        ("openai", 5000, 5000),  # the greater of the two
        ("deepseek", "both", "both"),
        ("holysheep", 5000, "both"),
        ("https://llm.example.com/v1", "both", "both"),
    ],
)
def test_28_output_is_reserved_as_each_provider_counts_it(
    name: str, charged: int | str, reserved: int | str
) -> None:
    provider = find_provider(name)
    body = (
        b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5000}'
    )
    facts = provider.read_request("POST", "/v1/chat/completions", body)
    both = facts.input_tokens + 5000
    costs = provider.costs(facts)

    assert (both if charged == "both" else charged) == costs.charged["tokens"]
    assert (both if reserved == "both" else reserved) == costs.reserved["tokens"]


def test_28_anthropic_charges_no_output_at_first_and_it_is_held_all_the_same() -> None:
    provider = find_provider("anthropic")
    body = (
        b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5000}'
    )
    costs = provider.costs(provider.read_request("POST", "/v1/messages", body))

    assert (0, 5000) == (
        costs.charged["output_tokens"],
        costs.reserved["output_tokens"],
    )


@pytest.mark.parametrize(
    ("value", "wait_us"),
    [
        ("5", 5_000_000),
        ("1.5", 1_500_000),
        ("0", 0),
        ("Wed, 18 Nov 2026 11:06:50 GMT", 10_000_000),
        ("Wednesday, 18-Nov-26 11:06:50 GMT", 10_000_000),
        ("Wed Nov 18 11:06:50 2026", 10_000_000),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("NaN", None),
        ("inf", None),
        ("1e9", None),
        ("99999999999", None),
    ],
)
def test_31_every_form_of_a_retry_after_is_read_or_ignored(
    value: str, wait_us: int | None
) -> None:
    """`int(header)` crashes on half of them, and the rest sleep for ever."""
    verdict = find_provider("openai").judge(429, {"Retry-After": value}, b"", NOW_US)

    assert wait_us == verdict.retry_after_us


@pytest.mark.parametrize("name", [*PROVIDERS, "https://llm.example.com/v1"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_32_a_missing_header_means_no_figure_at_all(name: str, status: int) -> None:
    """Not 5, 1 or 60 seconds, each in its own corner of the code."""
    verdict = find_provider(name).judge(status, {}, b"", NOW_US)

    assert verdict.retry
    assert verdict.retry_after_us is None
