"""The whole error tree.

Every error Ratekeeper raises on purpose is a `RatekeeperError`, carries its facts as
plain attributes, pickles, and prints a sentence that says what to do.
No message holds a key, a prompt or a body: callers pass facts, not payloads.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AnswerTooLarge",
    "AuthenticationError",
    "BillingStopped",
    "BudgetExceeded",
    "ConfigError",
    "LimitExceeded",
    "NeverPossible",
    "PriceUnknown",
    "ProviderError",
    "ProviderOverloaded",
    "ProviderThrottled",
    "ProviderUnreachable",
    "RatekeeperError",
    "StoreUnavailable",
]


def _rebuild(
    kind: type[RatekeeperError], args: tuple[Any, ...], state: dict[str, Any]
) -> RatekeeperError:
    """Recreate an error without calling its constructor, whose facts are keywords."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class RatekeeperError(Exception):
    """The root: catches everything Ratekeeper raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class ConfigError(RatekeeperError, ValueError):
    """A limit, option or file is wrong; the message points at the word."""


class PriceUnknown(ConfigError):
    """A limit counts money, and nobody has said what the call costs: it is not sent."""


class LimitExceeded(RatekeeperError):
    """A limit refuses the call for now.

    `retry_after_s` is the exact wait in seconds if no other call is admitted meanwhile
    (for a concurrency limit a lower bound); `limit` is the limit in canonical form;
    `attempts` is how often a client had sent the call before.
    """

    def __init__(
        self, message: str, *, retry_after_s: float, limit: str, attempts: int = 0
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.limit = limit
        self.attempts = attempts


class BudgetExceeded(LimitExceeded):
    """The money of this window is spent."""


class NeverPossible(RatekeeperError):
    """The call is larger than a limit: no wait would help.

    `attempts` is how often a client had sent it; where the provider said so, the
    cause is its `ProviderError`.
    """

    def __init__(self, message: str, *, limit: str, attempts: int = 0) -> None:
        super().__init__(message)
        self.limit = limit
        self.attempts = attempts


class StoreUnavailable(RatekeeperError):
    """The store that holds the limits cannot be reached or read."""


class ProviderUnreachable(RatekeeperError):
    """No answer came from the provider.

    `reason` is one of refused, dns, tls, proxy, connect-timeout, read-timeout,
    pool-timeout, broken; the message says what to check.
    """

    def __init__(self, message: str, *, reason: str, attempts: int = 1) -> None:
        super().__init__(message)
        self.reason = reason
        self.attempts = attempts


class ProviderError(RatekeeperError):
    """The provider answered with an error.

    `status` is the HTTP status, `body` the provider's own error text (bounded, keys
    masked; never part of the message), `attempts` how often the call was sent.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        body: str = "",
        attempts: int = 1,
        provider: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.attempts = attempts
        self.provider = provider


class AnswerTooLarge(ProviderError):
    """The answer is larger than a client reads: see its `max_answer`."""


class AuthenticationError(ProviderError):
    """The provider refused the key (401)."""


class ProviderThrottled(ProviderError):
    """The provider said 429; `retry_after_s` is its hint, None where it gave none."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 429,
        retry_after_s: float | None = None,
        limit: str = "",
        body: str = "",
        attempts: int = 1,
        provider: str = "",
    ) -> None:
        super().__init__(
            message, status=status, body=body, attempts=attempts, provider=provider
        )
        self.retry_after_s = retry_after_s
        self.limit = limit


class ProviderOverloaded(ProviderError):
    """The provider is overloaded (503, 529); it says nothing about your quota."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 529,
        retry_after_s: float | None = None,
        body: str = "",
        attempts: int = 1,
        provider: str = "",
    ) -> None:
        super().__init__(
            message, status=status, body=body, attempts=attempts, provider=provider
        )
        self.retry_after_s = retry_after_s


class BillingStopped(ProviderError):
    """The account is out of credit or at its spend cap: waiting does not help."""
