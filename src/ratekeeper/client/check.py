"""Is a key alive? One cheap question to the provider, and what its answer means.

An answer that is not 200 is not "invalid": a throttled key is a valid one, and a
provider in trouble says nothing about the key.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ratekeeper.client import call as calls
from ratekeeper.core import units
from ratekeeper.errors import (
    AuthenticationError,
    BillingStopped,
    ProviderError,
    ProviderThrottled,
    ProviderUnreachable,
    RatekeeperError,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from ratekeeper.client.terms import Call, Terms

_FORBIDDEN = 403


class KeyStatus(StrEnum):
    """What is known of a key."""

    OK = "ok"
    THROTTLED = "throttled"  # valid, and at a limit just now
    NO_CREDIT = "no credit"  # valid, and the account has no credit left
    NO_PERMISSION = "no permission"  # known, and not allowed to ask
    REFUSED = "refused"
    MALFORMED = "malformed"  # it cannot be a key: nothing was sent
    CANNOT_TELL = "cannot tell"  # the provider has trouble of its own
    UNREACHABLE = "unreachable"


_VALID = frozenset({KeyStatus.OK, KeyStatus.THROTTLED, KeyStatus.NO_CREDIT})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyCheck:
    """What a check found; `key` is its last four characters, never more.

    `round_trip_s` is None where nothing was sent, `detail` says what to do.
    """

    status: KeyStatus
    key: str
    detail: str = ""
    round_trip_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the provider knows the key, whatever it says of limits."""
        return self.status in _VALID


def plan(call: Call, terms: Terms) -> Generator[calls.Effect, Any, KeyCheck]:
    """Ask once, and tell what the answer means."""
    began = terms.now_us()
    status, detail = KeyStatus.OK, ""
    try:
        yield from calls.plan(call, terms)
    except RatekeeperError as error:
        status, detail = _read(error), str(error)
    return KeyCheck(
        status=status,
        key="" if terms.key is None else str(terms.key),
        detail=detail,
        round_trip_s=units.seconds(terms.now_us() - began),
    )


def _read(error: RatekeeperError) -> KeyStatus:
    match error:
        case AuthenticationError():
            return KeyStatus.REFUSED
        case ProviderThrottled():
            return KeyStatus.THROTTLED
        case BillingStopped():
            return KeyStatus.NO_CREDIT
        case ProviderError(status=status) if status == _FORBIDDEN:
            return KeyStatus.NO_PERMISSION
        case ProviderUnreachable():
            return KeyStatus.UNREACHABLE
        case _:
            return KeyStatus.CANNOT_TELL
