"""Which providers the simulator can play, and those that are OpenAI's with a twist."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from ratekeeper.errors import ConfigError
from ratekeeper.simulator.anthropic import Anthropic
from ratekeeper.simulator.dialect import (
    Dialect,
    Endpoint,
    Headers,
    Problem,
    Trouble,
    shortest,
)
from ratekeeper.simulator.openai import OpenAI
from ratekeeper.simulator.openai_wordings import WORDINGS, Wording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratekeeper.simulator.enforcer import Refused, Standing

NATIVE = ("openai", "anthropic", "deepseek", "holysheep")
OPENAI_SHAPED = (
    "azure",
    "dashscope",
    "fireworks",
    "groq",
    "mistral",
    "moonshot",
    "openrouter",
    "together",
    "xai",
    "zhipu",
)
_NOT_YET = ("bedrock", "cohere", "gemini")
_INVALID = "invalid_request_error"


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


def find_dialect(name: str) -> Dialect:
    """Return the dialect of a provider; a name nobody knows speaks as OpenAI does.

    A name that is nearly a known one, or whose shapes are not built yet, is a
    `ConfigError`.
    """
    kinds: dict[str, type[OpenAI | Anthropic]] = {
        kind.name: kind for kind in (OpenAI, Anthropic, DeepSeek, HolySheep)
    }
    if name in kinds:
        return kinds[name]()
    if name in _NOT_YET:
        message = (
            f"the simulator does not speak {name}'s own shapes yet: expected one of "
            f"{', '.join((*NATIVE, *OPENAI_SHAPED))}"
        )
        raise ConfigError(message)
    known = (*NATIVE, *OPENAI_SHAPED)
    near = [] if name in known else difflib.get_close_matches(name, known, n=1)
    if near or not name.replace("-", "").isalnum() or not name.isascii():
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        message = (
            f"{name[:60]!r} is not a provider{hint}: expected one of {', '.join(known)},"
            " or another name of letters and digits to play an OpenAI-shaped one"
        )
        raise ConfigError(message)
    return OpenAIShaped(name)
