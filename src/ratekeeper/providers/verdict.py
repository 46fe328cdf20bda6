"""What an error answer means: a table, and the few lines that read it.

Rows are tried in order, the first that fits decides. Status and code are trusted over
text. An error inside a stream that began with 200 is read by the same table. A verdict
carries no text of the provider's.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from ratekeeper.core.units import DAY, HOUR, MINUTE, MONTH, SECOND, WEEK
from ratekeeper.providers import headers, shapes
from ratekeeper.providers.facts import Kind, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratekeeper.providers.shapes import Json

LARGEST_ERROR = 64 * 1024  # bytes of an error body that are read
_LONGEST_TEXT = 4096
_LONGEST_CODE = 128  # patterns look at each place in it: the longest seen has 48

IN_STREAM = 200  # the status under which an error inside a stream is looked up

_AGAIN = {Kind.THROTTLED, Kind.RAMP, Kind.STOPPED, Kind.OVERLOADED, Kind.TRANSIENT}
# `x-should-retry: true` does not make these worth another try.
_NEVER = {Kind.BILLING, Kind.IMPOSSIBLE, Kind.UNAUTHORIZED, Kind.FORBIDDEN}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row: what it fits, and what that means.

    `codes` must match one of the error's codes and types whole, `text` is searched in
    its message; None fits anything. `only` names the providers it is for.
    """

    kind: Kind
    statuses: range | None = None
    codes: re.Pattern[str] | None = None
    text: re.Pattern[str] | None = None
    only: frozenset[str] | None = None
    until_month_end: bool = False


def _on(first: int, last: int | None = None) -> range:
    return range(first, (last or first) + 1)


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII | re.IGNORECASE)


_STREAM = _on(IN_STREAM)

ROWS: tuple[Row, ...] = (
    # money: nobody waits for that
    Row(
        Kind.BILLING,
        codes=_words("enforced_spend_limit_reached"),
        until_month_end=True,
    ),
    Row(
        Kind.BILLING,
        codes=_words(
            "insufficient_quota|credit_balance_exhausted|insufficient_balance"
            "|billing_error|billing_hard_limit_reached|billing_not_active"
            "|[a-z_]*spend_limit_(?:exceeded|reached)|organization_on_hold"
            "|organization_usage_limit_exceeded|linked_organization_billing_unavailable"
        ),
    ),
    Row(
        Kind.BILLING,
        _on(400),
        text=_words("API usage limits|credit balance"),
        only=frozenset(["anthropic"]),
    ),
    Row(Kind.BILLING, _on(402)),
    # larger than a limit: no wait would help
    Row(Kind.IMPOSSIBLE, _on(413)),
    Row(Kind.IMPOSSIBLE, codes=_words("request_too_large")),
    Row(Kind.IMPOSSIBLE, _on(429), text=_words("Request too large")),
    Row(Kind.IMPOSSIBLE, _STREAM, text=_words("Request too large")),
    # banned for hours
    Row(
        Kind.STOPPED,
        codes=_words("account_suspended|temporarily_(?:banned|blocked)"),
    ),
    Row(Kind.STOPPED, _on(429), text=_words("temporarily (?:banned|blocked)")),
    # too steep a rise
    Row(Kind.RAMP, codes=_words("slow_down|ramp_limit_exceeded")),
    Row(Kind.RAMP, _on(429), text=_words("acceleration limit")),
    # the provider's own trouble
    Row(Kind.OVERLOADED, _on(529)),
    Row(Kind.OVERLOADED, _on(503)),
    Row(
        Kind.OVERLOADED,
        codes=_words(
            "(?:model_)?overloaded_error|server_(?:is_)?overloaded"
            "|service_unavailable_error"
        ),
    ),
    # a limit
    Row(Kind.THROTTLED, _on(429)),
    Row(
        Kind.THROTTLED,
        _STREAM,
        codes=_words("[a-z_]*rate_limit(?:_error|_exceeded|ed_error)|429"),
    ),
    # who asks
    Row(Kind.UNAUTHORIZED, _on(401)),
    Row(
        Kind.UNAUTHORIZED,
        _STREAM,
        codes=_words("invalid_api_key|authentication_error|401"),
    ),
    Row(Kind.FORBIDDEN, _on(403)),
    Row(Kind.FORBIDDEN, _STREAM, codes=_words("permission_error|403")),
    # what may go better the next time
    Row(Kind.TRANSIENT, _on(408, 409)),
    Row(Kind.TRANSIENT, _on(500, 599)),
    Row(
        Kind.REJECTED,
        _STREAM,
        codes=_words(
            "[a-z_]*(?:invalid|image|policy|content)[a-z_]*|not_found_error"
            "|data_residency_mismatch|40[0-9]"
        ),
    ),
    Row(Kind.TRANSIENT, _STREAM),
    Row(Kind.REJECTED),
)

# How a limit is named in words: (unit, window), both found in the text.
_LIMIT = re.compile(
    r"\b(?P<unit>requests|(?:input |output )?tokens|concurrency|concurrent)\b"
    r"(?: per (?P<count>[0-9]{1,6} )?(?P<period>s|sec|second|min|minute|h|hr|hour|day"
    r"|week|month)s?\b| (?:limit|requests|connections))",
    re.ASCII | re.IGNORECASE,
)
_CALLED = {"call rate limit": "requests", "token rate limit": "tokens"}
_PERIODS = {
    "s": SECOND,
    "sec": SECOND,
    "second": SECOND,
    "min": MINUTE,
    "minute": MINUTE,
    "h": HOUR,
    "hr": HOUR,
    "hour": HOUR,
    "day": DAY,
    "week": WEEK,
    "month": MONTH,
}
_EXCESS = re.compile(
    r"\bLimit:? (?P<limit>[0-9]{1,15})\b.{0,60}?"
    r"\bRequested:? (?P<requested>[0-9]{1,15})\b",
    re.ASCII,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFacts:
    """An error as it stands in a body: its codes and types, and its message."""

    codes: tuple[str, ...] = ()
    type: str = ""
    text: str = ""


def read_error(body: bytes) -> ErrorFacts:
    """Find the error in a body of any shape; what is no JSON is all text."""
    body = body[:LARGEST_ERROR]
    value = shapes.read_json(body)
    if isinstance(value, list) and value:  # a streamed answer wrapped in a list
        value = value[0]
    if not isinstance(value, dict):
        text = body[:_LONGEST_TEXT].decode("utf-8", "replace")
        return ErrorFacts(text=text)
    error = value.get("error")
    if error is None:  # the event of a response that failed
        error = shapes.inner(value, "response").get("error")
    if isinstance(error, dict):
        return facts_of(error)
    found = facts_of(value)
    if isinstance(error, str):
        return dataclasses.replace(found, text=error[:_LONGEST_TEXT])
    return found


def facts_of(error: Json) -> ErrorFacts:
    """Read an error object."""
    details = shapes.inner(error, "details")
    said = (error.get("code"), error.get("type"), details.get("error_code"))
    message = error.get("message", error.get("detail"))
    return ErrorFacts(
        codes=tuple(
            str(one)[:_LONGEST_CODE] for one in said if isinstance(one, str | int)
        ),
        type=shapes.text(error, "type"),
        text=message[:_LONGEST_TEXT] if isinstance(message, str) else "",
    )


def judge(
    provider: str,
    status: int,
    fields: Mapping[str, str],
    error: ErrorFacts,
    now_us: int,
) -> Verdict:
    """Say what an error means for whoever sent the call."""
    row = next(row for row in ROWS if _fits(row, provider, status, error))
    kind = row.kind
    unit, window_us = None, None
    if kind in {Kind.THROTTLED, Kind.IMPOSSIBLE}:
        unit, window_us = named_limit(error)
        if kind is Kind.THROTTLED and _exceeds(error.text):
            kind = Kind.IMPOSSIBLE
    hint = None
    if kind not in _NEVER or kind is Kind.BILLING:
        hint = headers.read_hint(fields, error.text, now_us)
        if hint is None and row.until_month_end:
            hint = headers.month_end_us(now_us)
    retry = kind in _AGAIN
    said = fields.get("x-should-retry", "").lower()
    if said == "false":
        retry = False
    elif said == "true" and kind not in _NEVER:
        retry = True
    return Verdict(
        kind=kind,
        retry=retry,
        retry_after_us=hint,
        unit=unit,
        window_us=window_us,
    )


def named_limit(error: ErrorFacts) -> tuple[str | None, int | None]:
    """Return the unit and the window that an error names, as far as it does."""
    match = _LIMIT.search(error.text)
    if match is None:
        for words, unit in _CALLED.items():
            if words in error.text:
                return unit, None
        return (error.type if error.type in {"tokens", "requests"} else None), None
    unit = match["unit"].lower().replace(" ", "_")
    if unit.startswith("concurren"):
        return "concurrent", None
    if match["period"] is None:
        return unit, None
    window = int(match["count"] or 1) * _PERIODS[match["period"].lower()]
    return unit, window


def _fits(row: Row, provider: str, status: int, error: ErrorFacts) -> bool:
    return (
        (row.statuses is None or status in row.statuses)
        and (row.only is None or provider in row.only)
        and (
            row.codes is None or any(row.codes.fullmatch(code) for code in error.codes)
        )
        and (row.text is None or row.text.search(error.text) is not None)
    )


def _exceeds(text: str) -> bool:
    """Say whether more was requested than the limit holds."""
    match = _EXCESS.search(text)
    return match is not None and int(match["requested"]) > int(match["limit"])
