"""Answers and streams of any bytes: typed or whole, never a hang or a foreign error."""

from __future__ import annotations

import itertools
import json
import random
import threading
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper import RatekeeperError
from ratekeeper.client import answers, keys, refusals
from ratekeeper.client.answers import Failed
from ratekeeper.client.chunks import Chunks
from ratekeeper.client.faults import Wire
from ratekeeper.client.terms import Terms
from ratekeeper.core.backoff import Backoff, RetryBudget
from ratekeeper.core.patience import Patience
from ratekeeper.providers.catalog import find_provider
from tests.client.clients import KEY

TERMS = Terms(
    provider=find_provider("openai"),
    wire=Wire(host="h.example"),
    key=keys.ApiKey(value=KEY, source="api_key="),
    backoff=Backoff(),
    budget=RetryBudget(),
    patience=Patience(),
    guard=threading.Lock(),
    draw=random.Random(1),
    now_us=lambda: 1_800_000_000_000_000,
    priority="normal",
    resend_lost=False,
    max_answer=1 << 20,
)

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "type", "choices", "message", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
_event = st.one_of(
    _json.map(lambda value: b"data: " + json.dumps(value).encode()),
    st.sampled_from([b"data: [DONE]", b": comment", b"event: error", b"data:"]),
    st.binary(max_size=20),
)
_stream = st.lists(
    st.tuples(_event, st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r", b"\n"])),
    max_size=8,
).map(lambda parts: b"".join(event + end for event, end in parts))


def _read(data: list[bytes]) -> tuple[list[dict[str, Any]], str]:
    chunks = Chunks(TERMS, 1, ends_itself=True)
    for piece in [*data, None]:
        chunks.feed(piece)
    got = []
    try:
        while (chunk := chunks.take()) is not None:
            got.append(chunk)
    except RatekeeperError as error:
        return got, str(error)
    assert chunks.is_over
    return got, ""


@given(_stream, st.lists(st.integers(min_value=0, max_value=200), max_size=6))
def test_where_the_bytes_are_cut_makes_no_difference(
    data: bytes, cuts: list[int]
) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]

    assert _read([data]) == _read(pieces)


@given(
    st.integers(min_value=400, max_value=599),
    st.one_of(
        st.binary(max_size=200), _json.map(lambda value: json.dumps(value).encode())
    ),
)
def test_any_error_body_is_a_typed_error_that_keeps_little(
    status: int, body: bytes
) -> None:
    verdict = TERMS.provider.judge(status, {}, body, TERMS.now_us())
    answer = httpx2.Response(status, extensions={"ratekeeper": verdict})
    failed = answers.refused(answer, body, TERMS, 2)

    assert isinstance(failed.error, RatekeeperError)
    assert f"h.example answered {status}" in str(failed.error)
    assert 2 == getattr(failed.error, "attempts", None)


@given(st.one_of(st.binary(max_size=200), _json.map(lambda x: json.dumps(x).encode())))
def test_any_body_of_a_200_is_parsed_or_a_typed_error(body: bytes) -> None:
    outcome = answers.parsed(httpx2.Response(200), body, TERMS, 1)

    assert (
        isinstance(outcome, Failed) or not body.strip() or outcome == json.loads(body)
    )


@given(st.text(max_size=50), st.text(max_size=50))
def test_the_key_is_masked_wherever_it_stands(before: str, after: str) -> None:
    kept = keys.masked(before + KEY + after, KEY)

    assert KEY not in kept


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF123456",
        "sk-ant-api03-aaaa1111bbbb",
        "hs-1234567890",
        "gsk_A1b2C3d4E5f6",
        "xai-a1b2c3d4e5f6",
        "AIzaSyA1234567890",
        "Bearer eyJhbGciOi.abc.def",
        "sk-abc***********wxyz",
    ],
)
def test_what_looks_like_a_key_is_masked(secret: str) -> None:
    kept = keys.masked(f"key '{secret}' is wrong")

    assert "key '[key]' is wrong" == kept


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect task-related risk-averse setting",
        "disk-full on node key-value store",
        "tokens per min (TPM): Limit 50000, Used 47949",
        "The model gpt-4o-mini-2024-07-18 is overloaded",
    ],
)
def test_plain_words_are_kept(text: str) -> None:
    assert text == keys.masked(text)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"error": {"code": "rate_limit_exceeded"}}, " (rate_limit_exceeded)"),
        ({"error": {"type": "invalid_request_error"}}, " (invalid_request_error)"),
        ([{"error": {"status": "RESOURCE_EXHAUSTED"}}], " (RESOURCE_EXHAUSTED)"),
        ({"code": "not_found_error"}, " (not_found_error)"),
        ({"error": {"code": "sk-abcdef"}}, ""),
        ({"error": {"code": "my secret prompt"}}, ""),
        ({"error": {"code": 429}}, ""),
        ({"error": "text"}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_only_a_word_of_the_providers_vocabulary_is_printed(
    body: Any, shown: str
) -> None:
    assert shown == refusals.code_of(json.dumps(body).encode())


def test_a_key_at_the_bound_is_masked_before_the_text_is_cut() -> None:
    kept = keys.masked("." * 1990 + " sk-0123456789abcdef")

    assert "." * 1990 + " [key]" == kept


def test_an_answer_that_also_tells_of_an_error_is_an_answer() -> None:
    body = {"choices": [], "error": {"message": "cut short"}}
    outcome = answers.parsed(httpx2.Response(200), json.dumps(body).encode(), TERMS, 1)

    assert body == outcome
