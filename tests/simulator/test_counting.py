"""How the simulated provider counts tokens: the truth, and its guess at admission."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.simulator.counting import (
    count_prompt,
    estimated_tokens,
    read_texts,
    true_tokens,
    words,
)
from ratekeeper.simulator.dialect import go_duration, whole_seconds

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "content", "input_text", "role", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


def test_chinese_is_underestimated_threefold() -> None:
    text = "限速器" * 40

    assert 90 == true_tokens(text)
    assert 30 == estimated_tokens(text)


@given(st.integers(0, 300), st.integers())
def test_a_generated_text_is_exactly_its_number_of_tokens(
    count: int, seed: int
) -> None:
    text = "".join(words(count, random.Random(seed)))

    assert count == true_tokens(text)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (None, []),
        ("plain", ["plain"]),
        (["a", {"type": "text", "text": "b"}], ["a", "b"]),
        ([{"type": "input_text", "input_text": "c"}], ["c"]),
        ([{"type": "image_url", "image_url": {"url": "x"}}], [None]),
        (
            [{"type": "tool_result", "content": [{"text": "d"}, "e", {"x": 1}]}],
            ["d", "e", '{"x":1}'],
        ),
        ([{"type": "tool_result", "content": "f"}], ["f"]),
        ([{"type": "audio", "data": 5}], ['{"type":"audio","data":5}']),
        ({"odd": True}, ['{"odd":true}']),
        (5, ["5"]),
    ],
)
def test_the_texts_of_a_content_are_found(
    content: object, texts: list[str | None]
) -> None:
    assert texts == list(read_texts(content))


@given(st.lists(json_values, max_size=5), st.dictionaries(st.text(), json_values))
def test_any_prompt_has_a_count(messages: list[Any], extra: dict[str, Any]) -> None:
    truth, estimate = count_prompt(messages, extra)

    assert truth >= 3 + 3 * len(messages)
    assert estimate >= 1


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (120_000, "120ms"),
        (1_000_000, "1s"),
        (1_145_001, "1.146s"),
        (360_000_000, "6m0s"),
        (3_723_500_000, "1h2m3.5s"),
        (-5, "0ms"),
    ],
)
def test_a_duration_is_written_as_go_does_and_rounded_up(us: int, text: str) -> None:
    assert text == go_duration(us)


@pytest.mark.parametrize(("us", "text"), [(0, "0"), (1, "1"), (2_000_000, "2")])
def test_a_wait_in_whole_seconds_is_rounded_up(us: int, text: str) -> None:
    assert text == whole_seconds(us)
