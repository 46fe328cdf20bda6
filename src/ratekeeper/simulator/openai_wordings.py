"""How OpenAI words its errors and names its limits: tables, and nothing that decides."""

from __future__ import annotations

import dataclasses

from ratekeeper.simulator.dialect import Trouble


@dataclasses.dataclass(frozen=True, slots=True)
class Wording:
    """One row of the error table: status, type, code and text."""

    status: int
    type: str
    code: str | None
    text: str


_INVALID = "invalid_request_error"
WORDINGS: dict[Trouble, Wording] = {
    Trouble.UNAUTHORIZED: Wording(
        401,
        _INVALID,
        "invalid_api_key",
        "Incorrect API key provided: {key}. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
    ),
    Trouble.FORBIDDEN: Wording(
        403,
        "request_forbidden",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    Trouble.NOT_FOUND: Wording(404, _INVALID, None, "Invalid URL"),
    Trouble.BAD_REQUEST: Wording(400, _INVALID, None, "Bad request"),
    Trouble.BODY_TOO_LARGE: Wording(
        413, _INVALID, "request_too_large", "The body of your request is too large."
    ),
    Trouble.OVERLOADED: Wording(
        503,
        "service_unavailable_error",
        "server_is_overloaded",
        "The server is currently overloaded. Please try again later.",
    ),
    Trouble.SLOW_DOWN: Wording(
        429,
        "rate_limit_error",
        "slow_down",
        "Your traffic grows too fast. Please slow down and ramp up gradually.",
    ),
    Trouble.BILLING: Wording(
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details. "
        "For more information on this error, read the docs: "
        "https://platform.openai.com/docs/guides/error-codes/api-errors.",
    ),
    Trouble.SPEND_LIMIT: Wording(
        429,
        "insufficient_quota",
        "organization_spend_limit_exceeded",
        "Your organization has reached its spend limit.",
    ),
    Trouble.BANNED: Wording(
        429,
        "account_suspended",
        "temporarily_banned",
        "Your account is temporarily banned after repeated requests above its rate "
        "limits.",
    ),
    Trouble.SERVER: Wording(
        500,
        "server_error",
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
    Trouble.TIMEOUT: Wording(504, "server_error", None, "The request timed out."),
    Trouble.OTHER: Wording(418, _INVALID, None, "Something went wrong."),
}

_ABBREVIATIONS = {
    ("requests", 60): "requests per min (RPM)",
    ("requests", 86_400): "requests per day (RPD)",
    ("tokens", 60): "tokens per min (TPM)",
    ("tokens", 86_400): "tokens per day (TPD)",
}


def per_what(unit: str, window_us: int) -> str:
    """Name a limit as OpenAI does: tokens per min (TPM)."""
    if unit == "concurrent":
        return "concurrent requests"
    seconds = window_us // 1_000_000
    return _ABBREVIATIONS.get((unit, seconds), f"{unit} per {seconds} s")
