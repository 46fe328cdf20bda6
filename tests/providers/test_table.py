"""What each provider answers, as recorded: its errors, its headers, where it is."""

from __future__ import annotations

import json

import pytest

from ratekeeper.core.reading import Reading
from ratekeeper.core.units import DAY, HOUR, MINUTE, MONTH, SECOND
from ratekeeper.errors import ConfigError
from ratekeeper.providers.catalog import PROVIDERS, find_provider
from ratekeeper.providers.facts import Counting, Kind, Verdict
from tests.providers.malformed import NOW_US

AZURE = (
    "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version "
    "2024-10-21 have exceeded {} of your current OpenAI S0 pricing tier. Please retry "
    "after 6 seconds. Please go here: https://aka.ms/oai/quotaincrease"
)
BUSY = (
    "The system is currently experiencing high demand and cannot process your request."
)
GROQ = (
    "Rate limit reached for model `m` in organization `org_1` service tier `on_demand` "
    "on tokens per minute (TPM): Limit 15000, Used 11972, Requested 4351. Please try "
    "again in 5.289s."
)
GROQ_LARGE = (
    "Request too large for model `llama-3.1-8b-instant` in organization `org_1` service "
    "tier `on_demand` on tokens per minute (TPM): Limit 6000, Requested 12328, please "
    "reduce your message size and try again."
)
TOO_DEAR = (
    "This request requires more credits, or fewer max_tokens. You requested up to 65536 "
    "tokens, but can only afford {}. To increase, visit "
    "https://openrouter.ai/settings/credits and upgrade to a paid account"
)
FREE_DAY = (
    "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model "
    "requests per day"
)
FREE_RESET = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0"}
XAI = (
    "Too many requests for team 1 and model grok-4.5. Your team has consumed its rate. "
    "Requests per Minute (actual/limit): 2/2."
)
KIMI = (
    "Your account org-1 request reached max organization {}, please try again after 1 "
)
COHERE_TRIAL = "You are using a Trial key, which is limited to {}. You can continue."
CLAUDE_ON_VERTEX = (
    "Quota exceeded for aiplatform.googleapis.com/online_prediction_{}_per_base_model "
    "with base model: anthropic-claude-opus-4. Please submit a quota increase request."
)
GLM_WINDOW = "已达到 5 小时的使用上限。您的限额将在 2026-11-18 21:06:40 重置。"


def judge(provider: str, status: int, body: object, **fields: str) -> Verdict:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    text = json.dumps(body).encode()
    return find_provider(provider).judge(status, named, text, NOW_US)


def error(**fields: object) -> dict[str, object]:
    return {"error": fields}


RECORDED = [
    # (provider, status, body, kind, unit, window, wait)
    (
        "openai",
        429,
        error(
            message="Rate limit reached for gpt-4o-mini in project proj_1 organization "
            "org-1 on tokens per min (TPM): Limit 50000, Used 47949, Requested 3006. "
            "Please try again in 1.146s. Visit https://platform.openai.com/account",
            type="tokens",
            code="rate_limit_exceeded",
        ),
        (Kind.THROTTLED, "tokens", MINUTE, 1_146_000),
    ),
    (
        "anthropic",
        429,
        error(
            type="rate_limit_error",
            message="This request would exceed your organization's rate limit of "
            "30,000 input tokens per minute (org: 1, model: claude-opus-4-6).",
        ),
        (Kind.THROTTLED, "input_tokens", MINUTE, None),
    ),
    (
        "deepseek",
        402,
        error(message="Insufficient Balance", type="unknown_error"),
        (Kind.BILLING, None, None, None),
    ),
    (
        "holysheep",
        429,
        error(message="Rate limit exceeded", type="rate_limit_error"),
        (Kind.THROTTLED, None, None, None),
    ),
    (
        "mistral",
        429,
        {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited"},
        (Kind.THROTTLED, None, None, None),
    ),
    *(
        (
            "vertex",
            429,
            error(
                code=429,
                message=CLAUDE_ON_VERTEX.format(quota),
                status="RESOURCE_EXHAUSTED",
            ),
            (Kind.THROTTLED, unit, MINUTE, None),
        )
        for quota, unit in (
            ("requests", "requests"),
            ("tokens_per_minute", "tokens"),
            ("input_tokens_per_minute", "input_tokens"),
            ("output_tokens_per_minute", "output_tokens"),
        )
    ),
    (
        "bedrock",
        400,
        {"type": "ServiceQuotaExceededException", "message": "Try again later."},
        (Kind.THROTTLED, None, None, None),
    ),
    *(
        (
            "bedrock",
            403,
            {"type": kind, "message": "The security token is invalid."},
            (Kind.UNAUTHORIZED, None, None, None),
        )
        for kind in (
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "ExpiredTokenException",
        )
    ),
    (
        "xai",
        400,
        {
            "code": "invalid-argument",
            "error": "Incorrect API key provided: gs***Q6. You can obtain an API key.",
        },
        (Kind.UNAUTHORIZED, None, None, None),
    ),
    (
        "xai",
        429,
        {
            "code": "resource-exhausted",
            "error": "Your team 1 has either used all available credits or reached its "
            "monthly spending limit.",
        },
        (Kind.BILLING, None, None, None),
    ),
    (
        "moonshot",
        403,
        error(
            message="Your account org-1<ak-1> is not active, organization <org-1> "
            "exceeded current quota, please check your plan and billing details",
            type="exceeded_current_quota_error",
        ),
        (Kind.BILLING, None, None, None),
    ),
    (
        "moonshot",
        429,
        error(
            message="Your account 1 / proj-1 <ak-1> request reached project TPM rate "
            "limit, current: 1410, limit: 100, see https://platform.moonshot.cn",
            type="rate_limit_reached_error",
        ),
        (Kind.THROTTLED, "tokens", MINUTE, None),
    ),
    (
        "openrouter",
        403,
        error(
            code=403,
            message="Key limit exceeded.",
            metadata={"limit_source": "openrouter_key_limit"},
        ),
        (Kind.BILLING, None, None, None),
    ),
    (
        "together",
        429,
        error(
            message="You have been rate limited. Your rate limit is 60 queries per "
            "minute. Please navigate to https://api.together.xyz/settings/billing",
            type="credit_limit",
        ),
        (Kind.THROTTLED, "requests", MINUTE, None),
    ),
    (
        "fireworks",
        429,
        {
            "error": "Too Many Requests",
            "message": "You have exceeded your usage limits. Please try again later.",
        },
        (Kind.THROTTLED, None, None, None),
    ),
    (
        "azure",
        429,
        error(code="429", message=AZURE.format("token rate limit")),
        (Kind.THROTTLED, "tokens", None, 6 * SECOND),
    ),
    (
        "azure",
        429,
        error(code="429", message=AZURE.format("call rate limit")),
        (Kind.THROTTLED, "requests", None, 6 * SECOND),
    ),
    ("azure", 429, error(message=BUSY), (Kind.OVERLOADED, None, None, None)),
    (
        "mistral",
        429,
        {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited"},
        (Kind.THROTTLED, None, None, None),
    ),
    (
        "mistral",
        429,
        {"message": "Service tier capacity exceeded for this model.", "code": "3505"},
        (Kind.OVERLOADED, None, None, None),
    ),
    (
        "groq",
        429,
        error(message=GROQ, type="tokens", code="rate_limit_exceeded"),
        (Kind.THROTTLED, "tokens", MINUTE, 5_289_000),
    ),
    (
        "groq",
        413,
        error(message=GROQ_LARGE, type="tokens", code="rate_limit_exceeded"),
        (Kind.IMPOSSIBLE, "tokens", MINUTE, None),
    ),
    ("groq", 498, error(message="Flex tier."), (Kind.OVERLOADED, None, None, None)),
    (
        "xai",
        429,
        {"code": "resource-exhausted", "error": XAI},
        (Kind.THROTTLED, "requests", MINUTE, None),
    ),
    (
        "xai",
        200,
        {"code": "resource-exhausted", "error": XAI},
        (Kind.THROTTLED, "requests", MINUTE, None),
    ),
    (
        "xai",
        403,
        {"code": "permission-denied", "error": "No."},
        (Kind.FORBIDDEN, None, None, None),
    ),
    (
        "openrouter",
        429,
        error(
            code=429,
            message=FREE_DAY,
            metadata={
                "headers": {**FREE_RESET, "X-RateLimit-Reset": "1795003600000"},
                "error_type": "rate_limit_exceeded",
            },
        ),
        (Kind.STOPPED, "requests", DAY, HOUR),
    ),
    (
        "openrouter",
        200,
        error(
            code=429,
            message="Daily limit.",
            metadata={
                "limit_source": "openrouter_free_tier_daily",
                "headers": {**FREE_RESET, "X-RateLimit-Reset": "1795003600"},
            },
        ),
        (Kind.STOPPED, "requests", DAY, HOUR),
    ),
    (
        "openrouter",
        429,
        error(code=429, message="Rate limit exceeded: free-models-per-min."),
        (Kind.THROTTLED, "requests", MINUTE, None),
    ),
    (
        "openrouter",
        402,
        error(code=402, metadata={"reason": "in_flight_budget_exhausted"}),
        (Kind.THROTTLED, None, None, None),
    ),
    (
        "openrouter",
        402,
        error(code=402, metadata={"limit_source": "openrouter_in_flight_budget"}),
        (Kind.THROTTLED, None, None, None),
    ),
    *(
        (
            "openrouter",
            status,
            error(code=402, metadata={"reason": reason}),
            (Kind.BILLING, None, None, None),
        )
        for status in (402, 200)
        for reason in (
            "weight_exceeds_budget",
            "openrouter_credits",
            "openrouter_key_limit",
        )
    ),
    *(
        ("openrouter", status, error(code=402, message=text), (kind, unit, None, None))
        for status in (402, 200)
        for text, kind, unit in (
            (TOO_DEAR.format(3919), Kind.IMPOSSIBLE, None),
            (TOO_DEAR.format(100), Kind.IMPOSSIBLE, None),
            (TOO_DEAR.format(99), Kind.BILLING, None),
            (TOO_DEAR.format(0), Kind.BILLING, None),
            (
                "Prompt tokens limit exceeded: 230799 > 91442. To increase, visit "
                "https://openrouter.ai/settings/keys",
                Kind.IMPOSSIBLE,
                "tokens",
            ),
            ("Insufficient credits.", Kind.BILLING, None),
        )
    ),
    (
        "openai",
        401,
        {
            "error": {
                "message": "You have insufficient permissions for this operation. "
                "Missing scopes: api.evals.read. Check that you have the correct role "
                "in your organization (Reader, Writer, Owner) and project (Member, "
                "Owner), and if you're using a restricted API key, that it has the "
                "necessary scopes.",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }
        },
        (Kind.FORBIDDEN, None, None, None),
    ),
    (
        "openai",
        401,
        error(code="invalid_api_key", message="Incorrect API key provided: sk-x."),
        (Kind.UNAUTHORIZED, None, None, None),
    ),
    (
        "openrouter",
        200,
        error(code=502, message="Provider returned error"),
        (Kind.TRANSIENT, None, None, None),
    ),
    *(
        (
            "moonshot",
            429,
            error(type="rate_limit_reached_error", message=KIMI.format(said)),
            (Kind.THROTTLED, unit, window_us, None),
        )
        for said, unit, window_us in (
            ("RPM: 3", "requests", MINUTE),
            ("TPM: 500000", "tokens", MINUTE),
            ("TPD: 1500000", "tokens", DAY),
            ("concurrency: 1", "concurrent", None),
        )
    ),
    (
        "moonshot",
        200,
        error(type="rate_limit_reached_error", message="Wait."),
        (Kind.THROTTLED, None, None, None),
    ),
    (
        "moonshot",
        429,
        error(type="exceeded_current_quota_error", message="No balance."),
        (Kind.BILLING, None, None, None),
    ),
    (
        "moonshot",
        429,
        error(type="engine_overloaded_error", message="Busy."),
        (Kind.OVERLOADED, None, None, None),
    ),
    *(
        (
            "zhipu",
            429,
            error(code=code, message=message),
            (kind, unit, window_us, wait_us),
        )
        for code, message, kind, unit, window_us, wait_us in (
            ("1302", "并发数过高", Kind.THROTTLED, None, None, None),
            ("1303", "频率过高", Kind.THROTTLED, "requests", None, None),
            ("1304", "次数限额", Kind.STOPPED, "requests", DAY, None),
            ("1305", "过载", Kind.OVERLOADED, None, None, None),
            ("1312", "拥堵", Kind.OVERLOADED, None, None, None),
            ("1308", GLM_WINDOW, Kind.STOPPED, None, None, 2 * HOUR),
            ("1310", GLM_WINDOW, Kind.STOPPED, None, None, 2 * HOUR),
            ("1310", "Weekly limit.", Kind.STOPPED, None, None, None),
            ("1308", "2026-99-18 21:06:40", Kind.STOPPED, None, None, None),
            ("1113", "欠费", Kind.BILLING, None, None, None),
            ("1309", "套餐已到期", Kind.BILLING, None, None, None),
            ("1112", "锁定", Kind.FORBIDDEN, None, None, None),
            ("1121", "锁定", Kind.FORBIDDEN, None, None, None),
        )
    ),
    (
        "gemini",
        400,
        error(code=400, message="Bad.", details=[{"reason": "API_KEY_INVALID"}]),
        (Kind.UNAUTHORIZED, None, None, None),
    ),
    (
        "gemini",
        400,
        error(code=400, message="API key not valid. Please pass a valid API key."),
        (Kind.UNAUTHORIZED, None, None, None),
    ),
    *(
        ("dashscope", status, body, (kind, unit, None, None))
        for status, code, kind, unit in (
            (429, "limit_requests", Kind.THROTTLED, "requests"),
            (429, "Throttling.RateQuota", Kind.THROTTLED, "requests"),
            (429, "insufficient_quota", Kind.THROTTLED, "tokens"),
            (429, "Throttling.AllocationQuota", Kind.THROTTLED, "tokens"),
            (429, "Throttling", Kind.THROTTLED, None),
            (429, "limit_burst_rate", Kind.RAMP, None),
            (429, "Throttling.BurstRate", Kind.RAMP, None),
            (400, "Arrearage", Kind.BILLING, None),
            (400, "CommodityNotPurchased", Kind.BILLING, None),
            (400, "PrepaidBillOverdue", Kind.BILLING, None),
        )
        for body in (error(code=code, type=code), {"code": code, "message": "Over."})
    ),
    (
        "dashscope",
        429,
        {"message": "Requests throttled: unauthorized burst"},
        (Kind.THROTTLED, None, None, None),
    ),
    (
        "together",
        429,
        error(type="dynamic_request_limited", message="Over."),
        (Kind.THROTTLED, "requests", None, None),
    ),
    (
        "together",
        429,
        error(type="dynamic_token_limited", message="Over."),
        (Kind.THROTTLED, "tokens", None, None),
    ),
    ("together", 503, error(message="Busy."), (Kind.OVERLOADED, None, None, None)),
    ("together", 402, error(message="Spent."), (Kind.BILLING, None, None, None)),
    (
        "together",
        403,
        error(message="The input exceeds the context length."),
        (Kind.REJECTED, None, None, None),
    ),
    ("together", 403, error(message="No."), (Kind.FORBIDDEN, None, None, None)),
    ("fireworks", 503, error(message="Busy."), (Kind.OVERLOADED, None, None, None)),
    (
        "cohere",
        429,
        {"message": "You are past the per minute request limit, please wait."},
        (Kind.THROTTLED, "requests", MINUTE, None),
    ),
    (
        "cohere",
        429,
        {"message": COHERE_TRIAL.format("20 API calls / minute")},
        (Kind.THROTTLED, "requests", MINUTE, None),
    ),
    (
        "cohere",
        429,
        {"message": COHERE_TRIAL.format("1000 API calls / month")},
        (Kind.STOPPED, "requests", MONTH, None),
    ),
    (
        "cohere",
        429,
        {
            "message": "trial token rate limit exceeded, limit is 100000 tokens per minute"
        },
        (Kind.THROTTLED, "tokens", MINUTE, None),
    ),
]


@pytest.mark.parametrize(("provider", "status", "body", "expected"), RECORDED)
def test_an_error_means_what_the_provider_meant(
    provider: str,
    status: int,
    body: object,
    expected: tuple[Kind, str | None, int | None, int | None],
) -> None:
    read = judge(provider, status, body)

    assert expected == (read.kind, read.unit, read.window_us, read.retry_after_us)


def test_of_every_provider_an_error_is_recorded() -> None:
    assert set(PROVIDERS) == {provider for provider, *_ in RECORDED}


def test_what_is_billing_for_one_is_a_limit_for_another() -> None:
    body = error(code="insufficient_quota", message="You exceeded your quota.")

    assert Kind.BILLING is judge("openai", 429, body).kind
    assert Kind.THROTTLED is judge("dashscope", 429, body).kind


def test_azure_tells_the_wait_in_milliseconds_too() -> None:
    body = error(code="429", message=AZURE.format("token rate limit"))
    read = judge("azure", 429, body, retry_after="7", retry_after_ms="6512")

    assert 6_512_000 == read.retry_after_us


def test_a_budget_of_calls_in_flight_is_waited_for() -> None:
    body = error(code=402, metadata={"reason": "in_flight_budget_exhausted"})
    read = judge("openrouter", 402, body, retry_after="3")

    assert (True, 3 * SECOND) == (read.retry, read.retry_after_us)


def test_togethers_reset_alone_tells_the_wait() -> None:
    body = error(type="dynamic_request_limited", message="Over.")
    named = judge("together", 429, body, x_ratelimit_reset="2.5")
    unnamed = judge("together", 429, {}, x_ratelimit_reset="2.5")

    assert 2_500_000 == named.retry_after_us == unnamed.retry_after_us


NO_RESETS: tuple[object, ...] = ("", "soon", "-1", "9" * 40, 5, None, [], {})
NO_HEADERS: tuple[object, ...] = (
    *({"X-RateLimit-Reset": value} for value in NO_RESETS),
    *(None, 5, [], "x", {"": ""}),
)
NO_METADATA: tuple[object, ...] = (
    *({"headers": value} for value in NO_HEADERS),
    *({"reason": value, "limit_source": value} for value in NO_RESETS),
    *(None, 5, [], "x"),
)


@pytest.mark.parametrize("body", [error(code=429, metadata=one) for one in NO_METADATA])
def test_headers_in_a_body_that_say_nothing_are_ignored(body: object) -> None:
    read = judge("openrouter", 429, body)

    assert (Kind.THROTTLED, None) == (read.kind, read.retry_after_us)


@pytest.mark.parametrize(
    ("provider", "shown", "readings"),
    [
        (
            "azure",
            {
                "x-ratelimit-limit-requests": "10",
                "x-ratelimit-remaining-requests": "9",
                "x-ratelimit-renewalperiod-requests": "10",
                "x-ratelimit-reset-requests": "4",
                "x-ratelimit-limit-tokens": "1000",
                "x-ratelimit-remaining-tokens": "400",
                "x-ratelimit-renewalperiod-tokens": "60",
            },
            (
                Reading(
                    unit="requests",
                    window_us=10 * SECOND,
                    limit=10,
                    remaining=9,
                    full_after_us=4 * SECOND,
                ),
                Reading(unit="tokens", window_us=MINUTE, limit=1000, remaining=400),
            ),
        ),
        (
            "azure",
            {
                "x-ratelimit-limit-requests": "-1",
                "x-ratelimit-remaining-requests": "-1",
                "x-ratelimit-limit-tokens": "0",
                "x-ratelimit-remaining-tokens": "0",
            },
            (),
        ),
        (
            "groq",
            {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-remaining-requests": "14370",
                "x-ratelimit-reset-requests": "2m59.56s",
                "x-ratelimit-limit-tokens": "18000",
                "x-ratelimit-remaining-tokens": "17997",
                "x-ratelimit-reset-tokens": "7.66s",
            },
            (
                Reading(
                    unit="requests",
                    window_us=DAY,
                    limit=14_400,
                    remaining=14_370,
                    full_after_us=179_560_000,
                ),
                Reading(
                    unit="tokens",
                    window_us=MINUTE,
                    limit=18_000,
                    remaining=17_997,
                    full_after_us=7_660_000,
                ),
            ),
        ),
        (
            "mistral",
            {
                "x-ratelimit-limit-req-minute": "60",
                "x-ratelimit-remaining-req-minute": "59",
                "x-ratelimit-limit-tokens-minute": "500000",
                "x-ratelimit-remaining-tokens-minute": "499000",
                "x-ratelimit-tokens-query-cost": "1000",
            },
            (
                Reading(unit="requests", window_us=MINUTE, limit=60, remaining=59),
                Reading(
                    unit="tokens", window_us=MINUTE, limit=500_000, remaining=499_000
                ),
            ),
        ),
        (
            "mistral",
            {
                "x-ratelimitbysize-limit-minute": "500000",
                "x-ratelimitbysize-remaining-minute": "499000",
                "x-ratelimitbysize-limit-month": "1000000000",
                "x-ratelimitbysize-remaining-month": "900000000",
                "ratelimitbysize-limit": "500000",
                "ratelimitbysize-remaining": "499000",
            },
            (
                Reading(
                    unit="tokens", window_us=MINUTE, limit=500_000, remaining=499_000
                ),
                Reading(
                    unit="tokens", window_us=MONTH, limit=10**9, remaining=9 * 10**8
                ),
            ),
        ),
        (
            "cohere",
            {
                "x-endpoint-monthly-call-limit": "1000",
                "x-trial-endpoint-call-limit": "40",
                "x-trial-endpoint-call-remaining": "39",
            },
            (
                Reading(unit="requests", window_us=MONTH, limit=1000),
                Reading(unit="requests", window_us=MINUTE, limit=40, remaining=39),
            ),
        ),
        (
            "moonshot",
            {
                "X-RateLimit-Limit": "200",
                "X-RateLimit-Remaining": "199",
                "X-RateLimit-Reset": "1",
            },
            (Reading(unit="requests", limit=200, remaining=199, full_after_us=SECOND),),
        ),
        (
            "openrouter",
            {**FREE_RESET, "X-RateLimit-Reset": "1795003600000"},
            (Reading(unit="requests", limit=50, remaining=0, full_after_us=HOUR),),
        ),
        (
            "together",
            {
                "x-ratelimit-limit": "10",
                "x-ratelimit-remaining": "9",
                "x-tokenlimit-limit": "3000",
                "x-tokenlimit-remaining": "2000",
            },
            (
                Reading(unit="requests", window_us=SECOND, limit=10, remaining=9),
                Reading(unit="tokens", window_us=SECOND, limit=3000, remaining=2000),
            ),
        ),
        (
            "fireworks",
            {
                "x-ratelimit-limit-tokens-prompt": "60000",
                "x-ratelimit-remaining-tokens-prompt": "59000",
                "x-ratelimit-limit-tokens-cache-adjusted-prompt": "15000",
                "x-ratelimit-remaining-tokens-cache-adjusted-prompt": "14000",
                "x-ratelimit-limit-tokens-generated": "600",
                "x-ratelimit-remaining-tokens-generated": "500",
                "x-ratelimit-over-limit": "no",
            },
            (
                Reading(
                    unit="input_tokens",
                    window_us=SECOND,
                    limit=15_000,
                    remaining=14_000,
                ),
                Reading(
                    unit="output_tokens", window_us=SECOND, limit=600, remaining=500
                ),
            ),
        ),
    ],
)
def test_headers_are_read_as_the_provider_writes_them(
    provider: str, shown: dict[str, str], readings: tuple[Reading, ...]
) -> None:
    assert readings == find_provider(provider).readings(shown, NOW_US)


@pytest.mark.parametrize(
    "name",
    ["gemini", "vertex", "deepseek", "bedrock", "zhipu", "dashscope", "xai"],
)
def test_some_show_nothing(name: str) -> None:
    shown = {
        field: "5"
        for one in PROVIDERS.values()
        for row in one.shows
        for field in (row.limit, row.remaining)
    }

    assert () == find_provider(name).readings(shown, NOW_US)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://my-org.openai.azure.com/openai/v1", "azure"),
        ("https://my-org.services.ai.azure.com/openai/v1", "azure"),
        ("https://generativelanguage.googleapis.com", "gemini"),
        ("https://us-central1-aiplatform.googleapis.com/v1", "vertex"),
        ("https://aiplatform.googleapis.com/v1", "vertex"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1", "bedrock"),
        ("https://bedrock-mantle.us-east-1.api.aws/v1", "bedrock"),
        ("https://api.moonshot.cn/v1", "moonshot"),
        ("https://api.z.ai/api/paas/v4", "zhipu"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://api.cohere.ai/compatibility/v1", "cohere"),
        ("https://x.execute-api.us-east-1.amazonaws.com", "x.execute-api.us-east-1."),
        ("https://openai.azure.com.evil.example", "openai.azure.com.evil.example"),
    ],
)
def test_a_host_of_a_known_provider_is_known(url: str, name: str) -> None:
    provider = find_provider(url)

    assert provider.name.startswith(name)
    assert url == provider.base_url


@pytest.mark.parametrize("name", ["azure", "vertex", "bedrock"])
def test_a_base_url_for_each_account_is_asked_for_with_the_line_to_type(
    name: str,
) -> None:
    with pytest.raises(ConfigError, match=f"export {name.upper()}_BASE_URL=https://"):
        find_provider(name).require()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("gemini", "/v1beta/models/gemini-2.5-flash:generateContent"),
        ("cohere", "/v2/chat"),
    ],
)
def test_a_path_of_its_own_api_is_refused_with_what_to_do(name: str, path: str) -> None:
    provider = find_provider(name)
    with pytest.raises(ConfigError, match=r"own API is not below https://.*: use "):
        provider.require("POST", path)
    provider.require("POST", "/chat/completions")


def test_converse_is_below_the_host_and_not_below_openais_path() -> None:
    host, path = "https://bedrock-runtime.us-east-1.amazonaws.com", "/model/m/converse"
    find_provider("bedrock", base_url=host).require("POST", path)
    with pytest.raises(ConfigError, match="AWS signs such calls"):
        find_provider("bedrock", base_url=f"{host}/openai/v1").require("POST", path)


def test_what_each_counts() -> None:
    ways = {name: one.counting for name, one in PROVIDERS.items()}
    others = {name for name, way in ways.items() if way is Counting.SUM}

    assert {
        "openai": Counting.GREATER,
        "holysheep": Counting.RELAY,
        "anthropic": Counting.GENERATED,
        "gemini": Counting.INPUT,
        "azure": Counting.FIXED,
        "bedrock": Counting.BURNDOWN,
    } == {name: way for name, way in ways.items() if name not in others}
    assert {"anthropic", "mistral", "bedrock"} == {
        name for name, one in PROVIDERS.items() if one.refunds
    }
    assert {"anthropic", "groq", "fireworks", "bedrock"} == {
        name for name, one in PROVIDERS.items() if one.cached_free
    }
