"""The shapes of a config file, as msgspec checks them.

A shape knows names and types; whether a limit, a tier or a provider exists is for
`load.py` to say. Unknown fields are mistakes. Durations are text such as "20s".
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Watched(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A limit that is only watched where `shadow` is true: counted, not enforced."""

    limit: str
    shadow: bool = False


Limits = list[str | Watched]
Priority = Literal["interactive", "normal", "batch"]


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One API key of a provider, and its limits: said, by tier, or learned."""

    name: str = ""  # in logs; else the variable of its key
    api_key: str = ""  # `env:NAME`, so that no key stands in a file
    base_url: str = ""  # where it is elsewhere than the provider's others
    limits: str | Limits = []
    tier: str | int = ""
    model: str = ""


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A provider by name, the accounts there, and limits by model pattern."""

    base_url: str = ""
    proxy: str = ""
    accounts: list[Account] = []
    models: dict[str, Limits] = {}

    def __repr__(self) -> str:
        """Show it without its proxy's password."""
        said = (
            f"{name}={getattr(self, name)!r}"
            for name in self.__struct_fields__
            if name != "proxy"
        )
        return f"Provider({', '.join(said)}, proxy={'…' if self.proxy else ''!r})"


class Team(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who shares limits: its keys' calls stand in one flow of each line."""

    limits: Limits = []
    priority: Priority | None = None
    weight: int = 1
    max_wait: str = ""
    shadow: bool = False


class ClientKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key that the gateway issues; only its keyed hash is known."""

    name: str
    hash: str
    team: str = ""
    allow_models: list[str] = []
    limits: Limits = []
    priority: Priority | None = None
    max_wait: str = ""
    expires: str = ""  # a date, or a time with its zone
    shadow: bool = False


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

    listen: str = "127.0.0.1:8080"
    store: str = "sqlite:///ratekeeper.db"
    auth: Literal["client_keys", "none"] = "client_keys"
    unowned: Literal["hidden", "shown"] = "hidden"  # in lists that several owners see
    max_body: str = "32MiB"  # of one request
    max_held: str = "256MiB"  # of all requests that wait
    max_wait: str = "20s"  # in line, where neither key nor team says
    notice: str = "0s"  # how long it says that it ends before it takes no connections
    drain: str = "10m"  # how long open answers may take when it is told to end
    providers: dict[str, Provider] = {}
    fallbacks: dict[str, list[str]] = {}
    teams: dict[str, Team] = {}
    client_keys: list[ClientKey] = []
    prices: dict[str, Price] = {}
    rates: dict[str, str | float | int] = {}
