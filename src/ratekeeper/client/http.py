"""Ready-made httpx2 clients with the official SDKs' own settings and a provider's limits.

`OpenAI(http_client=ratekeeper.http_client("openai", "500 rpm", "120k tpm"))`
"""

from __future__ import annotations

import http.cookiejar
import ipaddress
import socket
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from ratekeeper.client.prices import book_of
from ratekeeper.client.transport import AsyncLimitedTransport, LimitedTransport
from ratekeeper.core.policy import FROM_REFUSALS, LEARNED
from ratekeeper.errors import ConfigError
from ratekeeper.limiter import AsyncLimiter, Limiter
from ratekeeper.providers.catalog import Provider, find_provider
from ratekeeper.providers.presets import preset, presets

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ratekeeper.client.prices import Prices
    from ratekeeper.core.limits import Limit
    from ratekeeper.core.policy import Account
    from ratekeeper.stores.memory import MemoryStore

_KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")

_Transport = TypeVar("_Transport")

# What the openai and anthropic packages set on a client of their own.
SDK_TIMEOUT = httpx2.Timeout(600.0, connect=5.0)
SDK_LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)

# Answers may take minutes, and idle connections are dropped on the way.
_KEEPALIVE_S = 60


def http_client(
    provider: str,
    *limits: Limit | str,
    model: str | None = None,
    tier: str | None = None,
    name: str | None = None,
    store: MemoryStore | str = "memory://",
    timeout: float | httpx2.Timeout | None = SDK_TIMEOUT,
    proxy: str | httpx2.Proxy | None = None,
    verify: ssl.SSLContext | bool = True,
    transport: httpx2.BaseTransport | None = None,
    prices: Prices | None = None,
) -> httpx2.Client:
    """Build an `httpx2.Client` that keeps a provider account's limits.

    Say the limits, or the `tier` (and `model`) whose published limits apply; else they
    are learned from the headers of the answers. Pass it to an SDK as `http_client=`.
    Limits of one `name` and `store` are shared. The proxy
    is the environment's unless given; `transport` replaces the connections below.
    With a limit such as `$50/day`, `prices` say what models cost (a mapping, a file in
    litellm's format or a `price_book`) where genai-prices does not know better.

    Example:
        >>> client = http_client("openai", "500 rpm", "120k tpm")
        >>> OpenAI(http_client=client, max_retries=0)
    """
    found = find_provider(provider)
    said, account = account_of(found, limits, model, tier)
    limiter = Limiter(*said, name=name, store=store, account=account)
    book = book_of(prices)

    def limited(**options: Any) -> LimitedTransport:
        wrap = transport
        if wrap is None:
            wrap = httpx2.HTTPTransport(**connections(), **options)
        return LimitedTransport(limiter, found, wrap=wrap, prices=book)

    main, mounts = routes(
        limited, proxy=proxy, verify=verify, own=transport is not None
    )
    return httpx2.Client(
        transport=main,
        mounts=mounts,
        timeout=timeout,
        follow_redirects=True,
        event_hooks={"response": [keep_keys]},
    )


def async_http_client(
    provider: str,
    *limits: Limit | str,
    model: str | None = None,
    tier: str | None = None,
    name: str | None = None,
    store: MemoryStore | str = "memory://",
    timeout: float | httpx2.Timeout | None = SDK_TIMEOUT,
    proxy: str | httpx2.Proxy | None = None,
    verify: ssl.SSLContext | bool = True,
    transport: httpx2.AsyncBaseTransport | None = None,
    prices: Prices | None = None,
) -> httpx2.AsyncClient:
    """Build an `httpx2.AsyncClient` that keeps a provider account's limits.

    See `http_client`; `AsyncOpenAI(http_client=async_http_client("openai", "500 rpm"))`.
    """
    found = find_provider(provider)
    said, account = account_of(found, limits, model, tier)
    limiter = AsyncLimiter(*said, name=name, store=store, account=account)
    book = book_of(prices)

    def limited(**options: Any) -> AsyncLimitedTransport:
        wrap = transport
        if wrap is None:
            wrap = httpx2.AsyncHTTPTransport(**connections(), **options)
        return AsyncLimitedTransport(limiter, found, wrap=wrap, prices=book)

    main, mounts = routes(
        limited, proxy=proxy, verify=verify, own=transport is not None
    )

    async def keep(response: httpx2.Response) -> None:
        keep_keys(response)

    return httpx2.AsyncClient(
        transport=main,
        mounts=mounts,
        timeout=timeout,
        follow_redirects=True,
        event_hooks={"response": [keep]},
    )


def account_of(
    found: Provider,
    limits: tuple[Limit | str, ...],
    model: str | None,
    tier: str | None,
) -> tuple[tuple[Limit | str, ...], Account]:
    """Return the limits in force: those given, those a tier publishes, or learned."""
    if limits and (model is not None or tier is not None):
        msg = "give either limits or tier= (with model=), not both"
        raise ConfigError(msg)
    if tier is not None:
        published = preset(found.name, tier=tier, model=model)
        return published.limits, published.account
    account = found.account()
    said = limits or (LEARNED,)
    if LEARNED in said and not account.shows:
        tiers = dict.fromkeys(p.tier for p in presets() if p.provider == found.name)
        known = "".join(f'tier="{tier}" or ' for tier in tiers)
        msg = (
            f"{found.name} does not show its limits in every answer, so they cannot be "
            f'learned: say them, such as "500 rpm", "120k tpm", or {known}'
            f'"{FROM_REFUSALS}"'
        )
        raise ConfigError(msg)
    return said, account


def keep_keys(response: httpx2.Response) -> None:
    """Take the keys off a request that is about to follow to another host.

    httpx2 itself does so with `Authorization` alone.
    """
    if not response.has_redirect_location:
        return
    here = response.request.url
    try:
        there = here.join(response.headers["location"])
    except httpx2.InvalidURL:  # httpx2 refuses to follow that
        return
    if there.origin != here.origin:
        for name in _KEY_HEADERS:
            response.request.headers.pop(name, None)


def no_cookies() -> http.cookiejar.CookieJar:
    """Return a jar that keeps nothing: a server could fill it without end."""
    policy = http.cookiejar.DefaultCookiePolicy(allowed_domains=[])
    return http.cookiejar.CookieJar(policy)


def connections() -> dict[str, Any]:
    """Return the SDKs' own pool, with connections kept alive while an answer is made."""
    options: list[tuple[int, int, int]] = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
        if hasattr(socket, option):
            number = getattr(socket, option)
            options.append((socket.IPPROTO_TCP, number, _KEEPALIVE_S))
    return {"limits": SDK_LIMITS, "socket_options": options}


def routes(
    limited: Callable[..., _Transport], *, proxy: Any, verify: Any, own: bool
) -> tuple[_Transport, dict[str, _Transport | None]]:
    """Return the transport of a client, and those of the environment's proxies."""
    if own:
        return limited(), {}
    if proxy is not None:
        return limited(proxy=read_proxy("proxy=", proxy), verify=verify), {}
    mounts: dict[str, _Transport | None] = {
        pattern: None if url is None else limited(proxy=url, verify=verify)
        for pattern, url in environment_proxies().items()
    }
    return limited(verify=verify), mounts


def read_proxy(name: str, value: Any) -> Any:
    """Check a proxy; neither the message nor a cause repeats what may be a password."""
    if isinstance(value, httpx2.Proxy):
        return value
    try:
        httpx2.Proxy(value)
        parts = urllib.parse.urlsplit(value)
        if not parts.hostname or parts.port == 0:  # `port` checks itself
            raise ValueError
    except (TypeError, ValueError, httpx2.InvalidURL):
        msg = f"{name} is a URL such as http://user:password@proxy.example:3128"
        raise ConfigError(msg) from None
    return value


def environment_proxies() -> dict[str, str | None]:
    """Return the proxies of the environment by URL pattern; None goes directly.

    httpx2 reads them itself only for a client that is given no transport.
    """
    said = urllib.request.getproxies()
    found: dict[str, str | None] = {}
    for scheme in ("http", "https", "all"):
        url = said.get(scheme)
        if url:
            url = url if "://" in url else f"http://{url}"
            found[f"{scheme}://"] = read_proxy(f"{scheme.upper()}_PROXY", url)
    for word in said.get("no", "").split(","):
        host = word.strip()
        if host == "*":
            return {}
        if host:
            found[_direct(host)] = None
    return found


def _direct(host: str) -> str:
    """Return the URL pattern of a host that NO_PROXY names."""
    if "://" in host:
        return host
    try:
        version = ipaddress.ip_address(host.partition("/")[0].strip("[]")).version
    except ValueError:
        # "example.com" means its subdomains as well; localhost has none.
        any_below = "" if host.lower() == "localhost" or host.startswith("*") else "*"
        return f"all://{any_below}{host}"
    if version == 6 and not host.startswith("["):  # noqa: PLR2004 - IPv6
        return f"all://[{host}]"
    return f"all://{host}"
