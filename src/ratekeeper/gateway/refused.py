"""Refused: a call that goes no further, and what its caller is told.

It knows what callers may be told of the accounts behind the gateway: which provider's
they are and that they are in the way, and not what they allow or where they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.client.pool import Silence
from ratekeeper.core import units
from ratekeeper.gateway.reply import Fault
from ratekeeper.providers.facts import Kind

if TYPE_CHECKING:
    from ratekeeper.providers.facts import Verdict

ACCOUNT_LIMITS = "what the provider's account allows"
SILENT = "{} did not answer"
BROKE_OFF = "the answer of {} broke off"


class Refused(Exception):
    """The call goes no further: what its caller is told."""

    def __init__(
        self,
        fault: Fault,
        message: str,
        *,
        retry_after_us: int | None = None,
        exact: bool = True,
        limit: str = "",
        key: str = "",
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.key = key  # whose it was, for the operator alone
        self.fault = fault
        self.message = message
        self.retry_after_us = retry_after_us
        self.exact = exact


_SILENCE = {
    Silence.DNS: "its name does not resolve",
    Silence.TLS: "its certificate is not trusted",
    Silence.PROXY: "the gateway's proxy did not let the call through",
    Silence.REFUSED: "nothing listens there",
    Silence.CONNECT_TIMEOUT: "no connection in time",
    Silence.READ_TIMEOUT: "nothing came in time",
    Silence.BROKEN: "the connection broke",
    Silence.REDIRECT: "it leads elsewhere, which is not followed",
}


def of_silence(reason: Silence, name: str, what: str = SILENT) -> Refused:
    """Tell a caller why no answer came from a provider, or no more of it."""
    fault = Fault.LATE if reason is Silence.READ_TIMEOUT else Fault.UNREACHABLE
    return Refused(fault, f"{what.format(name)}: {_SILENCE[reason]}")


def of_account(verdict: Verdict, name: str, closed_us: int) -> Refused:
    """Tell a caller of what a provider said to the gateway's account."""
    hint_us = verdict.retry_after_us
    match verdict.kind:
        case Kind.UNAUTHORIZED:
            return Refused(
                Fault.UNREACHABLE,
                f"{name} refused the gateway's own key: its operator must see to it",
            )
        case Kind.BILLING:
            return Refused(
                Fault.UNAVAILABLE,
                f"{name} has stopped the gateway's account: its operator must see to it",
                retry_after_us=closed_us or hint_us,
            )
        case _:
            return Refused(
                Fault.BUSY,
                f"{ACCOUNT_LIMITS} is used up",
                retry_after_us=hint_us or units.SECOND,
            )
