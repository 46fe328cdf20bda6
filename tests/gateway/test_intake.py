"""Room for bodies: bounded in all, and one caller's crowd leaves some for the others."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratekeeper.gateway import intake
from ratekeeper.gateway.intake import (
    MOST_VALUES,
    Crowded,
    Held,
    NoObject,
    TooManyValues,
    Unclear,
)


def test_one_body_may_fill_all_the_room() -> None:
    held = Held(100)
    held.take(60, "a")
    held.take(40, "a", own=60)

    assert 100 == held.bytes


def test_several_bodies_of_one_take_no_more_than_is_left_for_others() -> None:
    held = Held(100)
    for owner, most in (("a", 50), ("b", 25)):
        for _ in range(most):
            held.take(1, owner)

        with pytest.raises(Crowded):
            held.take(1, owner)

    assert 75 == held.bytes


def test_there_is_a_bound_for_all_together() -> None:
    held = Held(100)
    held.take(100, "a")

    with pytest.raises(Crowded):
        held.take(1, "b")


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 300)), max_size=50),
)
def test_whatever_comes_the_bound_holds_and_all_of_it_comes_back(
    most: int, bodies: list[tuple[str, int]]
) -> None:
    held, taken = Held(most), []
    for owner, size in bodies:
        try:
            held.take(size, owner)
        except Crowded:
            continue
        taken.append((owner, size))
        assert held.bytes <= most

    for owner, size in taken:
        held.give(size, owner)

    assert 0 == held.bytes
    held.take(most, "a")


SIZE = 4 * 1024 * 1024


@pytest.mark.parametrize(
    "value", [b"{}", b"[]", b'{"a":0}', b'""', b"0", b'{"a":[[]]}']
)
@pytest.mark.parametrize("before", [b"", rb'"\u0061": "\\",'])
def test_a_body_of_many_small_values_is_not_taken_in(
    value: bytes, before: bytes
) -> None:
    """Each would weigh many times its bytes, and be looked at before any limit is."""
    body = b"{%b" % before + b'"messages":[' + (value + b",") * (SIZE // len(value))
    begin = time.process_time()
    with pytest.raises(TooManyValues):
        intake.decoded(body + b"0]}")

    assert 0.5 > time.process_time() - begin


def test_many_small_values_of_utf_16_are_not_taken_in() -> None:
    body = '{"messages":[' + "{}," * (SIZE // 8) + "0]}"
    with pytest.raises(TooManyValues):
        intake.decoded(body.encode("utf-16-le"))


@pytest.mark.parametrize(
    "text", [b"a,b,", rb"{[\n,", rb"\",\"", rb"\\,{}", rb"\\\",[]", b"{},[]"]
)
def test_what_stands_in_a_text_is_no_value(text: bytes) -> None:
    body = b'{"m":"' + text * (SIZE // len(text)) + b'"}'

    assert json.loads(body) == intake.decoded(body)


def test_as_many_tokens_as_any_provider_embeds_are_taken_in() -> None:
    body = json.dumps({"input": list(range(300_000))}).encode()

    assert intake.decoded(body) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"1",
        b'"{}"',
        b'{"n": 10, "user": "\xe9"}',
        b'{"n": 10, "user": ' + b"[" * 1100 + b"]" * 1100 + b"}",
        b'{"n": 10,}',
        b'{/**/"n": 10}',
        b"model=m&n=10",
        b'\n\x02{"n": 10}',
    ],
)
def test_what_is_read_by_some_alone_is_no_object(body: bytes) -> None:
    with pytest.raises(NoObject):
        intake.decoded(body)


@pytest.mark.parametrize("body", [b"", b" \r\n", b"null", b" null "])
def test_an_empty_body_says_nothing(body: bytes) -> None:
    assert intake.decoded(body) is None
    assert intake.decoded(body, each_once=True) is None


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]
)
@pytest.mark.parametrize("text", ['{"a": "é"}', '{"a": "\\ud83d"}', '{"a": NaN}'])
def test_json_is_read_however_clients_write_it(text: str, encoding: str) -> None:
    assert repr(json.loads(text)) == repr(intake.decoded(text.encode(encoding)))


def test_a_name_may_stand_twice_where_nothing_goes_by_it() -> None:
    body = b'{"x": 1, "y": {"x": 1, "x": 2}}'

    assert {"x": 1, "y": {"x": 2}} == intake.decoded(body)

    with pytest.raises(Unclear):
        intake.decoded(body, each_once=True)


MANY = b"[" + b"0," * MOST_VALUES + b"0]"
JSONS = st.recursive(
    st.none() | st.integers() | st.text('a,{}[]"\\'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('a,{}[]"\\'), inner),
)


@settings(max_examples=30)  # of a megabyte each
@given(JSONS)
def test_values_are_counted_as_they_are(value: Any) -> None:
    def weight(one: Any) -> int:
        if not isinstance(one, list | dict):
            return 0
        inner = one.values() if isinstance(one, dict) else one
        return 3 + max(0, len(one) - 1) + sum(map(weight, inner))

    body = b"[%b,%b]" % (json.dumps(value).encode(), MANY)

    assert 3 + weight(value) + 1 + intake.weight(MANY) == intake.weight(body)
