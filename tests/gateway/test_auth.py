"""A key is found wherever an SDK puts it, and never goes upstream in the query."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.gateway.auth import (
    TwoCredentials,
    credential,
    is_disguised,
    is_foreign,
    strip_key,
)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([(b"authorization", b"Bearer rk-1")], b""),
        ([(b"authorization", b"bearer  rk-1 ")], b""),
        ([(b"x-api-key", b"rk-1")], b""),
        ([(b"x-goog-api-key", b"rk-1")], b"alt=sse"),
        ([(b"api-key", b"rk-1")], b"api-version=2024-06-01"),
        ([], b"key=rk-1"),
        ([], b"alt=sse&k%65y=rk%2D1"),
        ([(b"x-api-key", b"rk-1"), (b"authorization", b"Bearer rk-1")], b"key=rk-1"),
        ([(b"x-api-key", b""), (b"authorization", b"Bearer rk-1")], b"key="),
        ([(b"authorization", b"Basic cms6"), (b"x-api-key", b"rk-1")], b""),
    ],
)
def test_the_key_of_every_sdk_is_found(
    headers: list[tuple[bytes, bytes]], query: bytes
) -> None:
    assert "rk-1" == credential(headers, query)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([], b""),
        ([(b"accept", b"rk-1")], b"monkey=rk-1&keys=rk-1"),
        ([(b"authorization", b"Basic cms6")], b""),
        ([(b"authorization", b"Bearer")], b""),
        ([(b"authorization", b"Bearer ")], b"key"),
        ([(b"x-api-key", b"  ")], b"key=+%20"),
    ],
)
def test_a_request_may_carry_no_key(
    headers: list[tuple[bytes, bytes]], query: bytes
) -> None:
    assert credential(headers, query) is None


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([(b"x-api-key", b"rk-1"), (b"authorization", b"Bearer rk-2")], b""),
        ([(b"x-api-key", b"rk-1"), (b"x-api-key", b"rk-2")], b""),
        ([(b"x-goog-api-key", b"rk-1")], b"key=rk-2"),
        ([], b"key=rk-1&key=rk-2"),
    ],
)
def test_two_different_keys_are_an_error_that_names_neither(
    headers: list[tuple[bytes, bytes]], query: bytes
) -> None:
    with pytest.raises(TwoCredentials) as caught:
        credential(headers, query)

    assert "rk-" not in str(caught.value)


PARTS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["key", "alt", "keys", "k", ""]), st.text(max_size=8)
        ),
        st.tuples(st.text(max_size=5), st.text(max_size=8)),
    ),
    max_size=6,
)


@given(PARTS)
def test_without_its_key_a_query_says_the_rest_as_before(
    parts: list[tuple[str, str]],
) -> None:
    rest = urllib.parse.urlencode([part for part in parts if part[0].strip() != "key"])

    assert rest == strip_key(urllib.parse.urlencode(parts).encode()).decode()


@given(st.binary(max_size=40))
def test_no_key_is_left_in_any_query(query: bytes) -> None:
    assert credential([], strip_key(query)) is None


def test_a_query_without_a_key_keeps_its_bytes() -> None:
    odd = b"a=%zz&&b;key=1&%ff==&c"

    assert odd == strip_key(odd)


def test_a_key_of_any_bytes_is_read() -> None:
    assert "\xff\xfe" == credential([(b"x-api-key", b"\xff\xfe")], b"")


@pytest.mark.parametrize(
    ("origin", "site", "expected"),
    [
        (b"", b"", False),  # no browser
        (b"", b"cross-site", True),  # an image, a form that gets
        (b"", b"same-site", False),
        (b"https://evil.example", b"", True),
        (b"https://evil.example", b"cross-site", True),
        (b"http://evil.example:8080", b"same-site", True),
        (b"null", b"cross-site", True),
        (b"http://GATEWAY.example:8080", b"", False),
        (b"http://gateway.example", b"same-origin", False),  # a proxy renamed the host
        (b"http://localhost:3000", b"same-site", False),
        (b"http://127.0.0.1:3000", b"cross-site", False),
        (b"http://[::1]", b"cross-site", False),
        (b"http://[::1]:3000", b"cross-site", False),
        (b"http://[::2]:3000", b"cross-site", True),
        (b"http://localhost.evil.example", b"cross-site", True),
        (b"app://obsidian.md", b"cross-site", False),  # a program, and no page
        (b"chrome-extension://abc", b"none", False),
    ],
)
def test_a_page_of_another_site_is_told_from_programs(
    origin: bytes, site: bytes, *, expected: bool
) -> None:
    said = {
        b"origin": origin,
        b"sec-fetch-site": site,
        b"host": b"gateway.example:8080",
    }
    fields = {name: value for name, value in said.items() if value}

    assert expected is is_foreign(fields)


@pytest.mark.parametrize(
    ("host", "listens", "expected"),
    [
        (b"evil.example:8080", "127.0.0.1", True),
        (b"EVIL.example", "localhost", True),
        (b"evil.example", "::1", True),
        (b"127.0.0.1.evil.example:8080", "127.0.0.1", True),
        (b"localhost.evil.example", "127.0.0.1", True),
        (b"notlocalhost", "127.0.0.1", True),
        (b"", "127.0.0.1", True),
        (b"\xff", "127.0.0.1", True),
        (b"127.0.0.1:8080", "127.0.0.1", False),
        (b"127.0.0.1", "localhost", False),
        (b"[::1]:8080", "::1", False),
        (b"localhost:8080", "127.0.0.1", False),
        (b"Gateway.LocalHost.:8080", "127.0.0.1", False),
        (b"host.docker.internal:8080", "127.0.0.1", False),
        (b"gateway.example", "0.0.0.0", False),
        (b"ratekeeper:8080", "::", False),
        (b"gateway.example", "gateway.example", False),
    ],
)
def test_a_name_that_a_stranger_may_have_is_no_name_of_this_machine(
    host: bytes, listens: str, *, expected: bool
) -> None:
    assert expected is is_disguised(host, listens)
