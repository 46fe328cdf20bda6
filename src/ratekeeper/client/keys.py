"""Which API key a client sends: where it comes from, whether it can be one at all.

A placeholder is refused before anything is sent; an unknown form is only warned of. A
key never leaves this module in a message: at most its last four characters do.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from enum import StrEnum
from typing import TYPE_CHECKING

from ratekeeper.errors import ConfigError
from ratekeeper.providers.catalog import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratekeeper.providers.catalog import Provider

_log = logging.getLogger("ratekeeper")

_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}", re.ASCII | re.IGNORECASE)
_OURS = "rk-"  # the beginning of a gateway's client keys
_FROM_ENVIRONMENT = "env:"  # the same word as in a configuration file
_SHOWN = 4  # characters of a key that may be shown
_LONGEST = 4096  # tokens of identity providers have some 3,000 characters
_SHORTEST_SHOWN = 12  # of a shorter key nothing is shown: four would be too much

_PLACEHOLDER = re.compile(
    r"your.*(key|token|secret)|(key|token).*here|placeholder|change.?me|replace.?(me|with)"
    r"|insert.?your|example.?key|x{5,}|\*{3,}|\.{3,}|…|[<>{}]|^(?:sk-|hs-)?(?P<one>.)(?P=one)*$",
    re.IGNORECASE,
)
# What a key looks like in the text of an error: a provider may repeat it, or part of it.
_KEYLIKE = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|hs|gsk|pk|rk|xai|fw|tgp|r8|nvapi|bedrock-api-key)[-_]"
    r"|AIza|AQ\.|ya29\.|ABSK)"
    r"[A-Za-z0-9_*.\-]{8,}"
    r"|(?i:bearer)\s+[^\s\"']+"
)
_LONGEST_BODY = 2000  # characters of an error's text that are kept


class Flaw(StrEnum):
    """Why a string cannot be a key."""

    TOO_LONG = "too long"
    QUOTED = "quoted"
    CHARACTERS = "characters"
    PLACEHOLDER = "placeholder"
    TOO_SHORT = "too short"
    OURS = "a client key"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key and where it was found; printed, it is only its last four characters."""

    value: str = dataclasses.field(repr=False)
    source: str
    variable: str = ""

    def __str__(self) -> str:
        return ending(self.value)


def ending(key: str) -> str:
    """Return as much of a key as may be shown: "…" and its last four characters."""
    return "…" + key[-_SHOWN:] if len(key) >= _SHORTEST_SHOWN else "…"


def find_key(
    provider: Provider, given: str | ApiKey | None, environ: Mapping[str, str]
) -> ApiKey | None:
    """Return the key to send: the one given, or the provider's variable.

    None where the provider has no variable of its own (a server known by its URL).
    Raises `ConfigError` where there is no key or only a placeholder. An `ApiKey` has
    been looked at by whoever made it.
    """
    if isinstance(given, ApiKey):
        return given
    if given is not None and not isinstance(given, str):
        msg = f"api_key= is a string, not {type(given).__name__}"
        raise ConfigError(msg)
    variable = provider.key_variable or ""
    if given is not None and given.startswith(_FROM_ENVIRONMENT):
        variable, given = given.removeprefix(_FROM_ENVIRONMENT).strip(), None
    if given is None:
        if not variable:
            return None
        value = environ.get(variable, "").strip()
        source = f"the environment variable {variable}"
    else:
        value, source = given.strip(), "api_key="
    if not value:
        where = "is not set" if given is None else "is empty"
        subject = "api_key="
        if given is None:  # a key in the place of a variable's name is not printed
            subject = variable if _NAME.fullmatch(variable) else "the variable named"
        msg = f"no API key for {provider.name}: {subject} {where}; {how_to(provider)}"
        raise ConfigError(msg)
    key = ApiKey(value=value, source=source, variable=variable if given is None else "")
    if complaint := malformed(provider, value):
        msg = f"{source} {complaint}; {how_to(provider)}"
        raise ConfigError(msg)
    if not looks_known(provider, value):
        _log.warning(
            "%s does not begin like a key of %s (%s): it is sent all the same",
            source,
            provider.name,
            " or ".join(provider.key_prefixes),
        )
    return key


def flaw(provider: Provider, value: str) -> Flaw | None:
    """Say why a string cannot be a key of this provider, None where it may be one."""
    if len(value) > _LONGEST:
        return Flaw.TOO_LONG
    if value[0] in "\"'" and value[-1] == value[0]:
        return Flaw.QUOTED
    if not value.isascii() or not value.isprintable() or " " in value:
        return Flaw.CHARACTERS
    if _PLACEHOLDER.search(value):
        return Flaw.PLACEHOLDER
    if len(value) < provider.key_min_length:
        return Flaw.TOO_SHORT
    if value.startswith(_OURS) and _is_at_home(provider):
        return Flaw.OURS
    return None


def _is_at_home(provider: Provider) -> bool:
    """Say whether a provider is called at its own address; elsewhere may be a gateway."""
    known = PROVIDERS.get(provider.name)
    return known is not None and known.base_url == provider.base_url


def malformed(provider: Provider, value: str) -> str:
    """Say in words why a string cannot be a key, "" where it may be one."""
    match flaw(provider, value):
        case None:
            return ""
        case Flaw.TOO_LONG:
            return f"holds {len(value)} characters, and that is longer than any key"
        case Flaw.QUOTED:
            return "has quotation marks around the key: take them away"
        case Flaw.CHARACTERS:
            return "holds characters that no key has (spaces, line breaks, accents)"
        case Flaw.PLACEHOLDER:
            return "holds a placeholder, not a key"
        case Flaw.TOO_SHORT:
            return (
                f"holds {len(value)} characters, and keys of {provider.name} have at "
                f"least {provider.key_min_length}: it is cut off or a placeholder"
            )
        case Flaw.OURS:
            return (
                f"holds a client key of a gateway ({_OURS}…), which is no key of "
                f"{provider.name} and is not sent there"
            )


def looks_known(provider: Provider, value: str) -> bool:
    """Say whether a key begins as this provider's keys do; unknown forms may work."""
    return not provider.key_prefixes or value.startswith(tuple(provider.key_prefixes))


def how_to(provider: Provider, key: ApiKey | None = None) -> str:
    """Say how to set the key: the line to type, the form of a key, where to get one."""
    variable = provider.key_variable or ""
    if key is not None and key.variable:
        variable = key.variable
    line = _export(provider, variable)
    if key is not None and not key.variable:
        text = "pass another api_key="
        if variable:
            text += f" or leave it out and {line}"
    elif variable:
        text = f"{line} (or pass api_key=)"
    else:
        text = "pass api_key="
    return text + _where_from(provider)


def to_set(provider: Provider, variable: str) -> str:
    """Say how to set a variable that a config names, and where to get a key."""
    return _export(provider, variable) + _where_from(provider)


def _export(provider: Provider, variable: str) -> str:
    form = f"{provider.key_prefixes[0]}…" if provider.key_prefixes else "…"
    return f"type: export {variable}={form}"


def _where_from(provider: Provider) -> str:
    text = ""
    if provider.key_prefixes:
        text += f"; keys begin with {' or '.join(provider.key_prefixes)}"
    if provider.key_url:
        text += f"; get one at {provider.key_url}"
    return text


def masked(text: str, *secrets: str) -> str:
    """Return a provider's error text fit to keep: bounded, and no key in it."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, ending(secret))
    return _KEYLIKE.sub("[key]", text[: 2 * _LONGEST_BODY])[:_LONGEST_BODY]
