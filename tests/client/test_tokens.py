"""Exact counts: only where asked for, only where a tokenizer is known."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ratekeeper.client.tokens import FAMILIES, count_exactly
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
