"""What an answer comes to: its parsed body, or why there is none and whether to retry.

Errors arrive by status, inside a 200, or inside a stream; all become `Failed` by the
provider's own verdict. Pure: bytes in, values out.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from ratekeeper.client import refusals
from ratekeeper.client.tries import THROTTLING
from ratekeeper.errors import AnswerTooLarge, ProviderError
from ratekeeper.providers.facts import Kind, Verdict

if TYPE_CHECKING:
    import httpx2

    from ratekeeper.client.terms import Terms
    from ratekeeper.errors import RatekeeperError

_FIRST_REDIRECT = 300
_IN_STREAM = 200  # the status under which providers' errors inside a stream are read


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An attempt that came to nothing, and whether another may help."""

    error: RatekeeperError
    retry: bool = False
    throttled: bool = False
    hint_us: int | None = None


def refused(
    answer: httpx2.Response, body: bytes, terms: Terms, attempts: int
) -> Failed:
    """Return what an answer with an error status means; the transport has judged it."""
    verdict: Verdict = answer.extensions["ratekeeper"]
    return _judged(verdict, answer.status_code, body, terms, attempts)


def parsed(answer: httpx2.Response, body: bytes, terms: Terms, attempts: int) -> Any:
    """Return the parsed body, None for an empty one, or `Failed`."""
    status = answer.status_code
    if status >= _FIRST_REDIRECT:
        what = "with a redirect, which is not followed: set base_url= to where it leads"
        return strange(what, terms, attempts, status=status)
    if not body.strip():
        return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        what = "with something that is not JSON: check base_url= and the path"
        return strange(what, terms, attempts, status=status, body=body)
    if _is_error(value):
        verdict = terms.provider.judge(status, answer.headers, body, terms.now_us())
        return _judged(verdict, status, body, terms, attempts)
    return value


def broken_off(event: bytes, terms: Terms, attempts: int) -> Failed:
    """Return what an error inside a stream means."""
    verdict = terms.provider.judge(_IN_STREAM, {}, event, terms.now_us())
    return _judged(verdict, _IN_STREAM, event, terms, attempts)


def strange(
    what: str, terms: Terms, attempts: int, *, status: int = 200, body: bytes = b""
) -> Failed:
    """Return the failure for an answer that no provider should give."""
    error = ProviderError(
        f"{terms.wire.host} answered {status} {what}",
        status=status,
        body=refusals.text_of(body, terms.key),
        attempts=attempts,
        provider=terms.provider.name,
    )
    return Failed(error=error)


def too_large(terms: Terms, attempts: int) -> Failed:
    """Return the failure for an answer that is larger than a client reads."""
    error = AnswerTooLarge(
        f"{terms.wire.host} answered with more than {terms.max_answer:,} bytes, which "
        "were not read: raise max_answer= if they are wanted",
        status=200,
        attempts=attempts,
        provider=terms.provider.name,
    )
    return Failed(error=error)


def _judged(
    verdict: Verdict, status: int, body: bytes, terms: Terms, attempts: int
) -> Failed:
    error = refusals.error_of(
        verdict,
        status=status,
        body=body,
        host=terms.wire.host,
        provider=terms.provider,
        key=terms.key,
        attempts=attempts,
    )
    # An allowance that is gone for nobody knows how long is not asked for again.
    endless = verdict.kind is Kind.STOPPED and verdict.retry_after_us is None
    return Failed(
        error=error,
        retry=verdict.retry and not endless,
        throttled=verdict.kind in THROTTLING,
        hint_us=verdict.retry_after_us,
    )


def _is_error(value: Any) -> bool:
    """Say whether an answer with status 200 is an error all the same."""
    return (
        isinstance(value, dict)
        and (isinstance(value.get("error"), dict) or value.get("object") == "error")
        and "choices" not in value
        and "id" not in value
    )


def is_error_chunk(chunk: dict[str, Any]) -> bool:
    """Say whether a chunk of a stream is an error."""
    return (
        chunk.get("type") == "error"
        or chunk.get("object") == "error"  # Mistral's stand bare
        or isinstance(chunk.get("error"), dict)
    )
