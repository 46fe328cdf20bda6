"""Exact counts: only where asked for, only where a tokenizer is known."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ratekeeper import count_exactly
from ratekeeper.client.tokens import FAMILIES
from ratekeeper.errors import ConfigError
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.estimate import EXACT, PER_MESSAGE, Prompt

toktok: Any = importlib.import_module("toktok")  # it has no types
TEXT = "Exactly as many tokens as it has: 完全一样多的词元, not one more."


@pytest.fixture(autouse=True)
def _afterwards_nothing_is_counted() -> Iterator[None]:
    yield
    EXACT.clear()


# A model of each family of tokenizers.
MODELS = {
    "o200k": "gpt-4o",
    "cl100k": "gpt-4",
    "qwen": "qwen3-max",
    "claude": "claude-opus-4-8",
}


def tokens(text: str, family: str) -> int:
    prompt = Prompt(model=MODELS[family])
    prompt.add(text)
    return prompt.estimate().upper()


@pytest.mark.parametrize(
    ("family", "encoding"),
    [("o200k", "o200k_base"), ("cl100k", "cl100k_base"), ("qwen", "qwen3.5")],
)
def test_a_prompt_counts_as_its_tokenizer_counts_it(family: str, encoding: str) -> None:
    text = TEXT * 20
    count_exactly()

    assert toktok.batch_count([text], encoding)[0] == tokens(text, family)


def test_a_request_counts_as_its_texts_and_its_frame() -> None:
    text = TEXT * 20
    said = [{"role": "user", "content": text}]
    body = json.dumps({"model": "gpt-4o", "messages": said}).encode()
    count_exactly(["o200k"])
    facts = find_provider("openai").read_request("POST", "/chat/completions", body)
    exact = toktok.batch_count([text], "o200k_base")[0]

    assert exact + 2 * PER_MESSAGE == facts.input_tokens


# Requests whose usage is on record: OpenAI's cookbook ("How to count tokens with
# tiktoken"), and calls of a tool, once, twice and three times, from OpenAI's forum.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates "
        "corporate jargon into plain English.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "New synergies will help drive top-line growth.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on "
        "opportunities for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for "
        "the client deliverable.",
    },
]
WEATHER = [
    {
        "role": "system",
        "content": "You are a helpful assistant that can answer to questions about "
        "the weather.",
    },
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
PLACE = {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}
UNIT = {
    "type": "string",
    "description": "The unit of temperature to return",
    "enum": ["celsius", "fahrenheit"],
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {"location": PLACE, "unit": UNIT},
            "required": ["location"],
        },
    },
}
SUM = [{"role": "user", "content": [{"type": "text", "text": "How much is 2 plus 2?"}]}]
CALLED = [
    {
        "role": "assistant",
        "tool_calls": [
            {
                "id": "a",
                "type": "function",
                "function": {"name": "calculator", "arguments": '{"a":2, "b":2}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "4"},
]


@pytest.mark.parametrize("provider", ["openai", "openrouter"])
@pytest.mark.parametrize(
    ("request_", "counted"),
    [
        ({"model": "gpt-4", "messages": JARGON}, 129),
        ({"model": "gpt-4o", "messages": JARGON}, 124),
        ({"model": "gpt-4", "messages": WEATHER, "tools": [TOOL]}, 105),
        ({"model": "gpt-4o", "messages": WEATHER, "tools": [TOOL]}, 101),
        ({"model": "gpt-3.5-turbo", "messages": SUM + CALLED}, 40),
        ({"model": "gpt-3.5-turbo", "messages": SUM + 2 * CALLED}, 89),
        ({"model": "gpt-3.5-turbo", "messages": SUM + 3 * CALLED}, 114),
    ],
)
def test_what_is_counted_exactly_is_never_below_the_usage_on_record(
    provider: str, request_: dict[str, Any], counted: int
) -> None:
    count_exactly()
    body = json.dumps(request_).encode()
    facts = find_provider(provider).read_request("POST", "/chat/completions", body)

    assert counted <= facts.input_tokens <= 2 * counted + 9


def test_an_exact_count_takes_a_small_margin() -> None:
    text = TEXT * 200
    said = [{"role": "user", "content": text}]
    body = json.dumps({"model": "openai/gpt-4o", "messages": said}).encode()
    provider = find_provider("openrouter")
    count_exactly(["o200k"])
    exact = toktok.batch_count([text], "o200k_base")[0]
    facts = provider.read_request("POST", "/chat/completions", body)

    assert exact < facts.input_tokens <= (exact + 2 * PER_MESSAGE) * 1.05 + 2


@pytest.mark.parametrize(
    "text",
    [
        "今天天气很好，我们一起去公园散步吧。人工智能的发展速度超出了所有人的预期。",
        "Сегодня хорошая погода, пойдём гулять в парк.",
        "Как дела? 今天 😀🎉",
    ],
)
@pytest.mark.parametrize(("family", "encoding"), [("o200k", "o200k_base")])
def test_a_text_that_holds_escapes_comes_to_its_escapes(
    text: str, family: str, encoding: str
) -> None:
    """As tools answer in JSON: the model is given \\u4eca, six characters."""
    written = json.dumps({"result": text * 10})
    exact = toktok.batch_count([written], encoding)[0]

    assert exact * 0.95 <= tokens(written, family) <= exact * 1.35


def test_nothing_is_counted_unless_asked_for() -> None:
    before = tokens(TEXT, "o200k")
    count_exactly(["qwen"])

    assert before == tokens(TEXT, "o200k")
    assert {"qwen"} == EXACT.keys()


def test_a_family_without_a_tokenizer_here_is_estimated_as_ever() -> None:
    before = tokens(TEXT, "claude")
    count_exactly()

    assert before == tokens(TEXT, "claude")


def test_a_very_long_prompt_is_estimated() -> None:
    count_exactly(["o200k"])
    text = TEXT * 6_000
    exact = toktok.batch_count([text], "o200k_base")[0]

    assert exact != tokens(text, "o200k")


@pytest.mark.parametrize("text", ["\ud800", "half \udc00 a pair, 漢", "", "\x00"])
def test_whatever_a_text_holds_it_is_counted(text: str) -> None:
    count_exactly(["o200k"])

    assert (
        1 <= tokens(text, "o200k") <= max(1, len(text.encode("utf-8", "surrogatepass")))
    )


def test_a_family_that_has_no_exact_counter_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'claude' has no .* expected one of o200k"):
        count_exactly(["claude"])

    assert not EXACT


def test_a_missing_extra_is_named_with_the_line_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "toktok", None)

    with pytest.raises(ConfigError, match=r"pip install 'ratekeeper\[tokens\]'"):
        count_exactly()


def test_the_families_counted_are_those_of_the_estimates() -> None:
    count_exactly()

    assert set(FAMILIES) == EXACT.keys()
