"""The providers that are OpenAI with a twist, one entry each: a table, and so long.

Texts, codes and headers are as such providers have been seen to send them. What an entry
leaves out is as with OpenAI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratekeeper.simulator.dialect import (
    Headers,
    Problem,
    Trouble,
    shortest,
    whole_seconds,
)
from ratekeeper.simulator.openai_wordings import Wording
from ratekeeper.simulator.twist import Reached, Twist, plain_envelope, retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ratekeeper.simulator.enforcer import Standing

_SECOND_US = 1_000_000
_HOUR_US = 3600 * _SECOND_US
_DAY_US = 24 * _HOUR_US
_WEEK_US = 7 * _DAY_US
_UNAUTHORIZED = Trouble.UNAUTHORIZED
_KEY_WRONG = "Incorrect API key provided"


def _three(limit: str, remaining: str, reset: str) -> Headers:
    """Write the three headers that tell of requests alone."""
    return [
        ("x-ratelimit-limit", limit),
        ("x-ratelimit-remaining", remaining),
        ("x-ratelimit-reset", reset),
    ]


def _moonshot_shows(standing: Sequence[Standing], now: int) -> Headers:
    shown = shortest(standing, "requests")
    if shown is None:
        return []
    full = whole_seconds(shown.full_at - now)
    return _three(str(shown.limit), str(shown.remaining), full)


def _fireworks_shows(standing: Sequence[Standing], now: int) -> Headers:  # noqa: ARG001 - it tells of no reset
    """Write its three budgets of tokens, in tokens a second.

    The budget of whole prompts is four times that of what no cache held.
    """
    headers: Headers = []
    for name, unit, times in (
        ("prompt", "input_tokens", 4),
        ("cache-adjusted-prompt", "input_tokens", 1),
        ("generated", "output_tokens", 1),
    ):
        shown = shortest(standing, unit)
        if shown is not None:
            rate = max(1, shown.limit * _SECOND_US // shown.rule.window_us) * times
            left = min(rate, max(0, shown.remaining) * times)
            headers += [
                (f"x-ratelimit-limit-tokens-{name}", str(rate)),
                (f"x-ratelimit-remaining-tokens-{name}", str(left)),
            ]
    over = any(one.remaining <= 0 for one in standing)
    return [*headers, ("x-ratelimit-over-limit", "yes" if over else "no")]


def _together_hints(problem: Problem) -> Headers:
    if problem.trouble is not Trouble.THROTTLED or problem.wait_us is None:
        return []
    return [("x-ratelimit-reset", whole_seconds(problem.wait_us))]


def _openrouter_reset(problem: Problem) -> Headers:
    """Write the limit that is reached, its reset in epoch milliseconds."""
    refused = problem.refused
    if refused is None or problem.wait_us is None or not refused.rule.window_us:
        return []
    reset_ms = -(-(problem.now_us + problem.wait_us) // 1000)
    return _three(str(refused.rule.amount), "0", str(reset_ms))


def _openrouter_hints(problem: Problem) -> Headers:
    if problem.refused is not None and not problem.refused.rule.window_us:
        return [("retry-after", "1")]  # a budget in flight: soon, nobody knows when
    return _openrouter_reset(problem)


def _openrouter_body(error: dict[str, Any], problem: Problem) -> dict[str, Any]:
    """Write status and text, and the rest, headers included, as metadata."""
    metadata: dict[str, Any] = {}
    if error["type"]:
        metadata["error_type"] = error["type"]
    if error["code"]:
        metadata["reason"] = error["code"]
    names = {
        "x-ratelimit-limit": "X-RateLimit-Limit",
        "x-ratelimit-remaining": "X-RateLimit-Remaining",
        "x-ratelimit-reset": "X-RateLimit-Reset",
    }
    told = {names[name]: value for name, value in _openrouter_reset(problem)}
    if told:
        metadata["headers"] = told
    body = {"code": error["status"], "message": error["message"]}
    return {"error": {**body, "metadata": metadata} if metadata else body}


def _xai_body(error: dict[str, Any], problem: Problem) -> dict[str, Any]:  # noqa: ARG001 - all is in the error
    return {"code": error["code"], "error": error["message"]}


def _zhipu_body(error: dict[str, Any], problem: Problem) -> dict[str, Any]:  # noqa: ARG001 - all is in the error
    return {"error": {"code": error["code"], "message": error["message"]}}


def _moonshot_body(error: dict[str, Any], problem: Problem) -> dict[str, Any]:  # noqa: ARG001 - all is in the error
    return {"error": {"message": error["message"], "type": error["type"]}}


def _dashscope_body(error: dict[str, Any], problem: Problem) -> dict[str, Any]:
    return {**plain_envelope(error, problem), "request_id": problem.request_id}


_GLM_FAST = "您的账户已达到速率限制，请您控制请求频率"
_MOONSHOT_WHO = "Your account org-simulated<ak-simulated>"

_ALL = (
    Twist(
        name="xai",
        base_path="/v1",
        key_variable="XAI_API_KEY",
        usual_limits=("150 rps", "50M tpm"),
        reached=(
            Reached(
                code="resource-exhausted",
                text="Too many requests for team 00000000-0000-0000-0000-000000000000 "
                "and model {model}. Your team has reached its limit. {Unit} per "
                "{period} (actual/limit): {used}/{limit}.",
            ),
        ),
        wordings={
            _UNAUTHORIZED: Wording(
                400,
                "",
                "invalid-argument",
                f"{_KEY_WRONG}: xa***00. You can obtain an API key from "
                "https://console.x.ai.",
            ),
            Trouble.FORBIDDEN: Wording(
                403,
                "",
                "permission-denied",
                "The caller does not have permission to execute the specified "
                "operation.",
            ),
            Trouble.BILLING: Wording(
                429,
                "",
                "resource-exhausted",
                "Your team 00000000-0000-0000-0000-000000000000 has either used all "
                "available credits or reached its monthly spending limit. To continue "
                "making API requests, please purchase more credits or raise your "
                "spending limit.",
            ),
        },
        hints=retry_after,
        envelope=_xai_body,
    ),
    Twist(
        name="openrouter",
        base_path="/api/v1",
        key_variable="OPENROUTER_API_KEY",
        usual_limits=("20 rpm", "50 requests/day resets 00:00 UTC"),
        reached=(
            Reached(
                unit="requests",
                window_us=_DAY_US,
                type="rate_limit_exceeded",
                text="Rate limit exceeded: free-models-per-day. Add 10 credits to "
                "unlock 1000 free model requests per day",
            ),
            Reached(
                unit="concurrent",
                status=402,
                code="in_flight_budget_exhausted",
                text="Your requests in flight fill your in-flight spending budget.",
            ),
            Reached(
                type="rate_limit_exceeded",
                text="Rate limit exceeded: free-models-per-min. ",
            ),
        ),
        wordings={
            _UNAUTHORIZED: Wording(401, "", None, "No auth credentials found"),
            Trouble.BILLING: Wording(
                402,
                "",
                "openrouter_credits",
                "Insufficient credits. Add more using "
                "https://openrouter.ai/settings/credits",
            ),
            Trouble.SPEND_LIMIT: Wording(
                403, "", "openrouter_key_limit", "Key limit exceeded (total limit)."
            ),
            Trouble.OVERLOADED: Wording(
                503, "", None, "No instances available (provider overloaded)"
            ),
        },
        hints=_openrouter_hints,
        envelope=_openrouter_body,
        ends_with={
            "object": "chat.completion.chunk",
            "choices": [
                {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
            ],
        },
    ),
    Twist(
        name="moonshot",
        base_path="/v1",
        key_variable="MOONSHOT_API_KEY",
        usual_limits=("50 concurrent", "200 rpm", "2M tpm"),
        reserves=True,
        reached=(
            Reached(
                unit="concurrent",
                type="rate_limit_reached_error",
                text=f"{_MOONSHOT_WHO} request reached organization max concurrency: "
                "{limit}, please try again after {wait} seconds",
            ),
            Reached(
                unit="tokens",
                type="rate_limit_reached_error",
                text=f"{_MOONSHOT_WHO} request reached organization {{short}} rate "
                "limit, current: {used}, limit: {limit}, please try again after {wait} "
                "seconds",
            ),
            Reached(
                type="rate_limit_reached_error",
                text=f"{_MOONSHOT_WHO} request reached organization max {{short}}: "
                "{limit}, please try again after {wait} seconds",
            ),
        ),
        wordings={
            _UNAUTHORIZED: Wording(
                401, "invalid_authentication_error", None, "Invalid Authentication"
            ),
            Trouble.BILLING: Wording(
                403,
                "exceeded_current_quota_error",
                None,
                f"{_MOONSHOT_WHO} is not active, organization <org-simulated> exceeded "
                "current quota, please check your plan and billing details",
            ),
            Trouble.SLOW_DOWN: Wording(
                429,
                "rate_limit_reached_error",
                None,
                f"{_MOONSHOT_WHO} request reached its rate limit, please slow down",
            ),
            Trouble.OVERLOADED: Wording(
                429,
                "engine_overloaded_error",
                None,
                "The engine is currently overloaded, please try again later",
            ),
        },
        shows=_moonshot_shows,
        envelope=_moonshot_body,
        usage_at_end=True,
        usage_in_choice=True,
    ),
    Twist(
        name="zhipu",
        base_path="/api/paas/v4",
        key_variable="ZHIPUAI_API_KEY",
        usual_limits=("50 concurrent", "600 rpm"),
        reached=(
            Reached(
                unit="concurrent",
                code="1302",
                text="您当前使用该 API 的并发数过高，请降低并发，或联系客服增加限额",
            ),
            Reached(
                window_us=_WEEK_US,
                code="1310",
                text="您已达到每周/每月使用上限，您的限额将在 {moment} 重置",
            ),
            Reached(
                unit="requests",
                window_us=_DAY_US,
                code="1304",
                text="该 API 已达今日调用次数限额，如有更多需求，请联系客服购买",
            ),
            Reached(
                window_us=_HOUR_US,
                code="1308",
                text="已达到 {span} 小时的使用上限。您的限额将在 {moment} 重置。",
            ),
            Reached(
                unit="requests",
                code="1303",
                text="您当前使用该 API 的频率过高，请降低频率，或联系客服增加限额",
            ),
            Reached(code="1302", text=_GLM_FAST),
        ),
        wordings={
            _UNAUTHORIZED: Wording(401, "", "1000", "身份验证失败"),
            Trouble.FORBIDDEN: Wording(429, "", "1121", "账户存违规行为，账号已被锁定"),
            Trouble.BANNED: Wording(
                429, "", "1112", "您的账户已被锁定，请联系客服解锁"
            ),
            Trouble.BILLING: Wording(429, "", "1113", "您的账户已欠费，请充值后重试"),
            Trouble.SPEND_LIMIT: Wording(
                429,
                "",
                "1309",
                "您的 GLM Coding Plan 套餐已到期，暂无法使用，前往官方续订后即可恢复",
            ),
            Trouble.OVERLOADED: Wording(
                429, "", "1305", "该模型当前访问量过大，请您稍后再试"
            ),
            Trouble.SLOW_DOWN: Wording(429, "", "1302", _GLM_FAST),
            Trouble.BAD_REQUEST: Wording(
                400, "", "1210", "API 调用参数有误，请检查文档"
            ),
            Trouble.SERVER: Wording(500, "", "1200", "API 调用失败"),
        },
        envelope=_zhipu_body,
        usage_at_end=True,
    ),
    Twist(
        name="dashscope",
        base_path="/compatible-mode/v1",
        key_variable="DASHSCOPE_API_KEY",
        usual_limits=("600 rpm", "10 rps", "1M tpm"),
        reached=(
            Reached(
                unit="tokens",
                type="insufficient_quota",
                code="insufficient_quota",
                text="You exceeded your current quota, please check your plan and "
                "billing details.",
            ),
            Reached(
                type="limit_requests",
                code="limit_requests",
                text="You exceeded your current requests list.",
            ),
        ),
        wordings={
            Trouble.SLOW_DOWN: Wording(
                429,
                "limit_burst_rate",
                "limit_burst_rate",
                "Request rate increased too quickly. To ensure system stability, "
                "please adjust your client logic to scale requests more smoothly over "
                "time.",
            ),
            Trouble.BILLING: Wording(
                400,
                "Arrearage",
                "Arrearage",
                "Access denied, please make sure your account is in good standing.",
            ),
            Trouble.SPEND_LIMIT: Wording(
                400,
                "PrepaidBillOverdue",
                "PrepaidBillOverdue",
                "The prepaid bill is overdue.",
            ),
        },
        envelope=_dashscope_body,
    ),
    Twist(
        name="together",
        base_path="/v1",
        key_variable="TOGETHER_API_KEY",
        usual_limits=("600 rpm", "180k tpm"),
        reached=(
            Reached(
                unit="tokens",
                type="dynamic_token_limited",
                text="You have sent more tokens than your dynamic rate limit allows.",
            ),
            Reached(
                type="dynamic_request_limited",
                text="You have sent more requests than your dynamic rate limit allows.",
            ),
        ),
        wordings={
            Trouble.BILLING: Wording(
                402, "credit_limit", None, "Your account has reached its spend limit."
            ),
            Trouble.BODY_TOO_LARGE: Wording(
                403, "", None, "The prompt is too long for the model's context."
            ),
        },
        hints=_together_hints,
        usage_at_end=True,
    ),
    Twist(
        name="fireworks",
        base_path="/inference/v1",
        key_variable="FIREWORKS_API_KEY",
        usual_limits=("6000 rpm", "900k itpm", "36k otpm"),
        units=("requests", "tokens", "input_tokens", "output_tokens"),
        refunded=("input_tokens",),
        reached=(
            Reached(
                type="rate_limit_exceeded",
                text="You have exceeded your usage limits. Please try again later or "
                "contact Fireworks to explore dedicated capacity.",
            ),
        ),
        shows=_fireworks_shows,
    ),
)
TWISTS: Mapping[str, Twist] = {one.name: one for one in _ALL}
