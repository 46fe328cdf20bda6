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
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ratekeeper.providers.shapes import Json

LARGEST_ERROR = 64 * 1024  # bytes of an error body that are read
_LONGEST_TEXT = 4096
_LONGEST_CODE = 128  # patterns look at each place in it: the longest seen has 48

_MOST_DETAILS = 16  # of a list in an error; Google's have some three
_METADATA = ("reason", "limit_source", "error_type")  # OpenRouter's further codes
_ERROR_STATUS = re.compile(r"[45][0-9]{2}", re.ASCII)

IN_STREAM = 200  # the status under which an error inside a stream is looked up

_AGAIN = {Kind.THROTTLED, Kind.RAMP, Kind.STOPPED, Kind.OVERLOADED, Kind.TRANSIENT}
# `x-should-retry: true` does not make these worth another try.
_NEVER = {Kind.BILLING, Kind.IMPOSSIBLE, Kind.UNAUTHORIZED, Kind.FORBIDDEN}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row: what it fits, and what that means.

    `codes` must match one of the error's codes and types whole, `text` is searched in
    its message; None fits anything. `unit` and `window_us` name the limit, where the
    error has no words for it; `until` knows the wait better than any hint.
    """

    kind: Kind
    statuses: range | None = None
    codes: re.Pattern[str] | None = None
    text: re.Pattern[str] | None = None
    unit: str | None = None
    window_us: int | None = None
    until: Callable[[str, int], int | None] | None = None  # of its text, and of now


def on(first: int, last: int | None = None) -> range:
    """Return a row's statuses."""
    return range(first, (last or first) + 1)


def words(pattern: str) -> re.Pattern[str]:
    """Return a row's pattern: of any case, and of ASCII alone."""
    return re.compile(pattern, re.ASCII | re.IGNORECASE)


_STREAM = on(IN_STREAM)

ROWS: tuple[Row, ...] = (
    # money: nobody waits for that
    Row(
        Kind.BILLING,
        codes=words("enforced_spend_limit_reached"),
        until=lambda _, now_us: headers.month_end_us(now_us),
    ),
    Row(
        Kind.BILLING,
        codes=words(
            "insufficient_quota|credit_balance_exhausted|insufficient_balance"
            "|billing_error|billing_hard_limit_reached|billing_not_active"
            "|[a-z_]*spend_limit_(?:exceeded|reached)|organization_on_hold"
            "|organization_usage_limit_exceeded|linked_organization_billing_unavailable"
        ),
    ),
    Row(Kind.BILLING, on(402)),
    # larger than a limit: no wait would help
    Row(Kind.IMPOSSIBLE, on(413)),
    Row(Kind.IMPOSSIBLE, codes=words("request_too_large")),
    Row(Kind.IMPOSSIBLE, on(429), text=words("Request too large")),
    Row(Kind.IMPOSSIBLE, _STREAM, text=words("Request too large")),
    # banned for hours
    Row(
        Kind.STOPPED,
        codes=words("account_suspended|temporarily_(?:banned|blocked)"),
    ),
    Row(Kind.STOPPED, on(429), text=words("temporarily (?:banned|blocked)")),
    # too steep a rise
    Row(Kind.RAMP, codes=words("slow_down|ramp_limit_exceeded")),
    Row(Kind.RAMP, on(429), text=words("acceleration limit")),
    # the provider's own trouble
    Row(Kind.OVERLOADED, on(529)),
    Row(Kind.OVERLOADED, on(503)),
    Row(
        Kind.OVERLOADED,
        codes=words(
            "(?:model_)?overloaded_error|server_(?:is_)?overloaded"
            "|service_unavailable_error"
        ),
    ),
    # a limit
    Row(Kind.THROTTLED, on(429)),
    Row(
        Kind.THROTTLED,
        _STREAM,
        codes=words(
            "[a-z_]*rate_limit(?:_error|_exceeded|ed|ed_error|_reached_error)"
            "|too_many_requests|quota_exceeded"
        ),
    ),
    # who asks
    Row(Kind.UNAUTHORIZED, on(401)),
    Row(
        Kind.UNAUTHORIZED,
        _STREAM,
        codes=words("invalid_api_key|authentication_error"),
    ),
    Row(Kind.FORBIDDEN, on(403)),
    Row(Kind.FORBIDDEN, _STREAM, codes=words("permission_error")),
    # what may go better the next time
    Row(Kind.TRANSIENT, on(408, 409)),
    Row(Kind.TRANSIENT, on(500, 599)),
    Row(
        Kind.REJECTED,
        _STREAM,
        codes=words(
            "[a-z_]*(?:invalid|image|policy|content)[a-z_]*|not_found_error"
            "|data_residency_mismatch"
        ),
    ),
    Row(Kind.TRANSIENT, _STREAM),
    Row(Kind.REJECTED),
)

# How a limit is named in words: (unit, window), both found in the text.
_LIMIT = re.compile(
    r"\b(?P<unit>requests|(?:input |output )?tokens|concurrency|concurrent)\b"
    r"(?: per (?P<count>[0-9]{1,6} )?(?P<period>s|sec|second|min|minute|h|hr|hour|day"
    r"|week|month)s?\b| (?:limit|requests|connections)|: [0-9])",
    re.ASCII | re.IGNORECASE,
)
_SHORT = re.compile(r"\b(?P<unit>[RT])P(?P<period>[SMHD])\b", re.ASCII)
_SHORT_UNITS = {"R": "requests", "T": "tokens"}
_CALLED = {"call rate limit": "requests", "token rate limit": "tokens"}
# How a limit is named that each model has for itself.
_OF_MODEL = re.compile(r"Per(?:Base)?Model|_per_(?:base_)?model", re.ASCII)
_PERIODS = {
    "S": SECOND,
    "M": MINUTE,
    "H": HOUR,
    "D": DAY,
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
    """An error as it stands in a body: its codes and types, and its message.

    `status` is that of HTTP where a code is one; `delay` and `fields` are a wait and
    headers that some providers put into the body.
    """

    codes: tuple[str, ...] = ()
    type: str = ""
    text: str = ""
    status: int | None = None
    delay: str = ""
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)


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
    metadata = shapes.inner(error, "metadata")
    code = error.get("code")
    said = [code, error.get("type"), error.get("status"), details.get("error_code")]
    said += [metadata.get(name) for name in _METADATA]
    delay = ""
    for detail in _google_details(error):
        delay = shapes.text(detail, "retryDelay") or delay
        said += [detail.get("reason"), *_quotas(detail)]
    message = error.get("message", error.get("detail"))
    return ErrorFacts(
        codes=tuple(
            str(one)[:_LONGEST_CODE] for one in said if isinstance(one, str | int)
        ),
        type=shapes.text(error, "type"),
        text=message[:_LONGEST_TEXT] if isinstance(message, str) else "",
        status=_status(code),
        delay=delay,
        fields=headers.fold(
            (name, value)
            for name, value in shapes.inner(metadata, "headers").items()
            if isinstance(value, str)
        ),
    )


def _google_details(error: Json) -> Iterator[Json]:
    """Return the typed details of an error of Google's."""
    details = error.get("details")
    for detail in (details if isinstance(details, list) else [])[:_MOST_DETAILS]:
        if isinstance(detail, dict):
            yield detail


def _quotas(detail: Json) -> Iterator[object]:
    """Return the names of the quotas that a QuotaFailure says are used up."""
    violations = detail.get("violations")
    for one in (violations if isinstance(violations, list) else [])[:_MOST_DETAILS]:
        if isinstance(one, dict):
            yield one.get("quotaId")


def _status(code: object) -> int | None:
    """Return a code that is a status of HTTP's, as some write it."""
    text = str(code) if isinstance(code, str | int) else ""
    return int(text) if _ERROR_STATUS.fullmatch(text) else None


def judge(
    own: Sequence[Row],
    status: int,
    fields: Mapping[str, str],
    error: ErrorFacts,
    now_us: int,
) -> Verdict:
    """Say what an error means for whoever sent the call; `own` rows are tried first.

    Inside a 200 the error's own status counts, where it has one.
    """
    if status == IN_STREAM and error.status is not None:
        status = error.status
    row = next(row for row in (*own, *ROWS) if _fits(row, status, error))
    kind = row.kind
    unit, window_us = row.unit, row.window_us
    if unit is None and kind in {Kind.THROTTLED, Kind.STOPPED, Kind.IMPOSSIBLE}:
        unit, window_us = named_limit(error)
    if kind is Kind.THROTTLED and _exceeds(error.text):
        kind = Kind.IMPOSSIBLE
    hint = None
    if kind not in _NEVER or kind is Kind.BILLING:
        if row.until is not None:
            hint = row.until(error.text, now_us)
        if hint is None:
            hint = headers.read_hint(fields, error.text, now_us, error.delay)
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
        of_model=_OF_MODEL.search(" ".join([*_fitting(row, error), error.text]))
        is not None,
    )


def named_limit(error: ErrorFacts) -> tuple[str | None, int | None]:
    """Return the unit and the window that an error names, as far as it does."""
    match = _LIMIT.search(error.text)
    if match is None:
        for said, unit in _CALLED.items():
            if said in error.text:
                return unit, None
        match = _SHORT.search(error.text)
        if match is not None:
            return _SHORT_UNITS[match["unit"]], _PERIODS[match["period"]]
        return (error.type if error.type in {"tokens", "requests"} else None), None
    unit = match["unit"].lower().replace(" ", "_")
    if unit.startswith("concurren"):
        return "concurrent", None
    if match["period"] is None:
        return unit, None
    window = int(match["count"] or 1) * _PERIODS[match["period"].lower()]
    return unit, window


def _fits(row: Row, status: int, error: ErrorFacts) -> bool:
    return (
        (row.statuses is None or status in row.statuses)
        and (row.codes is None or bool(_fitting(row, error)))
        and (row.text is None or row.text.search(error.text) is not None)
    )


def _fitting(row: Row, error: ErrorFacts) -> list[str]:
    """Return the codes of an error that a row is about."""
    codes = row.codes
    return [] if codes is None else [x for x in error.codes if codes.fullmatch(x)]


def _exceeds(text: str) -> bool:
    """Say whether more was requested than the limit holds."""
    match = _EXCESS.search(text)
    return match is not None and int(match["requested"]) > int(match["limit"])
