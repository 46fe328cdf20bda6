"""The shapes of a config file, as msgspec checks them.

A shape knows names and types; whether a limit, a tier or a provider exists is for
`load.py` to say. Unknown fields are mistakes.
"""

from __future__ import annotations

import msgspec


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One API key of a provider, and the limits it is held to: said, or by tier."""

    api_key: str = ""  # `env:NAME`, so that no key stands in a file
    limits: list[str] = []
    tier: str | int = ""
    model: str = ""


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A provider by name, and the accounts there."""

    base_url: str = ""
    accounts: list[Account] = []


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model costs: a million tokens, unless it says otherwise."""

    input: str | float | int | None = None
    output: str | float | int | None = None
    cache_read: str | float | int | None = None
    cache_write: str | float | int | None = None
    cache_write_1h: str | float | int | None = None
    request: str | float | int | None = None
    max_output: int | None = None
    context: int | None = None
    currency: str = "usd"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole file."""

    providers: dict[str, Provider] = {}
    prices: dict[str, Price] = {}
    rates: dict[str, str | float | int] = {}
