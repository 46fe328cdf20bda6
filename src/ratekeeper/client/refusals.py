"""An error answer turned into the error a caller sees.

The verdict is the provider's; here it becomes a type, a sentence that says what to do,
and facts. The text of the answer is kept as `body`, bounded and masked, and is never
part of the sentence.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ratekeeper.client import keys
from ratekeeper.core import units
from ratekeeper.errors import (
    AuthenticationError,
    BillingStopped,
    NeverPossible,
    ProviderError,
    ProviderOverloaded,
    ProviderThrottled,
    RatekeeperError,
)
from ratekeeper.providers.facts import Kind

if TYPE_CHECKING:
    from ratekeeper.client.keys import ApiKey
    from ratekeeper.providers.catalog import Provider
    from ratekeeper.providers.facts import Verdict

_DENIED = frozenset([401, 403])

_NAMES = {
    units.SECOND: "second",
    units.MINUTE: "minute",
    units.HOUR: "hour",
    units.DAY: "day",
    units.WEEK: "week",
    units.MONTH: "month",
}

# An error's code is a word of the provider's vocabulary; anything else is not printed.
_CODE = re.compile(r"[a-z]+(?:_[a-z]+){1,6}")
_LONGEST_CODE = 48
_LONGEST_BODY = 2**20  # bytes looked at for the key, of which the first may be kept


def error_of(
    verdict: Verdict,
    *,
    status: int,
    body: bytes,
    host: str,
    provider: Provider,
    key: ApiKey | None,
    attempts: int,
) -> RatekeeperError:
    """Return the typed error for an answer that is one."""
    said = f"{host} answered {status}{code_of(body)}"
    limit = _limit(verdict)
    sentence = f"{said}: {_sentence(verdict, limit, provider, key)}"
    facts: dict[str, Any] = {
        "status": status,
        "body": text_of(body, key),
        "attempts": attempts,
        "provider": provider.name,
    }
    hint_us = verdict.retry_after_us
    hint_s = None if hint_us is None else units.seconds(hint_us)
    match verdict.kind:
        case Kind.UNAUTHORIZED:
            return AuthenticationError(sentence, **facts)
        case Kind.BILLING:
            return BillingStopped(sentence, **facts)
        case Kind.THROTTLED | Kind.RAMP | Kind.STOPPED:
            return ProviderThrottled(
                sentence, retry_after_s=hint_s, limit=limit, **facts
            )
        case Kind.OVERLOADED:
            return ProviderOverloaded(sentence, retry_after_s=hint_s, **facts)
        case Kind.IMPOSSIBLE:
            never = NeverPossible(sentence, limit=limit, attempts=attempts)
            never.__cause__ = ProviderError(said, **facts)
            return never
        case Kind.FORBIDDEN | Kind.TRANSIENT | Kind.REJECTED:
            return ProviderError(sentence, **facts)


def is_forbidden(error: object) -> bool:
    """Say whether a key is known and may not do what was asked.

    Some answer 401 to that; where the key itself is meant, it is another error.
    """
    if isinstance(error, AuthenticationError) or not isinstance(error, ProviderError):
        return False
    return error.status in _DENIED


def _sentence(
    verdict: Verdict, limit: str, provider: Provider, key: ApiKey | None
) -> str:
    """Say what the answer means and what to do."""
    hint_us = verdict.retry_after_us
    when = "" if hint_us is None else f"; try again in {units.format_wait(hint_us)}"
    named = f" on {limit}" if limit else ""
    match verdict.kind:
        case Kind.UNAUTHORIZED:
            sent = f"the key of {key.source} ({key})" if key else "a call without a key"
            return f"it refuses {sent}; {keys.how_to(provider, key)}"
        case Kind.FORBIDDEN:
            return (
                "the key is known and may not do this; check its permissions, "
                "the project and the model's name"
            )
        case Kind.BILLING:
            return (
                "credit or a spend cap is used up, and waiting does not help; "
                "see the plan and billing pages of the account"
            )
        case Kind.THROTTLED:
            return f"a limit{named} is reached{when}"
        case Kind.RAMP:
            return f"the rise in traffic was too steep{when}"
        case Kind.STOPPED:
            return f"an allowance{named} is used up{when}"
        case Kind.OVERLOADED:
            return f"the provider is overloaded, whatever your quota{when}"
        case Kind.IMPOSSIBLE:
            return (
                f"the request is larger than a limit{named}, so no wait helps; "
                "lower max_tokens, send less, or use another model"
            )
        case Kind.TRANSIENT:
            return f"trouble at the provider, often short{when}"
        case Kind.REJECTED:
            return (
                "the request is wrong, and the same again would fail again; "
                "the provider's text is in .body"
            )


def text_of(body: bytes, key: ApiKey | None) -> str:
    """Return the text of an answer fit to keep in an error."""
    secret = "" if key is None else key.value
    return keys.masked(body[:_LONGEST_BODY].decode("utf-8", "replace"), secret)


def _limit(verdict: Verdict) -> str:
    if verdict.unit is None:
        return ""
    if verdict.window_us is None:
        return verdict.unit
    window = _NAMES.get(verdict.window_us) or units.format_wait(verdict.window_us)
    return f"{verdict.unit}/{window}"


def code_of(body: bytes) -> str:
    """Return the provider's own word for the error, as " (word)", if it is one."""
    try:
        error = json.loads(body)
        if isinstance(error, list) and error:
            error = error[0]
        error = error.get("error", error)
        found = [error.get("code"), error.get("type"), error.get("status")]
    except (ValueError, AttributeError, RecursionError):
        return ""
    for word in found:
        if (
            isinstance(word, str)
            and len(word) <= _LONGEST_CODE
            and _CODE.fullmatch(word.lower())
        ):
            return f" ({word})"
    return ""
