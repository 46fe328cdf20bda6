"""What holds for an account: the limits it says, or those of its tier.

A tier may have limits for some models only; then every model's are learned, and those
of the tier hold beside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.config.default import learned
from ratekeeper.providers.catalog import PROVIDERS
from ratekeeper.providers.presets import ANY, preset, tier_presets

if TYPE_CHECKING:
    from ratekeeper.config.model import Account
    from ratekeeper.providers.presets import Preset


def limits_of(name: str, account: Account) -> tuple[str, ...]:
    """Return the limits of an account: those it says, or those of its tier."""
    if account.tier == "":
        said = account.limits
        if isinstance(said, str):
            return (said,)
        return tuple(one if isinstance(one, str) else one.limit for one in said)
    if presets_by_model(name, account):
        return (learned(PROVIDERS[name.lower()]),)
    found = preset(name, tier=str(account.tier), model=account.model or None)
    return found.limits


def presets_by_model(name: str, account: Account) -> tuple[Preset, ...]:
    """Return the limits that an account's tier has for some models only.

    Each `fits` its models, which share its limits. Raises `ConfigError` for a tier that
    is not known.
    """
    if account.tier == "" or account.model:
        return ()
    found = tier_presets(name, tier=str(account.tier))
    return () if len(found) == 1 or any(ANY in one.models for one in found) else found
