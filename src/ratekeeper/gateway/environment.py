"""What a config needs of the machine it runs on: the keys of its accounts.

An account that is written down must have its key. A provider that `fallbacks` alone
name is spare: without its key it is off, as long as nothing depends on it alone. It
knows how to say what is missing, by its place in the config and with what to type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ratekeeper.client import keys
from ratekeeper.config.checks import upstream_of, variable_of
from ratekeeper.config.default import of_fallbacks
from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratekeeper.config.model import Config


def completed(
    config: Config, environ: Mapping[str, str]
) -> tuple[Config, dict[str, str]]:
    """Return a config with its spare providers, and which of them are off.

    Those that are off are left out of it, and told by name with the variable that is
    not set. Raises `ConfigError` that names every key which is missing or cannot be one.
    """
    spare = of_fallbacks(config)
    off = {
        name: variable
        for name, provider in spare.items()
        for variable in [variable_of(name, provider, provider.accounts[0])]
        if not environ.get(variable, "").strip()
    }
    on = {name: one for name, one in spare.items() if name not in off}
    fallbacks = {
        model: [one for one in targets if one.partition("/")[0] not in off]
        for model, targets in config.fallbacks.items()
    }
    wrong = [
        f"fallbacks.{model}: none of them has its key; {_to_set(config.fallbacks[model])}"
        for model, left in fallbacks.items()
        if config.fallbacks[model] and not left
    ]
    whole = msgspec.structs.replace(
        config, providers={**config.providers, **on}, fallbacks=fallbacks
    )
    wrong += _wrong_keys(whole, environ)
    if wrong:
        raise ConfigError("\n".join(wrong))
    return whole, off


def _to_set(targets: list[str]) -> str:
    known = upstream_of(targets[0].partition("/")[0], "")
    return keys.to_set(known, known.key_variable or "")


def _wrong_keys(config: Config, environ: Mapping[str, str]) -> list[str]:
    wrong = []
    for name, provider in config.providers.items():
        for at, account in enumerate(provider.accounts):
            variable = variable_of(name, provider, account)
            if not variable:
                continue
            known = upstream_of(name, account.base_url or provider.base_url)
            value = environ.get(variable, "").strip()
            flaw = keys.malformed(known, value) if value else "is not set"
            if flaw:
                place = f"providers.{name}.accounts[{at}].api_key"
                how = keys.to_set(known, variable)
                wrong.append(
                    f"{place}: the environment variable {variable} {flaw}; {how}"
                )
    return wrong
