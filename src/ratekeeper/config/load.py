"""Load a config file: the whole of it is right, or every mistake is named.

It knows the file; which of its variables are set is a matter of the machine it runs on,
and asked elsewhere. Limits come as written: the rules they make are made elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ratekeeper.config.checks import check
from ratekeeper.config.findings import Findings, Mistake
from ratekeeper.config.model import Config
from ratekeeper.config.source import read_source
from ratekeeper.config.tiers import limits_of
from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Mistake", "limits_of", "load", "read"]


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
    return msgspec.convert(data, Config), []
