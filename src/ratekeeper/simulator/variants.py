"""Providers that speak OpenAI's shapes with limits, headers and words of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratekeeper.simulator.dialect import (
    Answer,
    Call,
    Endpoint,
    Headers,
    Problem,
    Trouble,
    bearer,
    go_duration,
    shortest,
)
from ratekeeper.simulator.openai import OpenAI, usage_of
from ratekeeper.simulator.openai_wordings import WORDINGS, Wording

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ratekeeper.simulator.enforcer import Refused, Standing

_INVALID = "invalid_request_error"
_MINUTE_US = 60_000_000
_DAY_US = 24 * 60 * _MINUTE_US


class DeepSeek(OpenAI):
    """DeepSeek: limits calls in flight, says so only in words, sends no headers."""

    name = "deepseek"
    base_path = ""
    key_variable = "DEEPSEEK_API_KEY"
    usual_limits = ("1000 rpm", "200k tpm", "100 concurrent")
    wordings = {  # noqa: RUF012 - a table, never changed
        **WORDINGS,
        Trouble.UNAUTHORIZED: Wording(
            401,
            "authentication_error",
            _INVALID,
            "Authentication Fails, Your api key: **** is invalid",
        ),
        Trouble.BILLING: Wording(
            402, "unknown_error", _INVALID, "Insufficient Balance"
        ),
        Trouble.OVERLOADED: Wording(
            503,
            "service_unavailable_error",
            "service_unavailable_error",
            "Service is too busy. We advise users to temporarily switch to "
            "alternative LLM API service providers.",
        ),
    }

    def route(self, method: str, path: str) -> Endpoint | None:
        """Tell what a path does, also below `/beta`; there is chat and nothing else."""
        endpoint = super().route(method, path.removeprefix("/beta"))
        return endpoint if endpoint in {Endpoint.CHAT, Endpoint.MODELS} else None

    def limit_headers(
        self,
        standing: Sequence[Standing],  # noqa: ARG002 - it tells nothing of them
        now: int,  # noqa: ARG002
    ) -> Headers:
        """Write nothing."""
        return []

    def throttled(self, problem: Problem, refused: Refused) -> dict[str, Any]:
        """Say how many calls are in flight and how many may be."""
        error = super().throttled(problem, refused)
        if refused.rule.window_us == 0:
            error["message"] = (
                f"Your current concurrency is {refused.used + 1}, which exceeds your "
                f"concurrency limit of {refused.rule.amount}."
            )
            error["type"] = "rate_limit_error"
        return error


class HolySheep(OpenAI):
    """HolySheep: a relay that counts requests, tokens and tokens a day.

    Its headers speak of requests alone, and its reset is a moment in epoch seconds.
    """

    name = "holysheep"
    key_variable = "HOLYSHEEP_API_KEY"
    usual_limits = ("1000 rpm", "200k tpm", "10M tpd")
    settles = True

    def limit_headers(self, standing: Sequence[Standing], now: int) -> Headers:
        """Write `X-RateLimit-Limit`, `-Remaining` and `-Reset` of the requests."""
        shown = shortest(standing, "requests")
        if shown is None:
            return []
        full_s = -(-max(shown.full_at, now) // 1_000_000)
        return [
            ("x-ratelimit-limit", str(shown.limit)),
            ("x-ratelimit-remaining", str(shown.remaining)),
            ("x-ratelimit-reset", str(full_s)),
        ]


class OpenAIShaped(OpenAI):
    """Any other provider, played in OpenAI's words under its own name."""

    settles = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.key_variable = f"{name.upper().replace('-', '_')}_API_KEY"


class Reserving(OpenAI):
    """One that takes input and max_tokens at admission."""

    def costs(self, call: Call) -> dict[str, int]:
        """Take one request, the estimated input, and all that may be generated."""
        if call.endpoint is Endpoint.MODELS:
            return {}
        most = (call.max_output or 0) * call.choices
        return {"requests": 1, "tokens": call.estimate + most}


class Groq(Reserving):
    """Groq: its headers speak of the requests of a day and the tokens of a minute.

    What is larger than a limit is a 413, and streams tell their usage unasked.
    """

    name = "groq"
    base_path = "/openai/v1"
    key_variable = "GROQ_API_KEY"
    usual_limits = ("30 rpm", "1k rpd", "8k tpm", "200k tpd")
    usage_at_end = True
    wordings = {  # noqa: RUF012 - a table, never changed
        **WORDINGS,
        Trouble.TOO_LARGE: Wording(413, "tokens", "rate_limit_exceeded", ""),
        Trouble.UNAUTHORIZED: Wording(
            401, _INVALID, "invalid_api_key", "Invalid API Key"
        ),
    }

    def route(self, method: str, path: str) -> Endpoint | None:
        """Tell what a path does, with or without the leading `/openai/v1`."""
        return super().route(method, path.removeprefix("/openai"))

    def limit_headers(self, standing: Sequence[Standing], now: int) -> Headers:
        """Write the requests of a day, and the tokens of a minute."""
        headers: Headers = []
        for unit, window_us in (("requests", _DAY_US), ("tokens", _MINUTE_US)):
            for one in standing:
                if (one.rule.unit, one.rule.window_us) == (unit, window_us):
                    headers += [
                        (f"x-ratelimit-limit-{unit}", str(one.limit)),
                        (f"x-ratelimit-remaining-{unit}", str(one.remaining)),
                        (f"x-ratelimit-reset-{unit}", go_duration(one.full_at - now)),
                    ]
        return headers

    def closing(self, call: Call, answer: Answer) -> dict[str, Any]:
        """Tell the usage under a name of its own."""
        usage = usage_of(call, answer)
        return {"x_groq": {"id": f"req_{answer.request_id}", "usage": usage}}

    def throttled(self, problem: Problem, refused: Refused) -> dict[str, Any]:
        """Say which limit is reached, with the tier of service."""
        error = super().throttled(problem, refused)
        text = error["message"].replace(
            "in organization org-simulated",
            "in organization `org_simulated` service tier `on_demand`",
        )
        text = text.partition("Visit https://")[0].replace("per min ", "per minute ")
        if refused.never:
            text = text.partition("The input or output")[0].rstrip(". ")
            text += ", please reduce your message size and try again."
        error["message"] = text.strip()
        return error


class Mistral(Reserving):
    """Mistral: debits what an answer came to, names no limit, sends errors bare."""

    name = "mistral"
    key_variable = "MISTRAL_API_KEY"
    usual_limits = ("1 rps", "500k tpm")
    settles = True
    refunded = ("tokens",)
    usage_at_end = True
    wordings = {  # noqa: RUF012 - a table, never changed
        **WORDINGS,
        Trouble.UNAUTHORIZED: Wording(401, _INVALID, None, "Unauthorized"),
        Trouble.OVERLOADED: Wording(
            503,
            "service_tier_capacity_exceeded",
            "3505",
            "Service tier capacity exceeded for this model.",
        ),
    }

    def limit_headers(
        self,
        standing: Sequence[Standing],
        now: int,  # noqa: ARG002 - it tells of no reset
    ) -> Headers:
        """Write limit and remaining of a minute's requests and tokens."""
        headers: Headers = []
        for unit, name in (("requests", "req"), ("tokens", "tokens")):
            for one in standing:
                if (one.rule.unit, one.rule.window_us) == (unit, _MINUTE_US):
                    headers += [
                        (f"x-ratelimit-limit-{name}-minute", str(one.limit)),
                        (f"x-ratelimit-remaining-{name}-minute", str(one.remaining)),
                    ]
        return headers

    def throttled(self, problem: Problem, refused: Refused) -> dict[str, Any]:
        """Say that a limit is reached, and not which."""
        if refused.never:
            return super().throttled(problem, refused)
        return {
            "message": "Rate limit exceeded",
            "type": "rate_limited",
            "param": None,
            "code": "1300",
        }

    def envelope(
        self,
        error: dict[str, Any],
        problem: Problem,  # noqa: ARG002 - all is in the error
    ) -> dict[str, Any]:
        """Write an error as the body itself."""
        return {"object": "error", **error}


class Azure(Reserving):
    """Azure: a deployment's limits, in whole seconds, never corrected.

    Its key comes in a header of its own; a wait is told in milliseconds as well.
    """

    name = "azure"
    base_path = "/openai/v1"
    key_variable = "AZURE_OPENAI_API_KEY"
    usual_limits = ("60 rpm", "10k tpm")
    wordings = {  # noqa: RUF012 - a table, never changed
        **WORDINGS,
        Trouble.UNAUTHORIZED: Wording(
            401,
            "",
            "401",
            "Access denied due to invalid subscription key or wrong API endpoint.",
        ),
        Trouble.OVERLOADED: Wording(
            429,
            "",
            "429",
            "The system is currently experiencing high demand and cannot process your "
            "request. Please retry later.",
        ),
    }

    def route(self, method: str, path: str) -> Endpoint | None:
        """Tell what a path does, below `/openai/v1` or a deployment's own."""
        path = path.removeprefix("/openai")
        if path.startswith("/deployments/"):
            path = "/" + path.split("/", 3)[-1]
        return super().route(method, path)

    def key(self, headers: Mapping[str, str]) -> str:
        """Return the key of the `api-key` header, or the bearer's."""
        return headers.get("api-key", "").strip() or bearer(headers)

    def limit_headers(self, standing: Sequence[Standing], now: int) -> Headers:
        """Write limit, remaining, time to full and window in plain seconds."""
        headers: Headers = []
        for unit in ("requests", "tokens"):
            shown = shortest(standing, unit)
            if shown is not None:
                reset_s = -(-max(0, shown.full_at - now) // 1_000_000)
                period_s = shown.rule.window_us // 1_000_000
                headers += [
                    (f"x-ratelimit-limit-{unit}", str(shown.limit)),
                    (f"x-ratelimit-remaining-{unit}", str(shown.remaining)),
                    (f"x-ratelimit-reset-{unit}", str(reset_s)),
                    (f"x-ratelimit-renewalperiod-{unit}", str(period_s)),
                ]
        return headers

    def throttled(self, problem: Problem, refused: Refused) -> dict[str, Any]:
        """Say which of the two limits is reached, in a sentence."""
        if refused.never:
            return super().throttled(problem, refused)
        which = "token" if refused.rule.unit == "tokens" else "call"
        wait_s = -(-(refused.wait_us or 0) // 1_000_000)
        text = (
            "Requests to the ChatCompletions_Create Operation under Azure OpenAI API "
            f"version 2024-10-21 have exceeded {which} rate limit of your current "
            f"OpenAI S0 pricing tier. Please retry after {wait_s} seconds. Please go "
            "here: https://aka.ms/oai/quotaincrease if you would like to further "
            "increase the default rate limit."
        )
        return {"code": "429", "message": text}

    def hint_headers(self, problem: Problem) -> Headers:
        """Write how long to wait, in milliseconds too."""
        headers = super().hint_headers(problem)
        if problem.wait_us is not None:
            headers.append(("retry-after-ms", str(-(-problem.wait_us // 1000))))
        return headers
