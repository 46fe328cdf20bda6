"""Which headers go on, and which come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.gateway.auth import FIELDS
from ratekeeper.gateway.fields import forwarded, onward, to_google
from ratekeeper.gateway.http import _ONCE
from ratekeeper.providers.table import PROVIDERS


def fields(text: str) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), b"x") for name in text.split()]


PASSES_ON = fields(
    "accept anthropic-beta anthropic-version content-type idempotency-key "
    "openai-beta user-agent x-goog-api-client x-stainless-lang content-encoding"
)
PASSES_BACK = fields(
    "content-type request-id x-request-id retry-after x-should-retry "
    "openai-processing-ms openai-version content-encoding location"
)


def test_what_an_api_defines_goes_on() -> None:
    assert PASSES_ON == onward(PASSES_ON)


def test_what_is_the_callers_own_stays() -> None:
    stays = fields(
        "authorization x-api-key x-goog-api-key api-key cookie proxy-authorization "
        "host content-length expect accept-encoding te trailer transfer-encoding "
        "upgrade keep-alive proxy-connection forwarded x-forwarded-for x-real-ip "
        "x-forwarded-host x-ratekeeper-max-wait openai-organization openai-project "
        "anthropic-workspace-id x-goog-user-project"
    )

    assert [] == onward(stays)


def test_no_header_in_which_a_key_may_stand_goes_on_or_comes_twice() -> None:
    assert [] == onward([(name, b"rk-1") for name in FIELDS])
    assert FIELDS <= _ONCE.keys()


def test_nothing_makes_another_request_of_one() -> None:
    stays = fields(
        "x-http-method-override x-http-method x-method-override x-original-url "
        "x-rewrite-url x-goog-fieldmask x-goog-iam-authorization-token x-client-ip "
        "true-client-ip ocp-apim-subscription-key x-goog-authenticated-user-email"
    )

    assert [] == onward(stays)


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"alt=sse",
        b"alt=media",
        b"$alt=json;enum-encoding=int",
        b"pageSize=2&pageToken=a%26b&alt=json",
        b"upload_id=x&upload_protocol=resumable",
    ],
)
def test_what_googles_sdks_ask_goes_on_to_google(query: bytes) -> None:
    assert query == to_google(query)


@pytest.mark.parametrize(
    "part",
    [
        b"fields=files(uri)",
        b"%66ields=files",
        b"$fields=files",
        b"%24Fields",
        b"callback=f",
        b"$httpMethod=GET",
        b"%24.xgafv=1",
        b"$ct=text/plain",
        b"access_token=x",
        b"alt=proto",
        b"$alt=proto",
        b"alt=",
        b"+fields=x",
    ],
)
def test_what_would_change_googles_answer_stays(part: bytes) -> None:
    assert b"pageSize=2&alt=sse" == to_google(b"pageSize=2&" + part + b"&alt=sse")


def test_what_an_answer_says_of_itself_comes_back() -> None:
    assert PASSES_BACK == forwarded(PASSES_BACK)


def test_whose_account_it_is_is_not_told() -> None:
    hidden = fields(
        "set-cookie alt-svc strict-transport-security server date via cf-ray "
        "cf-cache-status openai-organization openai-project "
        "anthropic-organization-id x-ratekeeper-cost content-length"
    )

    assert [] == forwarded(hidden)


def test_no_providers_headers_of_limits_come_back() -> None:
    shown = {
        name
        for provider in PROVIDERS.values()
        for row in provider.shows
        for name in (row.limit, row.remaining, row.reset, row.period)
        if name
    }

    assert len(shown) > 30
    assert [] == forwarded(fields(" ".join(sorted(shown))))


def test_a_header_that_connection_names_goes_no_further() -> None:
    sent = [
        (b"x-secret", b"1"),
        (b"connection", b"close, X-Secret"),
        (b"x-kept", b"2"),
        (b"connection", b"x-other"),
        (b"x-other", b"3"),
    ]

    assert [(b"x-kept", b"2")] == onward(sent)
    assert [(b"x-kept", b"2")] == forwarded(sent)


@given(st.lists(st.booleans(), min_size=13, max_size=13))
def test_a_name_is_known_however_it_is_written(capitals: list[bool]) -> None:
    name = "".join(
        letter.upper() if big else letter
        for letter, big in zip("authorization", capitals, strict=True)
    )

    assert [] == onward([(name.encode(), b"Bearer rk-1")])
