"""The accounts nobody wrote down: a provider's key in the environment, limits learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.config.model import Account, Config, Provider
from ratekeeper.core.policy import FROM_REFUSALS, LEARNED
from ratekeeper.providers.catalog import PROVIDERS

SIMULATED_STORE = "sqlite:///ratekeeper-simulated.db"  # of simulated providers alone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratekeeper.providers.catalog import Provider as Known


def from_environment(environ: Mapping[str, str]) -> Config | None:
    """Return a config of every provider whose key is set; None where none is.

    A provider that has another address for each account is known by its key no further.
    """
    found = {
        name: Provider(accounts=[account_of(known)])
        for name, known in PROVIDERS.items()
        if known.base_url and environ.get(known.key_variable or "", "").strip()
    }
    return Config(providers=found) if found else None


def without_address(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are set for providers of which they are not enough.

    By variable: the provider, whose accounts have an address each.
    """
    return {
        known.key_variable: name
        for name, known in PROVIDERS.items()
        if known.key_variable and not known.base_url
        if environ.get(known.key_variable, "").strip()
    }


def of_fallbacks(config: Config) -> dict[str, Provider]:
    """Return the providers that fallbacks alone name, each with its usual account."""
    named = {
        target.partition("/")[0]
        for targets in config.fallbacks.values()
        for target in targets
    }
    return {
        name: Provider(accounts=[account_of(PROVIDERS[name])])
        for name in sorted(named - config.providers.keys())
    }


def account_of(known: Known) -> Account:
    """Return the account of a provider's own variable, whose limits are learned."""
    return Account(api_key=f"env:{known.key_variable}", limits=learned(known))


def learned(known: Known) -> str:
    """Return the word for limits that nobody has told of this provider."""
    return LEARNED if known.account().shows else FROM_REFUSALS
