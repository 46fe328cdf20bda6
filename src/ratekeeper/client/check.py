"""Is a key alive? One cheap question to the provider, and what its answer means.

An answer that is not 200 is not "invalid": a throttled key is a valid one, and a
provider in trouble says nothing about the key.
"""

from __future__ import annotations

import contextlib
import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ratekeeper.client import call as calls
from ratekeeper.client import keys, refusals
from ratekeeper.client.shown import shown
from ratekeeper.client.terms import TURN
from ratekeeper.core import units
from ratekeeper.errors import (
    AuthenticationError,
    BillingStopped,
    ProviderThrottled,
    ProviderUnreachable,
    RatekeeperError,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    import httpx2

    from ratekeeper.client.shown import ShownLimit
    from ratekeeper.client.terms import Call, Terms, Turn
    from ratekeeper.providers.catalog import Provider


class KeyStatus(StrEnum):
    """What is known of a key."""

    OK = "ok"
    THROTTLED = "throttled"  # valid, and at a limit just now
    NO_CREDIT = "no credit"  # valid, and the account has no credit left
    NO_PERMISSION = "no permission"  # known, and not allowed to ask
    REFUSED = "refused"
    MISSING = "no key"  # there is none: nothing was sent
    MALFORMED = "malformed"  # it cannot be a key: nothing was sent
    CANNOT_TELL = "cannot tell"  # the provider has trouble of its own
    UNREACHABLE = "unreachable"


_VALID = frozenset({KeyStatus.OK, KeyStatus.THROTTLED, KeyStatus.NO_CREDIT})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyCheck:
    """What a check found; `key` is its last four characters, never more.

    `detail` says what to do; `reason` is the flaw of a key that was not sent, or the
    `reason` of `ProviderUnreachable`. `host` was asked, through `proxy` where there is
    one; `http_status` and `code`, its own word for an error, are its answer, `limits`
    what its headers show. `round_trip_s` is None where nothing was sent.
    """

    status: KeyStatus
    key: str
    detail: str = ""
    reason: str = ""
    host: str = ""
    proxy: str = ""
    http_status: int | None = None
    code: str = ""
    round_trip_s: float | None = None
    retry_after_s: float | None = None
    limits: tuple[ShownLimit, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the provider knows the key, whatever it says of limits."""
        return self.status in _VALID


class _Seen:
    """What passed by while a question was asked."""

    turn: Turn | None = None
    answer: httpx2.Response | None = None
    body: bytes = b""


def examine(provider: Provider, value: str) -> KeyCheck | None:
    """Return what the form of a key tells; None where only the provider can say."""
    flaw = keys.flaw(provider, value) if value else None
    if value and flaw is None:
        return None
    complaint = keys.malformed(provider, value) if value else "is empty"
    return KeyCheck(
        status=KeyStatus.MALFORMED if value else KeyStatus.MISSING,
        key=keys.ending(value) if value else "",
        reason=str(flaw or ""),
        detail=f"the key {complaint}; {keys.how_to(provider)}",
    )


def plan(call: Call, terms: Terms) -> Generator[calls.Effect, Any, KeyCheck]:
    """Ask once, and tell what the answer means."""
    seen = _Seen()
    failed: RatekeeperError | None = None
    began = terms.now_us()
    try:
        yield from _watched(calls.plan(call, terms), seen)
    except RatekeeperError as error:
        failed = error
    ended = terms.now_us()
    answer = seen.answer
    return KeyCheck(
        status=KeyStatus.OK if failed is None else _read(failed),
        key="" if terms.key is None else str(terms.key),
        detail="" if failed is None else str(failed),
        reason=getattr(failed, "reason", ""),
        host=terms.wire.host,
        proxy="" if seen.turn is None else seen.turn.proxy,
        http_status=None if answer is None else answer.status_code,
        code="" if failed is None else refusals.code_of(seen.body).strip(" ()"),
        round_trip_s=units.seconds(ended - began),
        retry_after_s=getattr(failed, "retry_after_s", None),
        limits=() if answer is None else shown(terms.provider, answer.headers, ended),
    )


def _watched(
    asking: Generator[calls.Effect, Any, Any], seen: _Seen
) -> Generator[calls.Effect, Any, None]:
    """Run a plan as it is, and note what it sends and how that is answered."""
    with contextlib.suppress(StopIteration):
        effect = next(asking)
        while True:
            if isinstance(effect, calls.Send):
                seen.turn = effect.request.extensions[TURN]
            try:
                result = yield effect
            except BaseException as error:  # noqa: BLE001 - the plan's to judge
                effect = asking.throw(error)
                continue
            if isinstance(effect, calls.Send):
                seen.answer = result
            elif isinstance(effect, calls.Read):
                seen.body = result
            effect = asking.send(result)


def _read(error: RatekeeperError) -> KeyStatus:
    match error:
        case AuthenticationError():
            return KeyStatus.REFUSED
        case ProviderThrottled():
            return KeyStatus.THROTTLED
        case BillingStopped():
            return KeyStatus.NO_CREDIT
        case _ if refusals.is_forbidden(error):
            return KeyStatus.NO_PERMISSION
        case ProviderUnreachable():
            return KeyStatus.UNREACHABLE
        case _:
            return KeyStatus.CANNOT_TELL
