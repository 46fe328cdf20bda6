"""Estimates: never above the bytes, never below a quarter, quick on any text."""

from __future__ import annotations

import base64
import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.providers.estimate import (
    EXACT,
    Prompt,
    family_of,
    measure,
    text_tokens,
)
from ratekeeper.providers.weights import WEIGHTS

FAMILIES = sorted(WEIGHTS)
ENGLISH = (
    "It was a bright cold day in April, and the clocks were striking thirteen. "
    "Winston, his chin nuzzled into his breast, slipped quickly through the doors. "
)
CHINESE = "今天天气很好，我们一起去公园散步吧。人工智能的发展速度超出了所有人的预期。"
CODE = "def add_numbers(first: int, second: int) -> int:\n    return first + second\n\n"
TABLE = json.dumps([{"id": i, "camelCase": i / 7, "tags": ["a"]} for i in range(9)])


# A model of each family of tokenizers.
MODELS = {
    "modern": "",
    "o200k": "gpt-4o",
    "cl100k": "gpt-4",
    "claude": "claude-opus-4-8",
    "claude-3": "claude-3-5-haiku",
}


def fixed(content: object) -> int:
    prompt = Prompt()
    prompt.add(content)
    return prompt.fixed


def tokens(content: object, family: str = "modern") -> int:
    prompt = Prompt(model=MODELS.get(family, family))
    prompt.add(content)
    return prompt.estimate().upper()


@pytest.mark.parametrize(
    ("text", "family", "measured"),
    [
        # characters a token on texts of the kind, by the families' own tokenizers
        (ENGLISH, "o200k", 4.51),
        (ENGLISH, "deepseek", 4.40),
        (ENGLISH, "claude", 3.13),
        (ENGLISH, "claude-3", 4.24),
        (CHINESE, "o200k", 1.60),
        (CHINESE, "cl100k", 1.13),
        (CHINESE, "deepseek", 1.92),
        (CHINESE, "claude", 1.01),
        (CODE, "o200k", 4.23),
        (CODE, "claude", 2.77),
        (TABLE, "o200k", 3.36),
        (TABLE, "claude", 2.18),
    ],
)
def test_an_estimate_is_near_what_the_tokenizer_counts(
    text: str, family: str, measured: float
) -> None:
    """The fit is within -38 and +39 % for all but one text in fifty."""
    text *= 20
    counted = len(text) / measured

    assert 0.62 * counted <= text_tokens(text, family) <= 1.39 * counted


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("a" * 10_000, 9_000),
        ("A" * 10_000, 9_000),
        (" " * 10_000, 600),
        ("\t" * 10_000, 600),
        ("\n" * 10_000, 1_200),
        ("\r\n" * 5_000, 9_000),
        ("\r" * 10_000, 9_000),
        ("=" * 10_000, 300),
        ("!@#$%^&*()" * 1_000, 5_000),
        ("\x00" * 10_000, 10_000),
        ("\x7f" * 10_000, 10_000),
        ("1" * 10_000, 3_000),
        ("😀" * 1_000, 1_800),
        ("漢" * 1_000, 450),
    ],
)
def test_a_long_run_is_not_free(text: str, least: int) -> None:
    """Weights fitted on natural text give such a run next to nothing."""
    for family in FAMILIES:
        assert text_tokens(text, family) >= least


@given(st.text(max_size=500), st.sampled_from(FAMILIES))
def test_an_estimate_is_never_above_the_bytes(text: str, family: str) -> None:
    most = len(text.encode("utf-8", "surrogatepass"))

    assert 0 <= text_tokens(text, family) <= most


@given(st.lists(st.text(max_size=50), max_size=20))
def test_a_prompt_is_never_below_a_quarter_of_its_characters(texts: list[str]) -> None:
    assert tokens(texts) >= sum(-(-len(text) // 4) for text in texts)


def test_an_exact_count_takes_the_place_of_the_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(EXACT, "o200k", lambda texts: 100 * len(texts))

    assert tokens([ENGLISH, ENGLISH], "o200k") == 200
    assert tokens([ENGLISH, ENGLISH], "claude") != 200
    assert tokens(["word " * 100_000], "o200k") > 100_000


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_too_long_to_look_at_whole_is_estimated_by_its_densest_part(
    family: str,
) -> None:
    part = ENGLISH * 400
    whole = part * 10
    mixed = part * 5 + CHINESE * 2000 + part * 5
    near = text_tokens(part, family) * 10

    assert near * 0.97 <= text_tokens(whole, family) <= near * 1.03
    assert text_tokens(mixed, family) > len(mixed) // 2


@pytest.mark.parametrize(
    "text",
    [
        "a" * 10**6,
        "ab " * 333_333,
        "{}" * 500_000,
        "!" * 10**6,
        "é" * 10**6,
        "漢" * 10**6,
        "aé" * 500_000,
        "\n" * 10**6,
        "aB" * 500_000,
        " \t" * 500_000,
        "😀a" * 300_000,
        "! " * 60_000 + " ".join("!" * n for n in range(7, 500)),
        "\ud800" * 10**6,
    ],
    ids=lambda text: repr(text[:3]),
)
def test_a_million_characters_never_hang(text: str) -> None:
    began = time.perf_counter()
    assert text_tokens(text, "claude") > 0

    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4", "cl100k"),
        ("gpt-4-turbo", "cl100k"),
        ("gpt-3.5-turbo", "cl100k"),
        ("gpt-4o-mini", "o200k"),
        ("gpt-4.1", "o200k"),
        ("gpt-5.4", "o200k"),
        ("o3-mini", "o200k"),
        ("text-embedding-3-small", "cl100k"),
        ("claude-3-5-haiku-latest", "claude-3"),
        ("claude-opus-4-8", "claude"),
        ("anthropic/claude-sonnet-5", "claude"),
        ("claude-opus-4-20250514", "claude-3"),
        ("claude-opus-4@20250514", "claude-3"),
        ("claude-sonnet-4.5", "claude-3"),
        ("claude-opus-4-6", "claude-3"),
        ("claude-haiku-4-5-20251001", "claude-3"),
        ("claude-opus-4-7-20260416", "claude"),
        ("claude-opus-4-10", "claude"),
        ("us.anthropic.claude-opus-4-8-v1:0", "claude"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3"),
        ("us.deepseek.r1-v1:0", "deepseek"),
        ("accounts/fireworks/models/deepseek-v3", "deepseek"),
        ("deepseek-chat", "deepseek"),
        ("Qwen3-max", "qwen"),
        ("glm-4.7", "glm"),
        ("MiniMax-M3", "minimax"),
        ("mistral-large", "tekken"),
        ("llama-4", "modern"),
        ("", "modern"),
        ("x" * 10**6, "modern"),
    ],
)
def test_a_models_name_tells_its_tokenizer(model: str, family: str) -> None:
    assert family == family_of(model)


def test_a_picture_counts_by_its_detail_and_never_by_its_bytes() -> None:
    url = "data:image/png;base64," + "A" * 1_000_000

    assert [85, 14_364, 3_930, 3_930, 3_930, 3_930] == [
        fixed(part)
        for part in (
            {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
            {"type": "input_image", "image_url": url, "detail": "original"},
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "image", "source": {"type": "base64", "data": url}},
            {"type": "computer_screenshot", "image_url": url},
            {"type": "tool_result", "content": [{"type": "image", "source": {}}]},
        )
    ]


def test_sound_and_documents_count_by_their_length() -> None:
    data = "A" * 160_000
    audio = {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}
    file = {"type": "file", "file": {"file_data": data}}
    pdf = {"type": "document", "source": {"type": "base64", "data": data}}
    small = {"type": "input_file", "file_id": "file-1"}

    assert [401, 10_000, 10_000, 3_000] == [
        fixed(part) for part in (audio, file, pdf, small)
    ]


def test_a_document_of_text_counts_as_its_text() -> None:
    text = {"type": "document", "source": {"type": "text", "data": ENGLISH}}
    parts = {
        "type": "document",
        "title": "T",
        "source": {"type": "content", "content": [{"type": "text", "text": ENGLISH}]},
    }

    assert tokens(text) >= tokens(ENGLISH)
    assert tokens(parts) >= tokens(ENGLISH)
    assert 0 == fixed(text)


def test_what_is_not_known_is_text() -> None:
    call = {"type": "function_call", "name": "f", "arguments": ENGLISH}
    number = Prompt()
    number.add([1234567, True, 2.5])

    assert tokens(call) > tokens(ENGLISH)
    assert number.estimate().upper() > 3


def test_a_structure_too_deep_to_write_out_is_counted_piece_by_piece() -> None:
    deep: object = ENGLISH
    for _ in range(3_000):
        deep = {"a": deep, "b": [1]}

    assert tokens(deep) >= tokens(ENGLISH) + 2 * 3_000


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ([1, 2, 3], 3),
        ([[1, 2], [3, 4, 5]], 5),
        ([[1, 2], "abcd"], 3),
        ("abcd", 1),
        ([], 1),
        (None, 1),
    ],
)
def test_token_numbers_are_counted_as_tokens(value: object, count: int) -> None:
    prompt = Prompt()
    prompt.add_numbered(value)

    assert count == prompt.estimate().upper()


@given(st.text(max_size=300), st.sampled_from(FAMILIES))
def test_a_measure_is_the_estimate_and_the_kind_of_script(
    text: str, family: str
) -> None:
    measured = measure(text, family)

    assert text_tokens(text, family) == measured.tokens
    assert 0 <= measured.odd <= measured.utf8_bytes
    assert measured.script in {"cjk", "other", "dense", "latin"}


def test_the_kind_of_a_very_long_text_is_its_densest_slices() -> None:
    text = ENGLISH * 3000 + CHINESE * 3000

    assert "cjk" == measure(text).script


def test_two_kilobytes_are_estimated_in_well_under_a_millisecond() -> None:
    noise = base64.b64encode(random.Random(1).randbytes(1500)).decode()
    for text in (ENGLISH * 14, CHINESE * 18, CODE * 26, TABLE * 4, noise):
        best = min(_timed(text) for _ in range(20))

        assert best < 1e-3


def _timed(text: str) -> float:
    began = time.perf_counter()
    text_tokens(text, "claude")
    return time.perf_counter() - began
