"""Providers by name, and by their URLs: any other URL is an OpenAI-compatible one.

The facts are in the table; here they are found, and base URLs are checked.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import re
import urllib.parse

from ratekeeper.errors import ConfigError
from ratekeeper.providers.provider import GUARD_US, Provider
from ratekeeper.providers.table import PROVIDERS

__all__ = ["GUARD_US", "PROVIDERS", "Provider", "find_provider", "read_base_url"]

_LONGEST_NAME = 80


def find_provider(name_or_url: str, *, base_url: str | None = None) -> Provider:
    """Return a provider by name, or any OpenAI-compatible one by its base URL.

    `base_url` sends a known provider's calls elsewhere, to a proxy or a simulator, whose
    keys may be of any length. An unknown name or a malformed URL is a `ConfigError`.
    """
    if base_url is not None:
        known = find_provider(name_or_url)
        url = read_base_url(base_url)
        shortest = known.key_min_length if url == known.base_url else 1
        return dataclasses.replace(known, base_url=url, key_min_length=shortest)
    if "://" in name_or_url:
        return _at(read_base_url(name_or_url))
    provider = PROVIDERS.get(name_or_url.lower())
    if provider is None:
        near = difflib.get_close_matches(name_or_url.lower(), PROVIDERS, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ConfigError(
            f"{name_or_url[:_LONGEST_NAME]!r} is not a provider{hint}: expected one of "
            f"{', '.join(sorted(PROVIDERS))}, or a base URL such as "
            "https://llm.example.com/v1"
        )
    return provider


def _at(url: str) -> Provider:
    """Return the known provider at a URL's host, or a generic one."""
    host = urllib.parse.urlsplit(url).hostname or ""
    for provider in PROVIDERS.values():
        own = urllib.parse.urlsplit(provider.base_url).hostname
        if host == own or any(fnmatch.fnmatchcase(host, h) for h in provider.hosts):
            return dataclasses.replace(provider, base_url=url)
    return Provider(name=host, title=host, base_url=url)


_NETLOC = re.compile(
    r"(?:[A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII
)


def read_base_url(url: str) -> str:
    """Return a base URL without its trailing slash; a wrong one is a `ConfigError`.

    The message never repeats the URL: it may hold a secret.
    """
    expected = "expected a base URL such as https://llm.example.com/v1"
    if not url.isprintable() or " " in url or not url.isascii():
        raise ConfigError(f"the base URL has characters no URL has: {expected}")
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ConfigError(f"the base URL is malformed: {expected}") from None
    if parts.scheme.lower() not in {"http", "https"}:
        raise ConfigError(
            f"the base URL begins with neither http nor https: {expected}"
        )
    if "@" in parts.netloc:
        raise ConfigError(
            "the base URL holds a user or a password: the key goes into api_key"
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"the base URL has a query or a fragment: {expected}")
    if not _NETLOC.fullmatch(parts.netloc):
        raise ConfigError(f"the base URL names no host: {expected}")
    path = parts.path.rstrip("/")
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{path}"
