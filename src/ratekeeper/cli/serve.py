"""`ratekeeper serve`: the gateway, from a config, from the environment, or to try it.

It finds out what to serve and says how to reach it; what is served, and how it ends,
is none of its business.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratekeeper.config.model import Config

_VARIABLE = "RATEKEEPER_KEY"  # in which a caller has its key
_FIRST_KEY = "default"  # the name of the key that is made where there is none
_ANTHROPIC = "anthropic"
_MODELS = {  # to try it with
    "openai": "gpt-4o-mini",
    "gemini": "gemini-2.5-flash",
    _ANTHROPIC: "claude-haiku-4-5",
}
_ANY_MODEL = "MODEL"  # where we know of none
_MOST_NAMES = 3  # of client keys that are shown
_WIDTH = 78  # characters of a line

_log = logging.getLogger("ratekeeper.gateway")


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """What is served, and where that was found."""

    config: Config
    source: str
    path: Path | None = None
    simulated: str = ""  # why


@click.command()
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What to serve. Else ratekeeper.yaml, .yml or .toml in this folder, else the "
    "providers whose keys are in the environment, else simulated ones.",
)
@click.option("--listen", metavar="HOST:PORT", help="Instead of what the config says.")
@click.option(
    "--store",
    metavar="ADDRESS",
    help="Instead of what the config says, such as sqlite:///ratekeeper.db.",
)
@click.option(
    "--log",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the log is written, on standard error.",
)
@click.option("--verbose", is_flag=True, help="A line for each call.")
@click.option("--json", "as_json", is_flag=True, help="Speak JSON at the start.")
def serve(
    path: Path | None,
    listen: str | None,
    store: str | None,
    log: str,
    *,
    verbose: bool,
    as_json: bool,
) -> int:
    """Serve the gateway until told to stop.

    One door for every team, language and SDK: point a base URL at it. SIGHUP, or a
    change of the file, loads the config anew; SIGTERM lets every answer end first.
    """
    _require()
    from ratekeeper.cli.log import on_stderr
    from ratekeeper.config.addresses import host_and_port
    from ratekeeper.config.load import load
    from ratekeeper.config.times import duration_us
    from ratekeeper.gateway.app import Gateway
    from ratekeeper.gateway.observer import Log
    from ratekeeper.gateway.run import run

    with contextlib.ExitStack() as stack:
        plan = _plan(path, store, stack)
        config = _with(plan.config, listen, store)
        stack.enter_context(on_stderr(as_json=log == "json"))
        observer = functools.partial(Log, requests=verbose, as_json=log == "json")
        gateway = Gateway(config, observer=observer)
        host, port = host_and_port(config.listen)
        if plan.simulated:
            _log.warning("what answers is simulated: %s", plan.simulated)

        def ready(url: str) -> None:
            # Only now, and to whom it may be shown: one that is not is lost, and a
            # file or a journal that the output goes to keeps it for whoever reads that.
            secret = None
            if plan.simulated or as_json or sys.stdout.isatty():
                secret = gateway.first_key(_FIRST_KEY, simulated=bool(plan.simulated))
            facts = {
                "url": url,
                "config": plan.source,
                "store": config.store,
                "providers": list(gateway.roster.upstreams),
                "client_key": secret,
            }
            click.echo(json.dumps(facts) if as_json else _greeting(plan, facts))

        run(
            gateway,
            host=host,
            port=port,
            notice_s=duration_us(config.notice) / 1e6,
            drain_s=duration_us(config.drain) / 1e6,
            config_path=plan.path,
            load=lambda file: _with(load(file), listen, store),
            ready=ready,
        )
    return 0


def _require() -> None:
    """Name the extra where its packages are missing."""
    try:
        import aiohttp  # noqa: F401
        import httptools  # noqa: F401
    except ImportError as error:
        msg = f"the gateway needs {error.name}: pip install 'ratekeeper[gateway]'"
        raise ConfigError(msg) from error


def _plan(path: Path | None, store: str | None, stack: contextlib.ExitStack) -> _Plan:
    from ratekeeper.config.default import from_environment, without_address
    from ratekeeper.config.load import file_here, load

    path = path or file_here()
    if path is not None:
        return _Plan(load(path), path.name, path)
    found = from_environment(os.environ)
    if found is not None:
        return _Plan(found, "the environment")
    why = "no config here and no provider's key in the environment"
    if lacking := without_address(os.environ):
        variable, name = next(iter(lacking.items()))
        why = (
            f"no config here, and {variable} is not enough: {name} has another address "
            "for each account, which only a config can tell"
        )
    _refuse_in_use(store, why)
    config = stack.enter_context(_simulated())
    return _Plan(config, "a simulated provider", simulated=why)


def _refuse_in_use(store: str | None, why: str) -> None:
    """Raise `ConfigError` where a gateway that is no simulated one has its client keys.

    Without its config, or the variables with its keys, its callers would be answered
    with random words.
    """
    from ratekeeper.config.default import SIMULATED_STORE
    from ratekeeper.config.model import Config
    from ratekeeper.gateway.keystore import KeyStore
    from ratekeeper.stores.database import Database, path_of

    path = path_of(store or Config().store)
    if not path.exists():
        return
    with contextlib.closing(Database(path)) as database:
        keys = KeyStore(database)
        records = keys.records()
        if not records:
            return
        made = keys.hasher(os.environ).secret_of(_FIRST_KEY)
        digest = keys.hasher(os.environ).digest(made)
        if any(record.digest == digest for record in records):
            return
    raise ConfigError(
        f"{path} has client keys, and there is {why}: give the gateway its config (-c) "
        "or set its provider's key, such as OPENAI_API_KEY; simulated providers have a "
        f"store of their own (--store {SIMULATED_STORE})"
    )


@contextlib.contextmanager
def _simulated() -> Iterator[Config]:
    """Serve simulated providers on free ports, and yield the config that uses them."""
    from ratekeeper.config.default import SIMULATED_STORE
    from ratekeeper.config.model import Account, Config, Provider
    from ratekeeper.providers.catalog import PROVIDERS
    from ratekeeper.simulator.server import Simulator, serving

    with contextlib.ExitStack() as stack:
        providers = {}
        for name in ("openai", "anthropic"):
            simulator = Simulator(name, latency_s=0.2, jitter_s=0.1)
            url = stack.enter_context(serving(simulator))
            prefix = PROVIDERS[name].key_prefixes[0]
            variable = f"RATEKEEPER_SIMULATED_{name.upper()}_KEY"
            os.environ[variable] = f"{prefix}simulated-account-0123456789"
            account = Account(
                name="simulated",
                api_key=f"env:{variable}",
                limits=list(simulator.limits),
            )
            providers[name] = Provider(base_url=url, accounts=[account])
        yield Config(providers=providers, store=SIMULATED_STORE)


def _with(config: Config, listen: str | None, store: str | None) -> Config:
    """Return a config with what the command line says instead."""
    import msgspec

    said: dict[str, Any] = {"listen": listen, "store": store}
    changes = {name: value for name, value in said.items() if value is not None}
    return msgspec.structs.replace(config, **changes)


def _greeting(plan: _Plan, facts: dict[str, Any]) -> str:
    url, providers = facts["url"], facts["providers"]
    lines = [
        f"Ratekeeper serves {', '.join(providers) or 'no provider yet'} at {url}",
        f"  config     {plan.source}",
        f"  store      {facts['store']}",
    ]
    if plan.simulated:
        why = plan.simulated[0].upper() + plan.simulated[1:]
        text = (
            f"{why}: what answers is simulated, and costs nothing. Set OPENAI_API_KEY, "
            "say, or write a ratekeeper.yaml, and start again."
        )
        lines += ["", *textwrap.wrap(text, _WIDTH)]
    lines += _proof(plan, facts)
    if not providers:
        return "\n".join([*lines, "", f"Name a provider in {plan.source}.", ""])
    secret = "any" if plan.config.auth == "none" else facts["client_key"]
    curl = _curl(url, secret, providers)
    model = f", with a model of {_first(providers)} for {_ANY_MODEL}"
    model *= _ANY_MODEL in curl
    lines += ["", f"Try it{model}:", "", f"  {curl}", "", "Point an SDK at it:", ""]
    shown = f'os.environ["{_VARIABLE}"]' if secret is None else f'"{secret}"'
    if _ANTHROPIC in providers:
        lines.append(f'  Anthropic(base_url="{url}/anthropic", api_key={shown})')
    if "gemini" in providers:
        options = f'http_options={{"base_url": "{url}/gemini"}}'
        lines.append(f"  genai.Client(api_key={shown}, {options})")
    if providers != [_ANTHROPIC]:
        lines.append(f'  OpenAI(base_url="{url}/v1", api_key={shown})')
    return "\n".join([*lines, ""])


def _proof(plan: _Plan, facts: dict[str, Any]) -> list[str]:
    """Say which key a caller needs, and where it is to be had."""
    secret = facts["client_key"]
    if plan.config.auth == "none":
        return []
    if secret is not None:
        often = "the same at every start" if plan.simulated else "shown this once"
        return ["", f"A client key, {often}: {secret}"]
    if plan.config.client_keys:
        names = [one.name for one in plan.config.client_keys]
        shown = ", ".join(names[:_MOST_NAMES]) + ", …" * (len(names) > _MOST_NAMES)
        return [
            "",
            f"The client keys are those of {plan.source}: {shown}.",
            f"Set the one to try it with: export {_VARIABLE}=rk-…",
        ]
    return ["", f"A client key: export {_VARIABLE}=$({_create(plan, facts)})"]


def _create(plan: _Plan, facts: dict[str, Any]) -> str:
    """Write the command that makes a key where this gateway looks, in any folder."""
    from ratekeeper.stores.database import address_of, path_of

    where = ["--store", address_of(path_of(facts["store"]).absolute())]
    if plan.path is not None and facts["store"] == plan.config.store:
        where = ["-c", str(plan.path.absolute())]
    return shlex.join(["ratekeeper", "keys", "create", "my-app", *where])


def _first(providers: list[str]) -> str:
    """Return the provider that the line to try it goes to."""
    return next((one for one in providers if one != _ANTHROPIC), _ANTHROPIC)


def _curl(url: str, secret: str | None, providers: list[str]) -> str:
    """Write a line that works as it stands, or once the variable is set."""
    model = _MODELS.get(_first(providers), _ANY_MODEL)
    path, header, more = "/v1/chat/completions", "authorization: Bearer", []
    if providers == [_ANTHROPIC]:
        path, header = "/anthropic/v1/messages", "x-api-key:"
        more = ["-H", "anthropic-version: 2023-06-01"]
    messages = [{"role": "user", "content": "Say hello"}]
    body = {"model": model, "max_tokens": 20, "messages": messages}
    # Within single quotes a shell would send the variable's name.
    proof = f'"{header} ${_VARIABLE}"' if secret is None else f"'{header} {secret}'"
    rest = [*more, "-H", "content-type: application/json", "-d", json.dumps(body)]
    return f"curl {url}{path} -H {proof} {shlex.join(rest)}"
