"""What a client knows before it calls: facts checked once, and calls made of them.

It holds the provider, the key, the limits and the terms of retrying, and turns what a
caller asks for into a `Call`. It sends nothing. The body of a call is the body given:
no field is added, and none is left out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import threading
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from ratekeeper import __version__
from ratekeeper.client import check, http, keys
from ratekeeper.client.faults import Wire
from ratekeeper.client.prices import book_of
from ratekeeper.client.terms import Call, Terms
from ratekeeper.core import units
from ratekeeper.core.backoff import Backoff, RetryBudget
from ratekeeper.core.line import Priority
from ratekeeper.core.patience import Patience
from ratekeeper.errors import ConfigError
from ratekeeper.limiter import AsyncLimiter, Limiter
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.facts import Dialect
from ratekeeper.stores.open import open_store

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from ratekeeper.client.check import KeyCheck
    from ratekeeper.client.keys import ApiKey
    from ratekeeper.client.prices import Prices
    from ratekeeper.client.terms import Gate
    from ratekeeper.core.limits import Limit
    from ratekeeper.stores.memory import MemoryStore

_LimiterKind = TypeVar("_LimiterKind", Limiter, AsyncLimiter)

TIMEOUT_S = 600.0  # of a whole call, as the official SDKs wait
MAX_ANSWER = 64 * 2**20  # bytes: ten large images, or a batch of embeddings in base64
_LONGEST_S = 31 * 24 * 3600.0
_CAP_US = 20 * units.SECOND  # of the back-off, unless its base is longer
_CHAT = "/chat/completions"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~\-]+", re.ASCII)  # RFC 9110, 5.6.2


class Unset:
    """An argument that was not given: the client's own holds."""


UNSET = Unset()


class Front:
    """What both clients share: facts, checked once, and calls made of them."""

    def __init__(
        self,
        provider: str,
        *,
        api_key: str | ApiKey | None = None,
        limits: Sequence[Limit | str] | str | None = None,
        tier: str | None = None,
        model: str | None = None,
        base_url: str | None = None,
        timeout: float | None = TIMEOUT_S,
        connect_timeout: float = 10.0,
        read_timeout: float = 120.0,
        attempts: int = 3,
        backoff: float = 1.0,
        resend_lost: bool = False,
        max_answer: int = MAX_ANSWER,
        priority: str = "normal",
        proxy: str | None = None,
        verify: ssl.SSLContext | bool = True,
        store: MemoryStore | str = "memory://",
        name: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx2.BaseTransport | httpx2.AsyncBaseTransport | None = None,
        draw: random.Random | None = None,
        prices: Prices | None = None,
    ) -> None:
        self._provider = find_provider(
            provider, base_url=base_url or base_url_in(os.environ, provider)
        )
        self._provider.require()
        _check_host(self._provider.base_url)
        key = keys.find_key(self._provider, api_key, os.environ)
        said = (limits,) if isinstance(limits, str) else tuple(limits or ())
        if limits is not None and not said:
            msg = (
                "limits= names none: leave it out to have them learned, or say them, "
                'such as limits=["500 rpm", "120k tpm"]'
            )
            raise ConfigError(msg)
        self._limits, self._account = http.account_of(self._provider, said, model, tier)
        self._store = open_store(store, shared=name is not None)
        self._name = name
        self._prices = book_of(prices)
        self._headers = _own_headers(headers)
        self._timeout_us = _duration_us("timeout", timeout, may_be_none=True)
        base_us = _duration_us("backoff", backoff) or 0
        self._terms = Terms(
            provider=self._provider,
            wire=Wire(
                host=urllib.parse.urlsplit(self._provider.base_url).netloc,
                connect_s=units.seconds(
                    _positive_us("connect_timeout", connect_timeout)
                ),
                read_s=units.seconds(_positive_us("read_timeout", read_timeout)),
            ),
            key=key,
            backoff=Backoff(
                attempts=_attempts(attempts),
                base_us=base_us,
                cap_us=max(base_us, _CAP_US),
            ),
            budget=RetryBudget(),
            patience=Patience(),
            guard=threading.Lock(),
            draw=draw or random.Random(),  # noqa: S311 - jitter
            now_us=self._store.now_us,
            priority=Priority.named(priority).name.lower(),
            resend_lost=resend_lost,
            max_answer=_bytes("max_answer", max_answer),
        )
        self._connect(transport, proxy, verify)

    def _connect(
        self,
        transport: Any,
        proxy: str | None,
        verify: ssl.SSLContext | bool,  # noqa: FBT001 - private
    ) -> None:
        raise NotImplementedError

    def _new_limiter(self, kind: type[_LimiterKind]) -> _LimiterKind:
        return kind(
            *self._limits, name=self._name, store=self._store, account=self._account
        )

    def __repr__(self) -> str:
        key = self._terms.key
        shown = "no key" if key is None else f"key {key}"
        return f"<{type(self).__name__} {self._terms.wire.host}, {shown}>"

    def _call(
        self,
        method: str,
        path: str,
        body: object = UNSET,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout: float | Unset | None = UNSET,
        gate: Gate | None = None,
        key: ApiKey | None = None,
    ) -> Call:
        timeout_us = self._timeout_us
        if not isinstance(timeout, Unset):
            timeout_us = _duration_us("timeout", timeout, may_be_none=True)
        if not isinstance(method, str) or not _TOKEN.fullmatch(method):
            msg = f"method={str(method)[:40]!r}: expected a method of HTTP, as GET"
            raise ConfigError(msg)
        content = None if isinstance(body, Unset) else _encoded(body)
        url = _url(self._provider.base_url, path, params)
        self._provider.require(method, path)
        return Call(
            method=method.upper(),
            url=url,
            headers=self._all_headers(headers, key or self._terms.key, body=content),
            body=content,
            stream=stream,
            timeout_us=timeout_us,
            gate=gate,
        )

    def _all_headers(
        self, more: Mapping[str, str] | None, key: ApiKey | None, *, body: bytes | None
    ) -> tuple[tuple[str, str], ...]:
        """Join the headers of a call; the caller's own win, and stay as they are."""
        fields = {
            "accept": "*/*",
            "accept-encoding": "gzip, deflate",
            "user-agent": f"ratekeeper/{__version__}",
        }
        if body is not None:
            fields["content-type"] = "application/json"
        fields.update(self._provider.extra_headers)
        if key is not None:
            scheme = self._provider.auth_scheme
            value = f"{scheme} {key.value}" if scheme else key.value
            fields[self._provider.auth_header] = value
        fields.update(self._headers)
        fields.update(_own_headers(more))
        return tuple(fields.items())

    def _chat(
        self,
        body: Mapping[str, Any],
        *,
        timeout: float | Unset | None = UNSET,
        gate: Gate | None = None,
    ) -> Call:
        if self._provider.speaks is not Dialect.OPENAI:
            msg = (
                f"{self._provider.name} has no OpenAI-compatible endpoint: use "
                'request("POST", "/v1/messages", json={...})'
            )
            raise ConfigError(msg)
        for needed in ("model", "messages"):
            if needed not in body:
                msg = f"a chat completion needs {needed}="
                raise ConfigError(msg)
        return self._call(
            "POST",
            _CHAT,
            dict(body),
            stream=body.get("stream") is True,
            timeout=timeout,
            gate=gate,
        )

    def _one_of_many(self, body: object, gate: Gate) -> Call:
        """Return the call for an item of a batch."""
        if not isinstance(body, Mapping):
            msg = f"a request is a dictionary, not {type(body).__name__}"
            raise ConfigError(msg)
        if body.get("stream") is True:
            msg = "stream=True has no place in a batch: leave it out"
            raise ConfigError(msg)
        return self._chat(body, gate=gate)

    def _key_check(
        self, key: str | None, model: str | None
    ) -> tuple[Call, Terms] | KeyCheck:
        """Return the question whether a key is alive, or the answer that it cannot be."""
        chosen = self._terms.key
        if key is not None:
            key = key.strip()
            found = check.examine(self._provider, key)
            if found is not None:
                return found
            chosen = keys.ApiKey(value=key, source="key=")
        once = dataclasses.replace(self._terms.backoff, attempts=1)
        terms = dataclasses.replace(self._terms, key=chosen, backoff=once)
        openai = self._provider.speaks is Dialect.OPENAI
        if model is None:
            path = "/models" if openai else "/v1/models"
            return self._call("GET", path, key=chosen), terms
        hello = [{"role": "user", "content": "Hi"}]
        body = {"model": model, "max_tokens": 1, "messages": hello}
        path = _CHAT if openai else "/v1/messages"
        return self._call("POST", path, body, key=chosen), terms


def base_url_in(environ: Mapping[str, str], provider: str) -> str | None:
    """Return where the environment sends a provider's calls, as OPENAI_BASE_URL does."""
    if "://" in provider:
        return None
    return environ.get(f"{provider.upper()}_BASE_URL", "").strip() or None


def _own_headers(given: Mapping[str, str] | None) -> dict[str, str]:
    """Copy a caller's headers by lower-case name; refuse what no header may hold."""
    fields = {}
    for name, value in (given or {}).items():
        if (
            not isinstance(name, str)
            or not isinstance(value, str)
            or not _TOKEN.fullmatch(name)
            or not value.isascii()
            or not value.isprintable()
            or value != value.strip()
        ):
            msg = (
                f"the header {str(name)[:40]!r}: names are tokens, and values printable "
                "ASCII without a space at either end"
            )
            raise ConfigError(msg)
        fields[name.lower()] = value
    return fields


def _check_host(base_url: str) -> None:
    try:
        httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        msg = "the base URL names a host that cannot exist"
        raise ConfigError(msg) from error


def _url(base_url: str, path: str, params: Mapping[str, Any] | None) -> str:
    """Join base URL, path and query: no path leads to another host."""
    if not isinstance(path, str) or "://" in path.partition("?")[0]:
        msg = f"path={str(path)[:40]!r}: expected a path below {base_url}, as /models"
        raise ConfigError(msg)
    url = f"{base_url}/{path.lstrip('/')}"
    try:
        if params:
            query = urllib.parse.urlencode(params, doseq=True)
            url += ("&" if "?" in url else "?") + query
        httpx2.URL(url)
    except (httpx2.InvalidURL, UnicodeError):
        msg = "the path or its parameters hold what no URL may hold"
        raise ConfigError(msg) from None
    return url


def _encoded(body: object) -> bytes:
    try:
        text = json.dumps(
            body, ensure_ascii=False, separators=(",", ":"), allow_nan=False
        )
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"the body cannot be sent as JSON ({type(error).__name__})"
        raise ConfigError(msg) from error


def host_of(proxy: str | httpx2.Proxy | None) -> str:
    """Return a proxy's host and port, without its password."""
    if proxy is None:
        return ""
    url = proxy.url if isinstance(proxy, httpx2.Proxy) else httpx2.URL(proxy)
    return url.host if url.port is None else f"{url.host}:{url.port}"


def _duration_us(
    name: str, value: float | None, *, may_be_none: bool = False
) -> int | None:
    if value is None and may_be_none:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= _LONGEST_S
    ):
        more = " or None" if may_be_none else ""
        msg = f"{name}={value!r}: expected a number of seconds{more}"
        raise ConfigError(msg)
    return units.micros(value)


def _positive_us(name: str, value: float) -> int:
    found = _duration_us(name, value)
    if not found:
        msg = f"{name}={value!r}: expected more than 0 seconds"
        raise ConfigError(msg)
    return found


def _bytes(name: str, value: int) -> int:
    if type(value) is not int or value < 1:
        msg = f"{name}={value!r}: expected a number of bytes, at least 1"
        raise ConfigError(msg)
    return value


def _attempts(value: int) -> int:
    if type(value) is not int:
        msg = f"attempts={value!r}: expected a whole number, at least 1"
        raise ConfigError(msg)
    return value
