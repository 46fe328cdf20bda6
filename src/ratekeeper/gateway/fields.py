"""Fields: which headers go on to a provider, and which come back to a caller.

It drops what belongs to one connection (RFC 9110, 7.6.1), what proves who the caller
is, what would have a provider take a request for another one than was looked at here,
and what tells whose account answered; everything else passes as it is. Pure.
"""

from __future__ import annotations

import functools
import urllib.parse
from typing import TYPE_CHECKING

from ratekeeper.gateway.auth import FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
    *FIELDS,
    b"cookie",
    b"ocp-apim-subscription-key",
    b"x-auth-token",
    b"x-goog-iam-authorization-token",
    # of the way to the gateway, not of the way beyond
    b"accept-encoding",  # what comes back is read on its way
    b"content-length",
    b"expect",
    b"forwarded",
    b"host",
    b"true-client-ip",
    b"via",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-real-ip",
    # of another request than this one
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-original-url",
    b"x-rewrite-url",
    # of an answer that would not tell what it is about, or what it cost
    b"x-goog-fieldmask",
    # the account decides
    b"anthropic-workspace-id",
    b"openai-organization",
    b"openai-project",
    b"x-goog-user-project",
}
_STAYS_WHERE = (
    b"proxy-",
    b"x-amz-security",
    b"x-forwarded-",
    b"x-goog-authenticated-",
    b"x-ratekeeper-",
    b"cf-",
)

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
# Google's servers take these for headers, or answer with less than all of it
# (cloud.google.com/apis/docs/system-parameters); so are all that begin with "$".
_SYSTEM = frozenset([b"access_token", b"callback", b"fields", b"oauth_token"])
_SHAPE = frozenset([b"alt", b"$alt"])
_SHAPES = (b"json", b"sse", b"media")  # of a stream, of a file


def onward(headers: Iterable[Header]) -> list[Header]:
    """Return those of a call's headers that go on to the provider."""
    return _passed(headers, _onward)


def texts(headers: Sequence[Header]) -> list[tuple[str, str]]:
    """Return headers as the pool takes them, who writes UTF-8: what is none is left out.

    In other bytes it would arrive as something else.
    """
    try:
        return [(name.decode(), value.decode()) for name, value in headers]
    except UnicodeDecodeError:
        return [found for header in headers for found in _text(header)]


def _text(header: Header) -> list[tuple[str, str]]:
    try:
        return [(header[0].decode(), header[1].decode())]
    except UnicodeDecodeError:
        return []


def forwarded(headers: Iterable[Header]) -> list[Header]:
    """Return those of an answer's headers that its caller sees."""
    return _passed(headers, _back)


def to_google(query: bytes) -> bytes:
    """Return a query without what would have Google take or answer it in another way."""
    return b"&".join(part for part in query.split(b"&") if _is_plain(part))


def _is_plain(part: bytes) -> bool:
    name, _, value = (
        urllib.parse.unquote_to_bytes(one.replace(b"+", b" ")).strip().lower()
        for one in part.partition(b"=")
    )
    if name in _SHAPE:
        return value.partition(b";")[0] in _SHAPES
    return name not in _SYSTEM and not name.startswith(b"$")


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
