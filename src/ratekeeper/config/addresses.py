"""Where the gateway listens, and the proxy a provider is reached through.

Forms alone: nothing is resolved or opened. A proxy may hold a password, so no message
repeats one.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

from ratekeeper.errors import ConfigError

_LISTEN = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.\-]+)):([0-9]{1,5})", re.ASCII
)
_HOST = re.compile(r"[A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)
_MOST_PORT = 65535


def host_and_port(text: str) -> tuple[str, int]:
    """Read `127.0.0.1:8080` or `[::1]:8080`; port 0 is any that is free."""
    match = _LISTEN.fullmatch(text)
    try:
        if match is None or int(match[3]) > _MOST_PORT:
            raise ValueError
        if match[1]:
            ipaddress.IPv6Address(match[1])
    except ValueError:
        msg = (
            f"{text[:60]!r}: expected a host and a port from 0 to {_MOST_PORT}, such as "
            "127.0.0.1:8080 or [::1]:8080"
        )
        raise ConfigError(msg) from None
    return match[1] or match[2], int(match[3])


def check_proxy(url: str) -> None:
    """Raise `ConfigError` where a URL is no proxy's."""
    expected = "expected a proxy such as http://user:password@proxy.example.com:3128"
    if not url.isprintable() or " " in url or not url.isascii():
        raise ConfigError(f"the proxy has characters no URL has: {expected}")
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"the proxy's URL is malformed: {expected}") from None
    if parts.scheme not in {"http", "https"}:
        raise ConfigError(f"the proxy begins with neither http nor https: {expected}")
    place = parts.netloc.rpartition("@")[2]
    host = place.rpartition(":")[0] if port is not None else place
    if not _HOST.fullmatch(host):
        raise ConfigError(f"the proxy names no host: {expected}")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ConfigError(f"the proxy has a path or a query: {expected}")
