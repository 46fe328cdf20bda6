"""What an error means: the table, row by row, in the providers' own words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.units import DAY, HOUR, MINUTE, MONTH, SECOND, WEEK
from ratekeeper.providers import headers
from ratekeeper.providers.catalog import PROVIDERS, find_provider
from ratekeeper.providers.facts import Kind, Verdict
from ratekeeper.providers.verdict import LARGEST_ERROR, ErrorFacts, named_limit
from tests.providers.malformed import NOW_US

AGAIN = {Kind.THROTTLED, Kind.RAMP, Kind.STOPPED, Kind.OVERLOADED, Kind.TRANSIENT}
LIMIT = "Rate limit reached for gpt-4o-mini in project p organization org-1 on "
REACHED = (
    f"{LIMIT}tokens per min (TPM): Limit 50000, Used 47949, Requested 3006. Please "
    "try again in 1.146s. Visit https://platform.openai.com/account/rate-limits"
)
TOO_LARGE = (
    "Request too large for gpt-4 in organization org-1 on tokens per min (TPM): Limit "
    "30000, Requested 41210. The input or output tokens must be reduced."
)
SPENT = "You exceeded your current quota, please check your plan and billing details."
EXCEEDS = (
    "This request would exceed your organization's rate limit of 30,000 {} (org: o, "
    "model: claude-opus-4-6). For details, refer to: https://docs.claude.com"
)


def judge(provider: str, status: int, error: object, **fields: str) -> Verdict:
    body = json.dumps({"error": error}).encode()
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return find_provider(provider).judge(status, named, body, NOW_US)


@pytest.mark.parametrize(
    ("provider", "status", "error", "kind"),
    [
        (
            "openai",
            429,
            {"message": REACHED, "type": "tokens", "code": "rate_limit_exceeded"},
            Kind.THROTTLED,
        ),
        (
            "openai",
            429,
            {"message": TOO_LARGE, "type": "tokens", "code": "rate_limit_exceeded"},
            Kind.IMPOSSIBLE,
        ),
        (
            "openai",
            429,
            {"message": f"{LIMIT}TPM: Limit 100, Used 0, Requested 101."},
            Kind.IMPOSSIBLE,
        ),
        (
            "openai",
            429,
            {"message": f"{LIMIT}TPM: Limit 100, Used 50, Requested 100."},
            Kind.THROTTLED,
        ),
        (
            "openai",
            429,
            {"message": SPENT, "type": "insufficient_quota", "code": None},
            Kind.BILLING,
        ),
        ("openai", 429, {"code": "insufficient_quota"}, Kind.BILLING),
        ("openai", 429, {"code": "credit_balance_exhausted"}, Kind.BILLING),
        ("openai", 429, {"code": "organization_spend_limit_exceeded"}, Kind.BILLING),
        ("openai", 429, {"code": "project_spend_limit_exceeded"}, Kind.BILLING),
        ("openai", 429, {"code": "organization_usage_limit_exceeded"}, Kind.BILLING),
        ("openai", 429, {"code": "billing_not_active"}, Kind.BILLING),
        (
            "openai",
            429,
            {"type": "rate_limit_error", "code": "slow_down"},
            Kind.RAMP,
        ),
        (
            "openai",
            503,
            {"type": "service_unavailable_error", "code": "server_is_overloaded"},
            Kind.OVERLOADED,
        ),
        (
            "openai",
            401,
            {"type": "invalid_request_error", "code": "invalid_api_key"},
            Kind.UNAUTHORIZED,
        ),
        (
            "openai",
            403,
            {"code": "unsupported_country_region_territory"},
            Kind.FORBIDDEN,
        ),
        ("openai", 400, {"code": "context_length_exceeded"}, Kind.REJECTED),
        ("openai", 404, {"code": "model_not_found"}, Kind.REJECTED),
        ("openai", 422, {}, Kind.REJECTED),
        ("openai", 408, {}, Kind.TRANSIENT),
        ("openai", 409, {}, Kind.TRANSIENT),
        ("openai", 500, {"type": "server_error"}, Kind.TRANSIENT),
        ("openai", 502, {}, Kind.TRANSIENT),
        ("openai", 504, {}, Kind.TRANSIENT),
        ("openai", 599, {}, Kind.TRANSIENT),
        ("openai", 413, {"message": TOO_LARGE}, Kind.IMPOSSIBLE),
        ("openai", 429, {"code": "temporarily_banned"}, Kind.STOPPED),
        ("openai", 429, {"type": "account_suspended"}, Kind.STOPPED),
        (
            "anthropic",
            429,
            {
                "type": "rate_limit_error",
                "message": EXCEEDS.format("input tokens per minute"),
            },
            Kind.THROTTLED,
        ),
        (
            "anthropic",
            429,
            {
                "type": "rate_limit_error",
                "details": {"error_code": "enforced_spend_limit_reached"},
            },
            Kind.BILLING,
        ),
        (
            "anthropic",
            429,
            {
                "type": "rate_limit_error",
                "details": {"error_code": "contract_spend_limit_reached"},
            },
            Kind.BILLING,
        ),
        (
            "anthropic",
            429,
            {
                "type": "rate_limit_error",
                "details": {"error_code": "ramp_limit_exceeded"},
            },
            Kind.RAMP,
        ),
        (
            "anthropic",
            429,
            {
                "type": "rate_limit_error",
                "message": "would exceed your organization's acceleration limit",
            },
            Kind.RAMP,
        ),
        (
            "anthropic",
            429,
            {"message": "Your organization is temporarily blocked after requests"},
            Kind.STOPPED,
        ),
        (
            "anthropic",
            400,
            {
                "type": "invalid_request_error",
                "message": "You have reached your specified API usage limits. You will "
                "regain access on 2026-12-01 at 00:00 UTC.",
            },
            Kind.BILLING,
        ),
        (
            "anthropic",
            400,
            {
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the API.",
            },
            Kind.BILLING,
        ),
        ("openai", 400, {"message": "no credit balance"}, Kind.REJECTED),
        ("anthropic", 402, {"type": "billing_error"}, Kind.BILLING),
        ("anthropic", 529, {"type": "overloaded_error"}, Kind.OVERLOADED),
        ("anthropic", 500, {"type": "overloaded_error"}, Kind.OVERLOADED),
        ("anthropic", 500, {"type": "api_error"}, Kind.TRANSIENT),
        ("anthropic", 504, {"type": "timeout_error"}, Kind.TRANSIENT),
        ("anthropic", 401, {"type": "authentication_error"}, Kind.UNAUTHORIZED),
        ("anthropic", 403, {"type": "permission_error"}, Kind.FORBIDDEN),
        ("anthropic", 413, {"type": "request_too_large"}, Kind.IMPOSSIBLE),
        ("deepseek", 402, {"message": "Insufficient Balance"}, Kind.BILLING),
        ("deepseek", 503, {"message": "Service is too busy."}, Kind.OVERLOADED),
        (
            "deepseek",
            429,
            {"message": "exceeds your concurrency limit of 2."},
            Kind.THROTTLED,
        ),
        ("holysheep", 429, "Too many requests, unauthorized burst", Kind.THROTTLED),
    ],
)
def test_an_error_means_what_the_table_says(
    provider: str, status: int, error: object, kind: Kind
) -> None:
    verdict = judge(provider, status, error)

    assert kind is verdict.kind
    assert (kind in AGAIN) == verdict.retry


@pytest.mark.parametrize(
    ("text", "unit", "window_us"),
    [
        (REACHED, "tokens", MINUTE),
        (f"{LIMIT}requests per min (RPM): Limit 5", "requests", MINUTE),
        (f"{LIMIT}requests per day (RPD): Limit 5", "requests", DAY),
        (f"{LIMIT}tokens per day (TPD): Limit 5", "tokens", DAY),
        (f"{LIMIT}requests per 10 s: Limit 5", "requests", 10 * SECOND),
        (f"{LIMIT}concurrent requests: Limit 5", "concurrent", None),
        (EXCEEDS.format("input tokens per minute"), "input_tokens", MINUTE),
        (EXCEEDS.format("output tokens per minute"), "output_tokens", MINUTE),
        (EXCEEDS.format("tokens per 10 seconds"), "tokens", 10 * SECOND),
        (EXCEEDS.format("requests per hour"), "requests", HOUR),
        ("Number of concurrent connections has exceeded", "concurrent", None),
        ("which exceeds your concurrency limit of 2.", "concurrent", None),
        ("have exceeded call rate limit of your tier", "requests", None),
        ("have exceeded token rate limit of your tier", "tokens", None),
        ("Requests per Minute (actual/limit): 2/2", "requests", MINUTE),
        ("Too many tokens per week", "tokens", WEEK),
        ("over your requests per month", "requests", MONTH),
        ("over your requests limit", "requests", None),
        ("Too many requests", None, None),
        ("", None, None),
    ],
)
def test_the_limit_is_known_by_its_words(
    text: str, unit: str | None, window_us: int | None
) -> None:
    assert (unit, window_us) == named_limit(ErrorFacts(text=text))


@pytest.mark.parametrize(
    ("kind", "unit"), [("tokens", "tokens"), ("requests", "requests"), ("x", None)]
)
def test_the_type_of_an_error_names_the_unit_where_words_do_not(
    kind: str, unit: str | None
) -> None:
    verdict = judge("openai", 429, {"type": kind, "message": "Slow."})

    assert (unit, None) == (verdict.unit, verdict.window_us)


def test_the_providers_word_on_retrying_wins_over_the_status() -> None:
    assert not judge("openai", 429, {}, x_should_retry="false").retry
    assert not judge("openai", 500, {}, x_should_retry="False").retry
    assert judge("openai", 400, {}, x_should_retry="true").retry
    assert judge("openai", 429, {}, x_should_retry="maybe").retry


@pytest.mark.parametrize("status", [401, 402, 403, 413])
def test_no_word_makes_a_bill_a_key_or_a_size_worth_another_try(status: int) -> None:
    assert not judge("openai", status, {}, x_should_retry="true").retry


def test_a_spend_cap_lasts_to_the_end_of_the_month() -> None:
    """NOW_US is 2026-11-18T11:06:40Z."""
    error = {"details": {"error_code": "enforced_spend_limit_reached"}}

    assert 12 * DAY + 46_400 * SECOND == judge("anthropic", 429, error).retry_after_us


def test_access_is_regained_when_the_text_says() -> None:
    error = {
        "message": "API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
    }

    assert 12 * DAY + 46_400 * SECOND == judge("anthropic", 400, error).retry_after_us


def test_headers_tell_the_wait_before_words_do() -> None:
    error = {"message": REACHED}

    assert 2 * SECOND == judge("openai", 429, error, retry_after="2").retry_after_us
    assert 1_146_000 == judge("openai", 429, error).retry_after_us


def test_where_nothing_tells_the_wait_the_named_limits_reset_does() -> None:
    shown = {"x_ratelimit_limit_tokens": "5", "x_ratelimit_reset_tokens": "6m0s"}
    tokens = judge("openai", 429, {"type": "tokens"}, **shown)
    requests = judge("openai", 429, {"type": "requests"}, **shown)

    assert 6 * MINUTE == tokens.retry_after_us
    assert requests.retry_after_us is None


def test_a_limit_shown_as_used_up_is_the_one_where_nothing_is_named() -> None:
    reset = {"x_ratelimit_limit": "60", "x_ratelimit_reset": "30"}
    used_up = judge("holysheep", 429, {}, x_ratelimit_remaining="0", **reset)
    not_so = judge("holysheep", 429, {}, x_ratelimit_remaining="1", **reset)

    assert ("requests", 30 * SECOND) == (used_up.unit, used_up.retry_after_us)
    assert (None, None) == (not_so.unit, not_so.retry_after_us)


def test_nobody_waits_for_what_no_wait_would_help() -> None:
    for status in (401, 403, 413):
        assert judge("openai", status, {}, retry_after="5").retry_after_us is None


def test_a_body_in_other_shapes_is_read_too() -> None:
    provider = find_provider("openai")
    listed = b'[{"error":{"code":"slow_down"}}]'
    flat = b'{"code":"slow_down","error":"Too fast, try again in 5s"}'
    bare = b'{"message":"Request too large for you"}'
    detail = b'{"detail":"Request too large for you"}'
    plain = b"Request too large for you"

    assert [
        Kind.RAMP,
        Kind.RAMP,
        Kind.IMPOSSIBLE,
        Kind.IMPOSSIBLE,
        Kind.IMPOSSIBLE,
    ] == [
        provider.judge(429, {}, body, NOW_US).kind
        for body in (listed, flat, bare, detail, plain)
    ]
    assert 5 * SECOND == provider.judge(429, {}, flat, NOW_US).retry_after_us


def test_the_event_of_a_response_that_failed_is_read_like_any_error() -> None:
    event = b'{"type":"response.failed","response":{"error":{"code":"slow_down"}}}'

    limit = b'{"error":{"code":"rate_limit_exceeded"}}'

    assert Kind.RAMP is find_provider("openai").judge(200, {}, event, 0).kind
    assert Kind.THROTTLED is find_provider("openai").judge(200, {}, limit, 0).kind


def test_only_the_beginning_of_a_huge_error_is_read() -> None:
    body = b'{"error":{"pad":"' + b"x" * LARGEST_ERROR + b'","code":"slow_down"}}'

    assert Kind.THROTTLED is find_provider("openai").judge(429, {}, body, 0).kind


@given(
    st.sampled_from(sorted(PROVIDERS)),
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "x-should-retry", "date"]),
        st.text(max_size=20),
    ),
    st.binary(max_size=200) | st.text(max_size=200).map(str.encode),
)
def test_any_answer_at_all_is_judged(
    provider: str, status: int, fields: dict[str, str], body: bytes
) -> None:
    verdict = find_provider(provider).judge(status, fields, body, NOW_US)

    assert verdict.kind in Kind
    wait_us = verdict.retry_after_us
    assert wait_us is None or 0 <= wait_us <= headers.ABSURD_US
