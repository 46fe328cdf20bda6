"""Which credential a request carries: each SDK puts its key somewhere else.

Pure: headers and query in, one secret out. It does not know which keys exist; whoever
does may not tell from the place a key stood in.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Anthropic's SDKs, Google's, Azure's; Authorization is everybody's.
_BARE = frozenset([b"x-api-key", b"x-goog-api-key", b"api-key"])
_BEARER = b"bearer"
_AUTHORIZATION = b"authorization"
_PARAMETER = b"key"  # of a query: Google's REST

_OWN_SITE = frozenset([b"same-origin", b"none"])  # none: typed, or a bookmark
_HERE = frozenset([b"localhost", b"127.0.0.1", b"[::1]"])

# Names that nobody can have in the internet; Docker gives its host one of the second.
_PRIVATE = frozenset(["localhost", "internal"])

FIELDS = _BARE | {_AUTHORIZATION}  # the headers that never go upstream


class TwoCredentials(ValueError):
    """A request carries two different keys: which one is meant is not for us to guess."""


def credential(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> str | None:
    """Return the one secret of a request, None where it carries none.

    Names of headers are in small letters. Raises `TwoCredentials`.
    """
    found: bytes | None = None
    for name, value in headers:
        if name in _BARE:
            given = value.strip()
        elif name == _AUTHORIZATION:
            scheme, _, rest = value.strip().partition(b" ")
            given = rest.strip() if scheme.lower() == _BEARER else b""
        else:
            continue
        found = _only(found, given)
    if query:
        for part in query.split(b"&"):
            name, _, value = part.partition(b"=")
            if _is_key(name):
                given = urllib.parse.unquote_to_bytes(value.replace(b"+", b" "))
                found = _only(found, given.strip())
    return None if found is None else found.decode("latin-1")


def is_foreign(fields: Mapping[bytes, bytes]) -> bool:
    """Say whether a browser sends the request for a page of some other site.

    Such a page may have anybody's browser post, without asking, to whatever is near it.
    What is no browser says nothing of the kind, nor does a program in one that is no
    page; a page that this machine serves is its user's own.
    """
    site = fields.get(b"sec-fetch-site", b"")
    if site in _OWN_SITE:
        return False
    origin = fields.get(b"origin", b"").lower()
    if not origin:
        return site == b"cross-site"
    scheme, _, host = origin.partition(b"://")
    if scheme not in {b"http", b"https"}:
        return origin == b"null"  # a page that says not whose it is
    name = host if host.endswith(b"]") else host.rpartition(b":")[0] or host
    return host != fields.get(b"host", b"").lower() and name not in _HERE


def is_disguised(host: bytes, listens: str) -> bool:
    """Say whether a request for this machine's own address goes by a stranger's name.

    A page may have its own name lead here, and is of the same site then, for a browser.
    `listens` is the host that is listened on: where others may come, names are theirs.
    """
    name, address = _name(host), _address(listens)
    is_here = listens == "localhost" or (address is not None and address.is_loopback)
    if not is_here or _address(name) is not None:
        return False
    return name.rstrip(".").rpartition(".")[2] not in _PRIVATE


def _name(host: bytes) -> str:
    """Return a host without its port."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def strip_key(query: bytes) -> bytes:
    """Return a query without its `key=`; the rest is the same bytes."""
    if not query:
        return query
    return b"&".join(
        part for part in query.split(b"&") if not _is_key(part.partition(b"=")[0])
    )


def _is_key(name: bytes) -> bool:
    return urllib.parse.unquote_to_bytes(name.replace(b"+", b" ")).strip() == _PARAMETER


def _only(found: bytes | None, given: bytes) -> bytes | None:
    if not given:
        return found
    if found is not None and found != given:
        raise TwoCredentials("two different keys in one request")
    return given
