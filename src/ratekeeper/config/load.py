"""Load a config file: the whole of it is right, or every mistake is named.

It knows the file; which of its variables are set is a matter of the machine it runs on,
and asked apart. Limits come as written: the rules they make are made elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ratekeeper.config.checks import check, variable_of
from ratekeeper.config.default import account_of
from ratekeeper.config.findings import Findings, Mistake
from ratekeeper.config.model import Config, Provider
from ratekeeper.config.source import read_source
from ratekeeper.config.tiers import limits_of
from ratekeeper.errors import ConfigError
from ratekeeper.providers.catalog import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Mistake", "limits_of", "load", "missing_variables", "read"]


def load(path: Path) -> Config:
    """Read a file; raises `ConfigError` that lists every mistake in it."""
    config, mistakes = read(path)
    if config is None:
        raise ConfigError("\n".join(f"{path.name}:{mistake}" for mistake in mistakes))
    return config


def read(path: Path) -> tuple[Config | None, list[Mistake]]:
    """Read a file: the config, or every mistake in it.

    Raises `ConfigError` where it cannot be read as TOML or YAML at all.
    """
    data, lines = read_source(path)
    findings = Findings(lines)
    check(data, findings)
    mistakes = findings.mistakes()
    if mistakes:
        return None, mistakes
    return _with_fallbacks(msgspec.convert(data, Config)), []


def _with_fallbacks(config: Config) -> Config:
    """Add the providers that fallbacks alone name, each with its usual account."""
    named = {
        target.partition("/")[0]
        for targets in config.fallbacks.values()
        for target in targets
    }
    own = {
        name: Provider(accounts=[account_of(PROVIDERS[name])])
        for name in sorted(named - config.providers.keys())
    }
    return msgspec.structs.replace(config, providers={**config.providers, **own})


def missing_variables(config: Config, environ: Mapping[str, str]) -> list[Mistake]:
    """Return a mistake for each account whose key's variable is not set."""
    return [
        Mistake(
            line=0,
            name=f"providers.{name}.accounts[{at}].api_key",
            text=f"the environment variable {variable} is not set",
        )
        for name, provider in config.providers.items()
        for at, account in enumerate(provider.accounts)
        for variable in [variable_of(name, provider, account)]
        if variable and not environ.get(variable, "").strip()
    ]
