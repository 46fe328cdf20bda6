"""`ratekeeper serve`: the gateway, from a config, from the environment, or to try it.

It finds out what to serve and says how to reach it; what is served, and how it ends,
is none of its business.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratekeeper.config.model import Config

_VARIABLE = "RATEKEEPER_KEY"  # in which a caller has its key
_FIRST_KEY = "default"  # the name of the key that is made where there is none


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """What is served, and where that was found."""

    config: Config
    source: str
    path: Path | None = None
    simulated: bool = False


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
@click.option("--store", metavar="ADDRESS", help="As sqlite:///ratekeeper.db.")
@click.option("--log", type=click.Choice(["text", "json"]), default="text")
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
        plan = _plan(path, stack)
        config = _with(plan.config, listen, store)
        stack.enter_context(on_stderr(as_json=log == "json"))
        observer = functools.partial(Log, requests=verbose, as_json=log == "json")
        gateway = Gateway(config, observer=observer)
        secret = gateway.first_key(_FIRST_KEY, anew=plan.simulated)
        host, port = host_and_port(config.listen)

        def ready(url: str) -> None:
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


def _plan(path: Path | None, stack: contextlib.ExitStack) -> _Plan:
    from ratekeeper.config.default import from_environment
    from ratekeeper.config.load import file_here, load

    path = path or file_here()
    if path is not None:
        return _Plan(load(path), path.name, path)
    found = from_environment(os.environ)
    if found is not None:
        return _Plan(found, "the environment")
    config = stack.enter_context(_simulated())
    return _Plan(config, "a simulated provider", simulated=True)


@contextlib.contextmanager
def _simulated() -> Iterator[Config]:
    """Serve simulated providers on free ports, and yield the config that uses them."""
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
        yield Config(providers=providers)


def _with(config: Config, listen: str | None, store: str | None) -> Config:
    """Return a config with what the command line says instead."""
    import msgspec

    said: dict[str, Any] = {"listen": listen, "store": store}
    changes = {name: value for name, value in said.items() if value is not None}
    return msgspec.structs.replace(config, **changes)


def _greeting(plan: _Plan, facts: dict[str, Any]) -> str:
    url, secret = facts["url"], facts["client_key"]
    lines = [
        f"Ratekeeper serves {', '.join(facts['providers']) or 'no provider yet'} at {url}",
        f"  config     {plan.source}",
        f"  store      {facts['store']}",
    ]
    if plan.simulated:
        lines += [
            "",
            "No config here and no provider's key in the environment: what answers is",
            "simulated, and costs nothing. Set OPENAI_API_KEY, say, or write a",
            "ratekeeper.yaml, and start again.",
        ]
    if plan.config.auth == "none":
        secret = "any"
    elif secret is None:
        if not plan.config.client_keys:
            lines += ["", f"A client key: export {_VARIABLE}=$({_create(plan, facts)})"]
    else:
        lines += ["", f"A client key, shown this once: {secret}"]
    lines += ["", "Try it:", "", f"  {_curl(url, secret, facts['providers'])}", ""]
    lines += ["Point an SDK at it:", ""]
    shown = f'os.environ["{_VARIABLE}"]' if secret is None else f'"{secret}"'
    if "anthropic" in facts["providers"]:
        lines.append(f'  Anthropic(base_url="{url}/anthropic", api_key={shown})')
    if "gemini" in facts["providers"]:
        options = f'http_options={{"base_url": "{url}/gemini"}}'
        lines.append(f"  genai.Client(api_key={shown}, {options})")
    lines += [f'  OpenAI(base_url="{url}/v1", api_key={shown})', ""]
    return "\n".join(lines)


def _create(plan: _Plan, facts: dict[str, Any]) -> str:
    """Write the command that makes a key where this gateway looks, in any folder."""
    from ratekeeper.stores.database import address_of, path_of

    where = ["--store", address_of(path_of(facts["store"]).absolute())]
    if plan.path is not None and facts["store"] == plan.config.store:
        where = ["-c", str(plan.path.absolute())]
    return shlex.join(["ratekeeper", "keys", "create", "my-app", *where])


def _curl(url: str, secret: str | None, providers: list[str]) -> str:
    """Write a line that works as it stands, or once the variable is set."""
    messages = [{"role": "user", "content": "Say hello"}]
    body = {"model": "gpt-4o-mini", "max_tokens": 20, "messages": messages}
    path, header, more = "/v1/chat/completions", "authorization: Bearer", []
    if providers == ["anthropic"]:
        body["model"] = "claude-haiku-4-5"
        path, header = "/anthropic/v1/messages", "x-api-key:"
        more = ["-H", "anthropic-version: 2023-06-01"]
    # Within single quotes a shell would send the variable's name.
    proof = f'"{header} ${_VARIABLE}"' if secret is None else f"'{header} {secret}'"
    rest = [*more, "-H", "content-type: application/json", "-d", json.dumps(body)]
    return f"curl {url}{path} -H {proof} {shlex.join(rest)}"
