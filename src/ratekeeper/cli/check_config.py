"""`ratekeeper check-config`: every mistake of a config file, with its line."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ratekeeper.cli.main import BAD_USAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratekeeper.config.load import Mistake
    from ratekeeper.config.model import ClientKey, Config, Limits, Team
    from ratekeeper.providers.presets import Preset


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """An account: its key's variable, and the limits of all models or of some."""

    provider: str
    key: str
    is_set: bool
    is_spare: bool  # of a provider that fallbacks alone name
    limits: tuple[str, ...]
    by_model: tuple[Preset, ...]


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
        "notes": [] if config is None else _notes(config),
        "accounts": [] if config is None else [
            {
                "provider": row.provider,
                "key": row.key,
                "set": row.is_set,
                "spare": row.is_spare,
                "limits": list(row.limits),
                "by_model": [
                    {"models": list(one.models), "limits": list(one.limits)}
                    for one in row.by_model
                ],
            }
            for row in _accounts(config)
        ],
        "teams": [] if config is None else [*config.teams],
        "client_keys": [] if config is None else [
            {"name": key.name, "team": key.team or None, "expires": key.expires or None}
            for key in config.client_keys
        ],
        "unowned": None if config is None else config.unowned,
    }  # fmt: skip


def _print(config: Config) -> None:
    for line in _lines(config):
        click.echo(line)
    for note in _notes(config):
        click.echo(f"note: {note}", err=True)


def _lines(config: Config) -> Iterator[str]:
    callers = "callers need no key" if config.auth == "none" else "client keys"
    yield f"listens on {config.listen}; {config.store}; {callers}"
    yield f"waits up to {config.max_wait}; drains up to {config.drain}"
    rows = _accounts(config)
    if not rows:
        yield "no mistakes, and no accounts either"
    for row in rows:
        state = "set" if row.is_set else "not set"
        if row.is_spare:
            state += ": a fallback" if row.is_set else ": fallbacks go without it"
        where = f"{row.key} ({state})"
        name = f"{row.provider}: {', '.join(row.limits)}; "
        yield name + (where if row.key else "no key")
        for one in row.by_model:
            yield f"  {', '.join(one.models)}: {', '.join(one.limits)}"
    for name, provider in config.providers.items():
        for pattern, own in provider.models.items():
            yield f"{name}, models {pattern}: {_said(own)}"
    for model, targets in config.fallbacks.items():
        yield f"fallbacks of {model}: {', '.join(targets)}"
    for name, team in config.teams.items():
        yield f"team {name}: {_said(team.limits)}; weight {team.weight}{_terms(team)}"
    for key in config.client_keys:
        of = f"; team {key.team}" if key.team else ""
        until = f"; until {key.expires}" if key.expires else ""
        only = f"; only {' '.join(key.allow_models)}" if key.allow_models else ""
        terms = only + _terms(key)
        yield f"client key {key.name}: {_said(key.limits)}{of}{until}{terms}"
    if config.unowned == "shown":
        yield "lists show everyone what was not made through the gateway"


def _terms(said: Team | ClientKey) -> str:
    """Write what a team or a key says beside its limits, each after a semicolon."""
    words = [
        said.priority or "",
        f"waits {said.max_wait}" * bool(said.max_wait),
        "all only watched" * said.shadow,
    ]
    return "".join(f"; {word}" for word in words if word)


def _notes(config: Config) -> list[str]:
    """Name limits that are right and that no call to a provider ever uses up."""
    from ratekeeper.core.limits import CONCURRENT, KNOWN_UNITS, Limit
    from ratekeeper.core.policy import means_learned

    held: dict[str, Limits] = {}
    for name, provider in config.providers.items():
        for at, account in enumerate(provider.accounts):
            said = account.limits
            held[f"providers.{name}.accounts[{at}]"] = (
                [said] if isinstance(said, str) else said
            )
        for pattern, own in provider.models.items():
            held[f"providers.{name}.models.{pattern}"] = own
    held |= {f"teams.{name}": team.limits for name, team in config.teams.items()}
    held |= {f"client key {key.name}": key.limits for key in config.client_keys}
    notes = []
    for place, limits in held.items():
        for one in limits:
            text = one if isinstance(one, str) else one.limit
            limit = None if means_learned(text) else Limit.parse(text)
            if limit is None or limit.is_money or limit.unit == CONCURRENT:
                continue
            if limit.unit not in KNOWN_UNITS:
                notes.append(
                    f"{place}: no forwarded call takes any '{limit.unit}', but "
                    f"{', '.join(KNOWN_UNITS)} and money; others are for the desk"
                )
    return notes


def _said(limits: Limits) -> str:
    """Write limits in a row, those that are only watched marked so."""
    texts = [
        one
        if isinstance(one, str)
        else one.limit + (" (watched)" if one.shadow else "")
        for one in limits
    ]
    return ", ".join(texts) or "no limits"


def _accounts(config: Config) -> list[_Row]:
    from ratekeeper.config.checks import variable_of
    from ratekeeper.config.default import of_fallbacks
    from ratekeeper.config.tiers import limits_of, presets_by_model

    spare = of_fallbacks(config)
    return [
        _Row(
            provider=name,
            key=key,
            is_set=bool(os.environ.get(key, "").strip()),
            is_spare=name in spare,
            limits=limits_of(name, account),
            by_model=presets_by_model(name, account),
        )
        for name, provider in {**config.providers, **spare}.items()
        for account in provider.accounts
        for key in [variable_of(name, provider, account)]
    ]
