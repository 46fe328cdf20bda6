"""Google's uploads in several requests: each follows a URL that the first was given.

That URL leads to the provider; its caller gets one that leads here. Whoever follows it
sends no key (Google's SDKs do not), for the id in it is proof enough to Google: here it
stands for the key that began the upload, in memory and as long as that key is good.
"""

from __future__ import annotations

import re
import urllib.parse
from collections import OrderedDict
from typing import TYPE_CHECKING

from ratekeeper.gateway import auth, route

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ratekeeper.gateway.reply import Header

MOST = 10_000  # uploads under way
PREFIX = b"/gemini/upload/"
_BEGINNING = (PREFIX, b"/p/gemini/upload/")
_ID = "upload_id"
_LEADING = frozenset([b"x-goog-upload-url", b"x-goog-upload-control-url", b"location"])
_HOST = re.compile(rb"[A-Za-z0-9.\-]+(?::[0-9]+)?|\[[0-9A-Fa-f:.]+\](?::[0-9]+)?")


class Uploads:
    """Which key began an upload that is under way."""

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._secrets: OrderedDict[str, str] = OrderedDict()

    def began(self, name: str, secret: str) -> None:
        """Take note of an upload."""
        self._secrets[name] = secret
        self._secrets.move_to_end(name)
        if len(self._secrets) > self._most:
            self._secrets.popitem(last=False)

    def secret(self, query: bytes) -> str | None:
        """Return the key that began the upload of a request."""
        names = ids_in(query)
        return self._secrets.get(names[0]) if len(names) == 1 else None


def begins(raw_path: bytes) -> bool:
    """Say whether the answer to a path may name a URL to go on at."""
    return raw_path.startswith(_BEGINNING)


def ids_in(query: bytes) -> list[str]:
    """Return the ids of uploads that a query names."""
    if b"=" not in query:
        return []
    pairs = urllib.parse.parse_qsl(query.decode("latin-1"))
    return [value for name, value in pairs if name == _ID]


def led_here(
    headers: Iterable[Header], host: bytes, *, is_secure: bool
) -> Iterator[Header]:
    """Yield the headers of an answer, with URLs of uploads that lead to this host.

    A URL that would not be served here is left out, and so is a key in one.
    """
    scheme = b"https" if is_secure else b"http"
    for name, value in headers:
        if name not in _LEADING:
            yield name, value
            continue
        parts = urllib.parse.urlsplit(value)
        _, found, rest = parts.path.partition(b"/upload/")
        path = PREFIX + rest
        if found and _HOST.fullmatch(host) and route.find(path, []) is not None:
            query = auth.strip_key(parts.query)
            yield name, scheme + b"://" + host + path + b"?" + query
