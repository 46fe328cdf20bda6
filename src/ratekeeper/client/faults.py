"""Why no answer came: told by the types of the errors, never by their text.

It turns httpx2's exceptions into `ProviderUnreachable` with the reason and what to
check, and says whether the call may have reached the provider. It sends nothing.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import socket
import ssl
from typing import TYPE_CHECKING

import httpx2

from ratekeeper.errors import ProviderUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST = 32  # links of an error's causes that are looked at

_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})

# Raised before a byte of the request has left: sending it again costs nothing.
_UNSENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.LocalProtocolError,
    httpx2.UnsupportedProtocol,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """Where a client sends and how long it waits, as its messages say.

    `host` is the configured one with its port, whoever the vendor may be.
    """

    host: str
    connect_s: float = 10.0
    read_s: float = 120.0


def reason_of(error: Exception, *, proxied: bool) -> str:
    """Return the `reason` of `ProviderUnreachable` for an error of httpx2."""
    match error:
        case httpx2.PoolTimeout():
            return "pool-timeout"
        case httpx2.ProxyError():
            return "proxy"
        case httpx2.ConnectTimeout():
            return "proxy" if proxied else "connect-timeout"
        case httpx2.ReadTimeout():
            return "read-timeout"
        case httpx2.ConnectError():
            return _connect_reason(error, proxied=proxied)
        case _:
            return "broken"


def _connect_reason(error: httpx2.ConnectError, *, proxied: bool) -> str:
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "tls"
    if proxied:
        return "proxy"
    if any(isinstance(cause, socket.gaierror | UnicodeError) for cause in causes):
        return "dns"
    # A connection that was made and then lost its peer, but is not in use yet: the
    # handshake. asyncio tells it by errors that are no OSError.
    if any(isinstance(cause, ConnectionResetError) for cause in causes) or not any(
        isinstance(cause, OSError) for cause in causes
    ):
        return "tls"
    return "refused"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk an error's causes and contexts, groups included, each once."""
    seen: set[int] = set()
    line: list[BaseException | None] = [error]
    for _ in itertools.repeat(None, _DEEPEST):
        if not line:
            return
        link = line.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        line += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            line += link.exceptions


def was_sent(error: Exception) -> bool:
    """Say whether the provider may have read the request, and may charge for it."""
    return not isinstance(error, _UNSENT)


def is_final(error: Exception) -> bool:
    """Say whether the next attempt would fail in the same way."""
    return isinstance(error, httpx2.LocalProtocolError) or any(
        isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)
    )


def unreachable(
    error: Exception,
    wire: Wire,
    *,
    attempts: int,
    proxy: str = "",
    out_of_time: bool = False,
    delivered: bool = False,
) -> ProviderUnreachable:
    """Say which failure it was and what to check; the cause is kept.

    `proxy` is the host of the one on the way, "" where there is none;
    `out_of_time` tells that the call's own `timeout` ended it, `delivered` that part
    of a stream had reached the caller.
    """
    reason = reason_of(error, proxied=bool(proxy))
    if reason == "read-timeout" and out_of_time:
        text = (
            f"{wire.host}: the time-out of the call was over before the answer was "
            "complete; stream, lower max_tokens, or raise timeout="
        )
    else:
        text = _sentence(reason, error, wire, proxy)
    if delivered:
        text += "; part of the stream had been delivered, so nothing is sent again"
    failure = ProviderUnreachable(text, reason=reason, attempts=attempts)
    failure.__cause__ = error
    return failure


def _sentence(reason: str, error: Exception, wire: Wire, proxy: str) -> str:
    host = wire.host
    match reason:
        case "refused" if any(
            getattr(cause, "errno", None) in _NO_ROUTE for cause in _causes(error)
        ):
            return f"no route to {host}: check the network connection and base_url="
        case "refused":
            return (
                f"{host} refused the connection: check base_url=, that the server is "
                "running, and the firewall"
            )
        case "dns":
            return (
                f"the name of {host} cannot be resolved: check base_url=, the network "
                "connection and the DNS server"
            )
        case "tls":
            return (
                f"no secure connection to {host}: check that it speaks https, the CA "
                "certificates of this machine (SSL_CERT_FILE), its clock, and whether "
                "something on the way reads the traffic"
            )
        case "proxy":
            return (
                f"the proxy {proxy or '(of the transport)'} did not connect to {host}: "
                "check proxy= or the variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
            )
        case "connect-timeout":
            return (
                f"{host} did not accept a connection within {wire.connect_s:g} s: check "
                "the network, the firewall and whether a proxy is needed"
            )
        case "read-timeout":
            return (
                f"{host} sent nothing for {wire.read_s:g} s: stream, lower max_tokens, "
                "or raise read_timeout="
            )
        case "pool-timeout":
            return (
                f"no connection to {host} became free in time: lower the concurrency, "
                "or give a transport= with more connections"
            )
        case _:
            return (
                f"the connection to {host} broke before the answer was complete: check "
                "the network, and whether something on the way cuts long answers"
            )
