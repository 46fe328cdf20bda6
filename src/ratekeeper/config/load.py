"""Load a config file: the whole of it is right, or every mistake is named.

It knows the file, and where that stands: a relative store is beside it. Which of its
variables are set is a matter of the machine it runs on, and asked elsewhere. Limits
come as written: the rules they make are made elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ratekeeper.config.checks import check
from ratekeeper.config.findings import Findings, Mistake
from ratekeeper.config.model import Config
from ratekeeper.config.source import read_source
from ratekeeper.config.tiers import limits_of
from ratekeeper.errors import ConfigError
from ratekeeper.stores.database import address_of, path_of

__all__ = ["FILES", "Mistake", "file_here", "limits_of", "load", "read"]

FILES = ("ratekeeper.yaml", "ratekeeper.yml", "ratekeeper.toml")  # looked for here


def file_here() -> Path | None:
    """Return the config file of the current folder, None where it has none.

    Raises `ConfigError` where it has several: which one is meant?
    """
    found = [name for name in FILES if Path(name).is_file()]
    if len(found) > 1:
        raise ConfigError(f"{' and '.join(found)} are here: name the one meant with -c")
    return Path(found[0]) if found else None


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
    _list_limits(data)
    findings = Findings(lines)
    check(data, findings)
    mistakes = findings.mistakes()
    if mistakes:
        return None, mistakes
    config = msgspec.convert(data, Config)
    store = path.parent.resolve() / path_of(config.store)
    return msgspec.structs.replace(config, store=address_of(store)), []


def _list_limits(data: Any) -> None:
    """Turn a limit that stands alone into a list of one, as it is read everywhere."""
    holders: list[tuple[Any, Any]] = []
    for provider in _values(data, "providers"):
        holders += [(one, "limits") for one in _values(provider, "accounts")]
        models = provider.get("models") if isinstance(provider, dict) else None
        holders += [(models, pattern) for pattern in models or ()]
    for name in ("teams", "client_keys"):
        holders += [(one, "limits") for one in _values(data, name)]
    for holder, name in holders:
        if isinstance(holder, dict) and isinstance(holder.get(name), str | dict):
            holder[name] = [holder[name]]


def _values(data: Any, name: str) -> list[Any]:
    value = data.get(name) if isinstance(data, dict) else None
    if isinstance(value, dict):
        return [*value.values()]
    return value if isinstance(value, list) else []
