"""Fields: which headers go on to a provider, and which come back to a caller.

It drops what belongs to one connection (RFC 9110, 7.6.1), what proves who the caller
is, and what tells whose account answered; everything else passes as it is. Pure.
Names are in lower case, as ASGI and the pool have them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ratekeeper.gateway.reply import Header

_HOPS = frozenset(
    [
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ]
)
_STAYS = _HOPS | {
    # the caller's own proof of who it is
    b"api-key",
    b"authorization",
    b"cookie",
    b"x-api-key",
    b"x-goog-api-key",
    # of the way to the gateway, not of the way beyond
    b"accept-encoding",  # what comes back is read on its way
    b"content-length",
    b"expect",
    b"forwarded",
    b"host",
    b"via",
    b"x-real-ip",
    # the account decides
    b"openai-organization",
    b"openai-project",
    b"x-goog-user-project",
}
_STAYS_WHERE = (b"proxy-", b"x-forwarded-", b"x-ratekeeper-", b"cf-", b"x-amz-security")

_HIDDEN = _HOPS | {
    b"content-length",  # whoever sends the body knows it
    b"date",
    b"server",
    b"via",
    # of the provider's own site
    b"alt-svc",
    b"nel",
    b"report-to",
    b"set-cookie",
    b"strict-transport-security",
    # whose account it is
    b"anthropic-organization-id",
    b"anthropic-workspace-id",
    b"openai-organization",
    b"openai-project",
    # the account's limits; `retry-after` is about this very call, and passes
    b"x-endpoint-monthly-call-limit",
}
_HIDDEN_WHERE = (
    b"anthropic-fast-",
    b"anthropic-priority-",
    b"anthropic-ratelimit-",
    b"cf-",
    b"proxy-",
    b"ratelimit",
    b"x-ratekeeper-",
    b"x-ratelimit",
    b"x-tokenlimit-",
    b"x-trial-endpoint-call-",
)
_CONNECTION = b"connection"


def onward(headers: Iterable[Header]) -> list[Header]:
    """Return those of a call's headers that go on to the provider."""
    return _passed(headers, _onward)


def forwarded(headers: Iterable[Header]) -> list[Header]:
    """Return those of an answer's headers that its caller sees."""
    return _passed(headers, _back)


# All calls have much the same headers; a name may have 32 KB, which bounds what is kept.
@functools.lru_cache(maxsize=256)
def _onward(name: bytes) -> bytes:
    """Return a name in small letters, b"" where it does not go on to a provider."""
    name = name.lower()
    return b"" if name in _STAYS or name.startswith(_STAYS_WHERE) else name


@functools.lru_cache(maxsize=256)
def _back(name: bytes) -> bytes:
    """Return a name in small letters, b"" where it does not come back to a caller."""
    name = name.lower()
    return b"" if name in _HIDDEN or name.startswith(_HIDDEN_WHERE) else name


def _passed(headers: Iterable[Header], shown: Callable[[bytes], bytes]) -> list[Header]:
    passed = []
    named = None
    for given, value in headers:
        name = shown(given)
        if name:
            passed.append((name, value))
        elif given.lower() == _CONNECTION:
            named = value if named is None else named + b"," + value
    if named is None:
        return passed
    hops = {word.strip().lower() for word in named.split(b",")}
    return [field for field in passed if field[0] not in hops]
