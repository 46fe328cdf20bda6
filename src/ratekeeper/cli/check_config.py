"""`ratekeeper check-config`: every mistake of a config file, with its line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ratekeeper.cli.main import BAD_USAGE

if TYPE_CHECKING:
    from ratekeeper.config.load import Mistake
    from ratekeeper.config.model import Config, Limits


@click.command(short_help="Print what a config file sets up, or every mistake.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check_config(file: Path, *, as_json: bool) -> int:
    """Check FILE, TOML or YAML, and print what it sets up, or every mistake."""
    from ratekeeper.config.load import read

    config, mistakes = read(file)
    if as_json:
        click.echo(json.dumps(_facts(config, mistakes), indent=2))
    elif mistakes:
        for mistake in mistakes:
            click.echo(f"{file}:{mistake}", err=True)
        click.echo(
            f"{len(mistakes)} mistakes" if mistakes[1:] else "1 mistake", err=True
        )
    else:
        assert config is not None
        _print(config)
    return BAD_USAGE if mistakes else 0


def _facts(config: Config | None, mistakes: list[Mistake]) -> dict[str, Any]:
    return {
        "ok": not mistakes,
        "mistakes": [
            {"line": m.line or None, "name": m.name, "text": m.text} for m in mistakes
        ],
        "accounts": [] if config is None else [
            {"provider": name, "key": key, "set": is_set, "limits": list(limits)}
            for name, key, is_set, limits in _accounts(config)
        ],
        "teams": [] if config is None else [*config.teams],
        "client_keys": [] if config is None else [
            {"name": key.name, "team": key.team or None, "expires": key.expires or None}
            for key in config.client_keys
        ],
    }  # fmt: skip


def _print(config: Config) -> None:
    rows = _accounts(config)
    if not rows:
        click.echo("no mistakes, and no accounts either")
    for name, key, is_set, limits in rows:
        where = f"{key} ({'set' if is_set else 'not set'})" if key else "no key"
        click.echo(f"{name}: {', '.join(limits)}; {where}")
    for name, provider in config.providers.items():
        for pattern, own in provider.models.items():
            click.echo(f"{name}, models {pattern}: {_said(own)}")
    for model, targets in config.fallbacks.items():
        click.echo(f"fallbacks of {model}: {', '.join(targets)}")
    for name, team in config.teams.items():
        click.echo(f"team {name}: {_said(team.limits)}; weight {team.weight}")
    for one in config.client_keys:
        of = f"; team {one.team}" if one.team else ""
        until = f"; until {one.expires}" if one.expires else ""
        click.echo(f"client key {one.name}: {_said(one.limits)}{of}{until}")


def _said(limits: Limits) -> str:
    """Write limits in a row, those that are only watched marked so."""
    texts = [
        one
        if isinstance(one, str)
        else one.limit + (" (watched)" if one.shadow else "")
        for one in limits
    ]
    return ", ".join(texts) or "no limits"


def _accounts(config: Config) -> list[tuple[str, str, bool, tuple[str, ...]]]:
    """Return provider, key variable, whether it is set, and limits of each account."""
    from ratekeeper.config.checks import variable_of
    from ratekeeper.config.load import limits_of

    return [
        (name, key, bool(os.environ.get(key, "").strip()), limits_of(name, account))
        for name, provider in config.providers.items()
        for account in provider.accounts
        for key in [variable_of(name, provider, account)]
    ]
