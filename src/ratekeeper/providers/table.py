"""The providers, one entry each: what Ratekeeper knows of them.

It is a table and therefore long: to add a provider is to add an entry here, an answer
it has given and a test. What an entry leaves out is as with any OpenAI-compatible API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.core.limits import Algorithm
from ratekeeper.core.units import DAY, MINUTE, MONTH, SECOND
from ratekeeper.providers import headers
from ratekeeper.providers.facts import Counting, Dialect, Kind
from ratekeeper.providers.headers import HeaderRow
from ratekeeper.providers.provider import Provider
from ratekeeper.providers.verdict import Row, on, words

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOKENS = frozenset(["tokens", "input_tokens", "output_tokens"])

_THROTTLING = "ThrottlingException"  # of Bedrock

_PLAIN_ROWS = (
    HeaderRow(
        unit="requests",
        limit="x-ratelimit-limit",
        remaining="x-ratelimit-remaining",
        reset="x-ratelimit-reset",
    ),
)
_ANTHROPIC_ROWS = tuple(
    HeaderRow(
        unit=unit,
        window_us=MINUTE,
        limit=f"anthropic-ratelimit-{unit.replace('_', '-')}-limit",
        remaining=f"anthropic-ratelimit-{unit.replace('_', '-')}-remaining",
        reset=f"anthropic-ratelimit-{unit.replace('_', '-')}-reset",
        rounded_to=rounded_to,
        repeats=unit == "tokens",  # the tightest limit in force, whichever that is
    )
    for unit, rounded_to in (
        ("requests", 1),
        ("input_tokens", 1000),
        ("output_tokens", 1000),
        ("tokens", 1000),
    )
)
_AZURE_ROWS = tuple(
    HeaderRow(
        unit=unit,
        limit=f"x-ratelimit-limit-{unit}",
        remaining=f"x-ratelimit-remaining-{unit}",
        reset=f"x-ratelimit-reset-{unit}",
        period=f"x-ratelimit-renewalperiod-{unit}",  # requests may show 1 or 10 s
    )
    for unit in ("requests", "tokens")
)
_GROQ_ROWS = tuple(
    HeaderRow(
        unit=unit,
        window_us=window_us,
        limit=f"x-ratelimit-limit-{unit}",
        remaining=f"x-ratelimit-remaining-{unit}",
        reset=f"x-ratelimit-reset-{unit}",
    )
    for unit, window_us in (("requests", DAY), ("tokens", MINUTE))
)
_MISTRAL_ROWS = (
    *(
        HeaderRow(
            unit=unit,
            window_us=MINUTE,
            limit=f"x-ratelimit-limit-{name}-minute",
            remaining=f"x-ratelimit-remaining-{name}-minute",
        )
        for unit, name in (("requests", "req"), ("tokens", "tokens"))
    ),
    *(  # the older names
        HeaderRow(
            unit="tokens",
            window_us=window_us,
            limit=f"x-ratelimitbysize-limit-{name}",
            remaining=f"x-ratelimitbysize-remaining-{name}",
            repeats=True,
        )
        for name, window_us in (("minute", MINUTE), ("month", MONTH))
    ),
    HeaderRow(
        unit="tokens",
        limit="ratelimitbysize-limit",
        remaining="ratelimitbysize-remaining",
        reset="ratelimitbysize-reset",
        repeats=True,
    ),
)
_TOGETHER_ROWS = (
    HeaderRow(
        unit="requests",
        window_us=SECOND,
        limit="x-ratelimit-limit",
        remaining="x-ratelimit-remaining",
        reset="x-ratelimit-reset",
    ),
    HeaderRow(
        unit="tokens",
        window_us=SECOND,
        limit="x-tokenlimit-limit",
        remaining="x-tokenlimit-remaining",
        reset="x-ratelimit-reset",  # of whichever limit is reached
    ),
)
_FIREWORKS_ROWS = tuple(
    HeaderRow(
        unit=unit,
        window_us=SECOND,
        limit=f"x-ratelimit-limit-tokens-{name}",
        remaining=f"x-ratelimit-remaining-tokens-{name}",
    )
    for unit, name in (
        ("input_tokens", "cache-adjusted-prompt"),  # the tighter of its two for input
        ("output_tokens", "generated"),
    )
)
_COHERE_ROWS = (
    HeaderRow(unit="requests", window_us=MONTH, limit="x-endpoint-monthly-call-limit"),
    HeaderRow(
        unit="requests",
        window_us=MINUTE,
        limit="x-trial-endpoint-call-limit",
        remaining="x-trial-endpoint-call-remaining",
    ),
)


def _pacific_midnight(_: str, now_us: int) -> int | None:
    return headers.day_end_us(now_us, "America/Los_Angeles")


def _beijing_moment(text: str, now_us: int) -> int | None:
    return headers.read_local_moment(text, now_us, "+08:00")


_GOOGLE_QUOTAS = (
    Row(
        Kind.STOPPED,
        codes=words("[a-z]*Requests[a-z]*PerDay[a-z-]*"),
        unit="requests",
        window_us=DAY,
        until=_pacific_midnight,
    ),
    Row(
        Kind.STOPPED,
        codes=words("[a-z]*PerDay[a-z-]*"),
        unit="tokens",
        window_us=DAY,
        until=_pacific_midnight,
    ),
    Row(
        Kind.THROTTLED,
        on(429),
        codes=words("[a-z]*Requests[a-z]*PerMinute[a-z-]*"),
        unit="requests",
        window_us=MINUTE,
    ),
    Row(
        Kind.THROTTLED,
        on(429),
        codes=words("[a-z]*PerMinute[a-z-]*"),
        unit="tokens",
        window_us=MINUTE,
    ),
)

_ALL = (
    Provider(
        name="openai",
        title="OpenAI",
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        key_prefixes=("sk-",),
        key_min_length=40,
        key_url="https://platform.openai.com/api-keys",
        counting=Counting.GREATER,
        margin=100,  # it guesses by characters itself, and never corrects
        errors=(
            # The key is good, and not for this: what else it does goes on.
            Row(Kind.FORBIDDEN, on(401), text=words("Missing scopes")),
        ),
    ),
    Provider(
        name="anthropic",
        title="Anthropic",
        base_url="https://api.anthropic.com",
        key_variable="ANTHROPIC_API_KEY",
        key_prefixes=("sk-ant-",),
        key_min_length=40,
        key_url="https://console.anthropic.com/settings/keys",
        auth_header="x-api-key",
        auth_scheme="",
        extra_headers=(("anthropic-version", "2023-06-01"),),
        speaks=Dialect.ANTHROPIC,
        counting=Counting.GENERATED,
        shows=_ANTHROPIC_ROWS,
        errors=(
            Row(Kind.BILLING, on(400), text=words("API usage limits|credit balance")),
        ),
        algorithm=Algorithm.TOKEN_BUCKET,
        refunds=_TOKENS,
        cached_free=True,
    ),
    Provider(
        name="azure",
        title="Azure OpenAI",
        base_form="https://RESOURCE.openai.azure.com/openai/v1",
        hosts=(
            "*.openai.azure.com",
            "*.services.ai.azure.com",
            "*.cognitiveservices.azure.com",
        ),
        key_variable="AZURE_OPENAI_API_KEY",
        key_min_length=32,
        key_url="https://portal.azure.com (Keys and Endpoint of the resource)",
        auth_header="api-key",
        auth_scheme="",
        counting=Counting.FIXED,
        margin=100,  # it guesses by characters itself, and never corrects
        shows=_AZURE_ROWS,
        errors=(
            Row(Kind.THROTTLED, on(429), text=words("(?:call|token) rate limit")),
            Row(Kind.OVERLOADED, on(429), text=words("high demand|capacity")),
        ),
    ),
    Provider(
        name="gemini",
        title="Gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        native="use google-genai, with HttpOptions(httpx_client=http_client('gemini', "
        "…)), or chat_completion()",
        key_variable="GEMINI_API_KEY",
        key_prefixes=("AIza", "AQ."),
        key_min_length=32,
        key_url="https://aistudio.google.com/apikey",
        counting=Counting.INPUT,
        shows=(),
        errors=(
            *_GOOGLE_QUOTAS,
            Row(Kind.UNAUTHORIZED, on(400), codes=words("API_KEY_INVALID")),
            Row(Kind.UNAUTHORIZED, on(400), text=words("API key not valid")),
        ),
    ),
    Provider(
        name="vertex",
        title="Vertex AI",
        base_form="https://REGION-aiplatform.googleapis.com/v1/projects/PROJECT/"
        "locations/REGION/endpoints/openapi",
        hosts=("aiplatform.googleapis.com", "*-aiplatform.googleapis.com"),
        native="use google-genai, with HttpOptions(httpx_client=http_client('vertex', "
        "…)), or chat_completion()",
        key_variable="GOOGLE_OAUTH_ACCESS_TOKEN",
        key_prefixes=("ya29.",),
        key_min_length=40,
        key_url="https://cloud.google.com/docs/authentication/rest (gcloud auth "
        "print-access-token; a token lives an hour)",
        shows=(),
        errors=(
            *_GOOGLE_QUOTAS,
            *(  # Claude's quotas are the project's own
                Row(
                    Kind.THROTTLED,
                    on(429),
                    text=words(rf"online_prediction_{unit}_per_"),
                    unit=unit,
                    window_us=MINUTE,
                )
                for unit in ("requests", "tokens", "input_tokens", "output_tokens")
            ),
            # Its quota is shared by all: others' calls, not too many of one's own.
            Row(Kind.OVERLOADED, on(429), text=words("Resource (?:has been )?exhaust")),
        ),
    ),
    Provider(
        name="deepseek",
        title="DeepSeek",
        base_url="https://api.deepseek.com",
        key_variable="DEEPSEEK_API_KEY",
        key_prefixes=("sk-",),
        key_min_length=32,
        key_url="https://platform.deepseek.com/api_keys",
        shows=(),
    ),
    Provider(
        name="mistral",
        title="Mistral",
        base_url="https://api.mistral.ai/v1",
        key_variable="MISTRAL_API_KEY",
        key_min_length=32,
        key_url="https://console.mistral.ai/api-keys",
        shows=_MISTRAL_ROWS,
        errors=(Row(Kind.OVERLOADED, text=words("tier capacity exceeded")),),
        # As others have measured: 60 s that slide, and the answer's total is debited.
        algorithm=Algorithm.SLIDING_WINDOW,
        refunds=_TOKENS,
    ),
    Provider(
        name="groq",
        title="Groq",
        base_url="https://api.groq.com/openai/v1",
        key_variable="GROQ_API_KEY",
        key_prefixes=("gsk_",),
        key_min_length=40,
        key_url="https://console.groq.com/keys",
        shows=_GROQ_ROWS,
        errors=(Row(Kind.OVERLOADED, on(498)),),  # flex capacity exceeded
        cached_free=True,
    ),
    Provider(
        name="xai",
        title="xAI",
        base_url="https://api.x.ai/v1",
        key_variable="XAI_API_KEY",
        key_prefixes=("xai-",),
        key_min_length=40,
        key_url="https://console.x.ai",
        shows=(),
        errors=(
            Row(Kind.BILLING, on(429), text=words("used all available credits")),
            Row(Kind.THROTTLED, on(200), codes=words("resource-exhausted")),
            Row(Kind.UNAUTHORIZED, on(400), text=words("Incorrect API key")),
        ),
    ),
    Provider(
        name="openrouter",
        title="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        key_prefixes=("sk-or-",),
        key_min_length=40,
        key_url="https://openrouter.ai/keys",
        shows=_PLAIN_ROWS,
        teaches=False,  # on errors alone
        errors=(
            Row(
                Kind.THROTTLED,
                on(402),
                codes=words("in_flight_budget_exhausted|openrouter_in_flight_budget"),
            ),
            # One call is too dear for what credit is left, and others are not.
            Row(
                Kind.IMPOSSIBLE,
                on(402),
                text=words(
                    "can only afford [1-9][0-9]{2}"
                    "|Prompt tokens limit exceeded: [0-9]+ > [1-9][0-9]{2}"
                ),
            ),
            Row(
                Kind.BILLING,
                on(403),
                codes=words(
                    "openrouter_(?:guardrail_budget|workspace_budget|key_limit)"
                ),
            ),
            Row(
                Kind.STOPPED,
                on(429),
                codes=words("openrouter_free_tier_daily"),
                unit="requests",
                window_us=DAY,
            ),
            Row(
                Kind.STOPPED,
                on(429),
                text=words("free-models-per-day"),
                unit="requests",
                window_us=DAY,
            ),
            Row(
                Kind.THROTTLED,
                on(429),
                text=words("free-models-per-min"),
                unit="requests",
                window_us=MINUTE,
            ),
        ),
    ),
    Provider(
        name="moonshot",
        title="Moonshot (Kimi)",
        base_url="https://api.moonshot.ai/v1",
        hosts=("api.moonshot.cn",),
        key_variable="MOONSHOT_API_KEY",
        key_prefixes=("sk-",),
        key_min_length=32,
        key_url="https://platform.moonshot.ai/console/api-keys",
        shows=_PLAIN_ROWS,
        errors=(
            Row(Kind.BILLING, codes=words("exceeded_current_quota_error")),
            Row(Kind.OVERLOADED, codes=words("engine_overloaded_error")),
        ),
    ),
    Provider(
        name="zhipu",
        title="Zhipu (GLM)",
        base_url="https://open.bigmodel.cn/api/paas/v4",
        hosts=("api.z.ai",),
        key_variable="ZHIPUAI_API_KEY",
        key_min_length=32,
        key_url="https://open.bigmodel.cn/usercenter/apikeys",
        shows=(),
        errors=(
            Row(Kind.THROTTLED, codes=words("1302")),
            Row(Kind.THROTTLED, codes=words("1303"), unit="requests"),
            Row(Kind.OVERLOADED, codes=words("1305|1312")),
            Row(Kind.STOPPED, codes=words("1304"), unit="requests", window_us=DAY),
            Row(Kind.STOPPED, codes=words("1308|1310"), until=_beijing_moment),
            Row(Kind.BILLING, codes=words("1113|1309")),
            Row(Kind.FORBIDDEN, codes=words("1112|1121")),  # locked
        ),
    ),
    Provider(
        name="dashscope",
        title="DashScope (Qwen)",
        base_url="https://dashscope.aliyuncs.com/compatible-mode/v1",
        hosts=("dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"),
        key_variable="DASHSCOPE_API_KEY",
        key_prefixes=("sk-",),
        key_min_length=32,
        key_url="https://bailian.console.aliyun.com/?tab=model#/api-key",
        shows=(),
        errors=(
            Row(
                Kind.BILLING,
                codes=words("Arrearage|CommodityNotPurchased|[A-Za-z.]*Overdue"),
            ),
            Row(Kind.RAMP, codes=words(r"Throttling\.BurstRate|limit_burst_rate")),
            # No bill, in spite of its name: the tokens of a minute or a second.
            Row(
                Kind.THROTTLED,
                codes=words(r"Throttling\.AllocationQuota|insufficient_quota"),
                unit="tokens",
            ),
            Row(
                Kind.THROTTLED,
                codes=words(r"Throttling\.RateQuota|limit_requests"),
                unit="requests",
            ),
            Row(Kind.THROTTLED, codes=words("Throttling")),
        ),
    ),
    Provider(
        name="together",
        title="Together",
        base_url="https://api.together.xyz/v1",
        hosts=("api.together.ai",),
        key_variable="TOGETHER_API_KEY",
        key_min_length=40,
        key_url="https://api.together.ai/settings/api-keys",
        shows=_TOGETHER_ROWS,
        teaches=False,  # not on every answer
        errors=(
            Row(
                Kind.THROTTLED,
                codes=words("dynamic_request_limited"),
                unit="requests",
            ),
            Row(Kind.THROTTLED, codes=words("dynamic_token_limited"), unit="tokens"),
            Row(
                Kind.THROTTLED,
                on(429),
                text=words("queries per minute"),
                unit="requests",
                window_us=MINUTE,
            ),
            Row(Kind.REJECTED, on(403), text=words("context|too long")),
        ),
    ),
    Provider(
        name="fireworks",
        title="Fireworks",
        base_url="https://api.fireworks.ai/inference/v1",
        key_variable="FIREWORKS_API_KEY",
        key_prefixes=("fw_",),
        key_min_length=24,
        key_url="https://app.fireworks.ai/settings/users/api-keys",
        shows=_FIREWORKS_ROWS,
        teaches=False,  # a second's worth, less than one call may take
        cached_free=True,
    ),
    Provider(
        name="bedrock",
        title="Amazon Bedrock",
        base_form="https://bedrock-runtime.REGION.amazonaws.com/openai/v1",
        hosts=("bedrock-runtime.*.amazonaws.com", "bedrock-mantle.*.api.aws"),
        native="AWS signs such calls: use AnthropicBedrock(http_client=http_client("
        "'bedrock', …)), or a Bedrock API key with the host alone as base_url=",
        key_variable="AWS_BEARER_TOKEN_BEDROCK",
        key_prefixes=("ABSK", "bedrock-api-key-"),
        key_min_length=40,
        key_url="https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html",
        counting=Counting.BURNDOWN,
        shows=(),
        errors=(
            Row(Kind.STOPPED, codes=words(_THROTTLING), text=words("tokens per day")),
            Row(
                Kind.OVERLOADED,
                codes=words("ModelNotReadyException|ServiceUnavailableException"),
            ),
            Row(
                Kind.THROTTLED,
                codes=words(_THROTTLING),
                text=words("Too many tokens"),
                unit="tokens",
            ),
            Row(
                Kind.THROTTLED,
                codes=words(_THROTTLING),
                text=words("Too many requests"),
                unit="requests",
            ),
            Row(
                Kind.THROTTLED,
                codes=words(f"{_THROTTLING}|ServiceQuotaExceededException"),
            ),
            Row(
                Kind.UNAUTHORIZED,
                codes=words(
                    "UnrecognizedClientException|InvalidClientTokenId"
                    "|ExpiredTokenException"
                ),
            ),
        ),
        code_header="x-amzn-errortype",
        refunds=_TOKENS,
        cached_free=True,
    ),
    Provider(
        name="cohere",
        title="Cohere",
        base_url="https://api.cohere.com/compatibility/v1",
        hosts=("api.cohere.ai",),
        native="use cohere's own SDK, or chat_completion()",
        key_variable="CO_API_KEY",
        key_min_length=32,
        key_url="https://dashboard.cohere.com/api-keys",
        shows=_COHERE_ROWS,
        teaches=False,  # for trial keys alone
        errors=(
            Row(
                Kind.STOPPED,
                text=words("API calls / month"),
                unit="requests",
                window_us=MONTH,
            ),
            Row(
                Kind.THROTTLED,
                text=words("per minute request limit|API calls / minute"),
                unit="requests",
                window_us=MINUTE,
            ),
            Row(Kind.THROTTLED, text=words("token rate limit exceeded")),
        ),
    ),
    Provider(
        name="holysheep",
        title="HolySheep",
        base_url="https://api.holysheep.ai/v1",
        key_variable="HOLYSHEEP_API_KEY",
        key_prefixes=("sk-", "hs-"),
        key_min_length=24,
        key_url="https://www.holysheep.ai",
        counting=Counting.RELAY,
        shows=_PLAIN_ROWS,
    ),
)
PROVIDERS: Mapping[str, Provider] = {one.name: one for one in _ALL}
