"""`ratekeeper keys`: client keys of the gateway, made, listed, ended and renewed.

A secret goes to standard output, once, and nowhere else: what is said about it goes to
standard error, so that `KEY=$(ratekeeper keys create NAME)` holds it and no more. What
a listing says of a key is in `cli/listing.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ratekeeper.config.model import ClientKey, Config
    from ratekeeper.gateway.keystore import KeyStore
    from ratekeeper.stores.database import Database

    F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = {  # which word of a config is which option
    "name": "NAME",
    "team": "--team",
    "limits": "--limit",
    "allow_models": "--allow-model",
    "priority": "--priority",
    "max_wait": "--max-wait",
    "expires": "--expires",
}
_NO_HASH = "0" * 64  # while nobody knows yet whether the rest is right
_KEY_PREFIX, _KEY_LENGTH = "rk-", 20  # no name of a key is like this


@click.group(short_help="Client keys of the gateway: create, list, revoke, rotate.")
def keys() -> None:
    """Make, list, revoke and renew the keys that the gateway issues.

    They live in the gateway's store, and a gateway that is running hears of every
    change. Those that a config file holds are changed there.
    """


def _name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    del param
    if value.startswith(_KEY_PREFIX) and len(value) >= _KEY_LENGTH:
        raise click.UsageError(
            "NAME is what a key is called (`ratekeeper keys list`), not the key itself: "
            "`ps` and the shell's history show it now, so consider it known",
            ctx,
        )
    return value


def _where(command: F) -> F:
    """Add the options that say which store is meant."""
    store = click.option(
        "--store",
        metavar="ADDRESS",
        help="The gateway's store, such as sqlite:///ratekeeper.db.",
    )
    config = click.option(
        "-c",
        "--config",
        "file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The gateway's config file: its store, its teams, its keys. Else "
        "ratekeeper.yaml, .yml or .toml in this folder, else ratekeeper.db.",
    )
    return store(config(command))


@keys.command(short_help="Make a key and print it, once.")
@click.argument("name", callback=_name)
@click.option("--team", default="", metavar="TEAM", help="Whose limits it shares.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="LIMIT",
    help="Such as '60 rpm'; repeat.",
)
@click.option(
    "--allow-model",
    "allow_models",
    multiple=True,
    metavar="MODEL",
    help="A model or pattern it may call, such as 'gpt-4o*'; repeat.  [default: all]",
)
@click.option(
    "--priority",
    type=click.Choice(["interactive", "normal", "batch"]),
    help="Its class in line.  [default: its team's, else normal]",
)
@click.option(
    "--max-wait", default="", metavar="TIME", help="Longest wait in line: 20s."
)
@click.option("--expires", default="", metavar="DATE", help="Its last day: 2026-12-31.")
@click.option("--shadow", is_flag=True, help="Only watch its limits: count, let pass.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the key and terms as JSON."
)
@click.option(
    "--print-yaml",
    is_flag=True,
    help="Store nothing: print a client_keys entry, as TOML for a config in TOML, and "
    "the key on standard error.",
)
@_where
def create(
    name: str, store: str | None, file: Path | None, *, as_json: bool, print_yaml: bool,
    **terms: Any,
) -> None:  # fmt: skip
    """Make a client key called NAME and print it: it is shown this once."""
    import msgspec

    from ratekeeper.gateway.keys import new_secret
    from ratekeeper.gateway.keystore import terms_of
    from ratekeeper.runtime.clock import MonotonicClock

    if as_json and print_yaml:
        raise click.UsageError("give --json or --print-yaml, not both")
    config, path, file = _place(store, file)
    said = _checked(name, terms, config, knows_teams=file is not None)
    _not_in_config(name, config)
    now_us = MonotonicClock.now_us()
    _not_over(said, now_us)
    secret, is_new = new_secret(), not path.exists()
    with _opened(path) as (_, key_store):
        hasher = key_store.hasher(os.environ, has_written=bool(config.client_keys))
        digest = hasher.digest(secret)
        said = msgspec.structs.replace(said, hash=digest)
        if print_yaml:
            key_store.check_free(name)
        else:
            key_store.create(said, now_us)
    place = f"{path}, a new store" if is_new else str(path)
    if said.team and file is None:
        click.echo(
            f"without --config, nobody checked that there is a team '{said.team}'",
            err=True,
        )
    if as_json:
        facts = {"name": name, "key": secret, **terms_of(said), "store": str(path)}
        click.echo(json.dumps(facts, indent=2))
    elif print_yaml:
        click.echo(secret, err=True)
        click.echo(
            "It is shown this once; the entry for client_keys of a gateway on "
            f"{place}:",
            err=True,
        )
        is_toml = file is not None and file.suffix == ".toml"
        click.echo(_entry(said, as_toml=is_toml))
    else:
        click.echo(f"client key '{name}', kept in {place}: {_terms(said)}", err=True)
        _show(secret, config, path)


@keys.command("list", short_help="Say which keys there are, and what they spent.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@_where
def list_(store: str | None, file: Path | None, *, as_json: bool) -> None:
    """Say which client keys there are, what each may do and what it spent."""
    from ratekeeper.cli.listing import Listing
    from ratekeeper.gateway.spending import spent_by_key
    from ratekeeper.runtime.clock import MonotonicClock

    config, path, file = _place(store, file)
    now_us = MonotonicClock.now_us()
    with _existing(path) as (database, key_store):
        listing = Listing(
            stored=key_store.entries(),
            written=config.client_keys if file else [],
            spent=spent_by_key(database, now_us),
            now_us=now_us,
        )
    if as_json:
        click.echo(json.dumps(listing.facts(), indent=2))
        return
    for line in listing.lines():
        click.echo(line)
    if not listing.rows:
        click.echo(f"no client keys in {path}: ratekeeper keys create NAME", err=True)


@keys.command(short_help="End a key for good.")
@click.argument("name", callback=_name)
@_where
def revoke(name: str, store: str | None, file: Path | None) -> None:
    """End the client key called NAME for good; its name is not given again."""
    from ratekeeper.runtime.clock import MonotonicClock

    config, path, _ = _place(store, file)
    _not_in_config(name, config)
    with _existing(path) as (_, key_store):
        key_store.revoke(name, MonotonicClock.now_us())
    click.echo(f"client key '{name}' is revoked")


@keys.command(short_help="Give a key a new secret; the old one has its grace.")
@click.argument("name", callback=_name)
@click.option(
    "--grace",
    default="1h",
    show_default=True,
    metavar="TIME",
    help="How long the old secret is let in beside the new one; 0 ends it at once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the key as JSON.")
@_where
def rotate(
    name: str, grace: str, store: str | None, file: Path | None, *, as_json: bool
) -> None:
    """Give the client key called NAME a new secret and print it: it is shown this once."""
    from ratekeeper.cli.listing import moment
    from ratekeeper.config.times import duration_us
    from ratekeeper.gateway.keys import new_secret
    from ratekeeper.runtime.clock import MonotonicClock

    config, path, _ = _place(store, file)
    _not_in_config(name, config)
    try:
        grace_us = duration_us(grace)
    except ConfigError as error:
        raise ConfigError(f"--grace: {error}") from error
    secret, now_us = new_secret(), MonotonicClock.now_us()
    until_us = now_us + grace_us
    with _existing(path) as (_, key_store):
        hasher = key_store.hasher(os.environ, has_written=bool(config.client_keys))
        digest = hasher.digest(secret)
        key_store.rotate(name, digest, until_us=until_us)
    if as_json:
        facts = {"name": name, "key": secret, "old_key_until": moment(until_us)}
        click.echo(json.dumps(facts, indent=2))
        return
    old = f"works until {moment(until_us)}" if grace_us else "works no more"
    click.echo(f"client key '{name}' has a new secret; the old one {old}", err=True)
    _show(secret, config, path)


# Which store, and what stands in the config.


def _place(store: str | None, file: Path | None) -> tuple[Config, Path, Path | None]:
    """Return the config, the store's file, and the file of the config, if any.

    It looks where a gateway that is started here looks.
    """
    from ratekeeper.config.load import file_here, load
    from ratekeeper.config.model import Config
    from ratekeeper.stores.database import path_of

    if store and file:
        raise click.UsageError(
            "give --store or --config, which names a store, not both"
        )
    if file is None and store is None:
        file = file_here()
    config = load(file) if file else Config(store=store or _store_here())
    return config, path_of(config.store).absolute(), file


def _store_here() -> str:
    """Return the store of a gateway without a config: of the one that runs, if any.

    Else the usual one, or that of simulated providers where it is the only one.
    """
    from ratekeeper.config.default import SIMULATED_STORE
    from ratekeeper.config.model import Config
    from ratekeeper.stores.claim import Claim
    from ratekeeper.stores.database import path_of

    usual = Config().store
    path, simulated = path_of(usual), path_of(SIMULATED_STORE)
    runs = Claim.is_held(simulated) and not Claim.is_held(path)
    is_simulated = runs or (simulated.exists() and not path.exists())
    return SIMULATED_STORE if is_simulated else usual


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Database, KeyStore]]:
    from ratekeeper.gateway.keystore import KeyStore
    from ratekeeper.stores.database import Database

    with contextlib.closing(Database(path)) as database:
        yield database, KeyStore(database)


@contextlib.contextmanager
def _existing(path: Path) -> Iterator[tuple[Database, KeyStore]]:
    if not path.exists():
        raise ConfigError(
            f"there is no store {path}: name the gateway's with --store or --config"
        )
    with _opened(path) as opened:
        yield opened


def _checked(
    name: str, terms: dict[str, Any], config: Config, *, knows_teams: bool
) -> ClientKey:
    """Return a key as a config would say it, checked as one in a file is."""
    import msgspec

    from ratekeeper.config.checks import check
    from ratekeeper.config.findings import Findings
    from ratekeeper.config.model import ClientKey

    said = {field: value for field, value in terms.items() if value is not None}
    said = {**said, "name": name, "hash": _NO_HASH}
    for field in ("limits", "allow_models"):
        said[field] = list(said[field])
    whole = {**msgspec.to_builtins(config), "client_keys": [said]}
    if said["team"] and not knows_teams:
        whole["teams"] = {said["team"]: {}}
    findings = Findings({})
    check(whole, findings)
    wrong = [
        f"{_option(one.name)}: {one.text}"
        for one in findings.mistakes()
        if one.name.startswith("client_keys")
    ]
    if wrong:
        raise ConfigError("\n".join(wrong))
    return msgspec.convert(said, ClientKey)


def _option(place: str) -> str:
    """Return the option that a place such as `client_keys[0].limits[1]` stands for."""
    field = place.partition(".")[2].partition("[")[0]
    return _OPTIONS.get(field, field)


def _not_in_config(name: str, config: Config) -> None:
    if any(one.name == name for one in config.client_keys):
        raise ConfigError(
            f"the client key '{name}' stands in the config file: change it there "
            "(keys create --print-yaml prints an entry)"
        )


def _not_over(said: ClientKey, now_us: int) -> None:
    from ratekeeper.gateway.keys import record_of

    if record_of(said).is_expired(now_us):
        raise ConfigError(f"--expires: '{said.expires}' has passed")


# What is said of a new key.


def _show(secret: str, config: Config, path: Path) -> None:
    """Print a secret, and how to use it."""
    from ratekeeper.config.addresses import host_and_port
    from ratekeeper.stores.claim import Claim

    known = "no gateway runs on this store now"
    if Claim.is_held(path):
        known = "the gateway that runs on this store knows it within a second"
    click.echo(f"{known}\nIt is shown this once:\n", err=True)
    click.echo(secret)
    host, port = host_and_port(config.listen)
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - a name to call, not to listen on
        host = "localhost"
    at = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    click.echo(
        f"\nWhere the gateway listens on {config.listen}, with this key for rk-…:\n"
        f"  OpenAI     OPENAI_BASE_URL={at}/v1 OPENAI_API_KEY=rk-…\n"
        f"  Anthropic  ANTHROPIC_BASE_URL={at}/anthropic ANTHROPIC_API_KEY=rk-…",
        err=True,
    )


def _terms(said: ClientKey) -> str:
    from ratekeeper.cli.listing import words_of

    return ", ".join(words_of(said)) or "no limits of its own"


def _entry(said: ClientKey, *, as_toml: bool) -> str:
    """Return a key as a list's entry in YAML, of which JSON is a part, or in TOML."""
    from ratekeeper.gateway.keystore import terms_of

    fields = {"name": said.name, "hash": said.hash, **terms_of(said)}
    if as_toml:
        pairs = (
            f"{name} = {json.dumps(value, ensure_ascii=False)}"
            for name, value in fields.items()
        )
        return "\n".join(["[[client_keys]]", *pairs])
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items()]
    return "  - " + "\n    ".join(lines)
