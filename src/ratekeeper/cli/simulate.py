"""`ratekeeper simulate`: serve a provider that really enforces, until interrupted.

It turns options into a `Simulator` and says how to reach it; what the simulator does is
none of its business.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ratekeeper.cli.main import INTERRUPTED
from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratekeeper.simulator.server import Simulator

_PORT = 4290
_ANY_KEY = "sk-any"
_ENFORCEMENTS = ("token-bucket", "quantized", "sliding-log", "fixed-window")


@click.command()
@click.argument("provider")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="LIMIT",
    help='A limit, such as "500 rpm"; may be repeated. Else the provider\'s usual '
    "ones, which are printed at the start.",
)
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The limits of the provider's first account in this config file.",
)
@click.option("--tier", help="The limits that the provider publishes for this tier.")
@click.option("--model", help="The model meant, where a tier has several limits.")
@click.option(
    "--enforce",
    type=click.Choice(_ENFORCEMENTS),
    default=_ENFORCEMENTS[0],
    show_default=True,
    help="How a limit is enforced that names no algorithm of its own.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where it listens."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--latency",
    type=float,
    default=0.2,
    show_default=True,
    help="Seconds before an answer begins.",
)
@click.option(
    "--jitter",
    type=float,
    default=0.1,
    show_default=True,
    help="At most so many seconds more.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT",
    help='What goes wrong, and when: "status=529 @ 0.05" (one call in twenty is '
    'answered with 529), "cut=3 # 7" (the 7th breaks off after 3 chunks of its stream); '
    "may be repeated.",
)
@click.option(
    "--ban-after",
    type=click.IntRange(min=1),
    help="Close the account after so many refusals within a minute.",
)
@click.option(
    "--ban-hours", type=float, default=4.0, show_default=True, help="For how long."
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    help="Accept this API key and no other; may be repeated. Else any.",
)
@click.option("--seed", type=int, default=0, help="Seed of lengths, words and rates.")
@click.option("--json", "as_json", is_flag=True, help="Speak JSON, one line a fact.")
def simulate(
    provider: str,
    limits: tuple[str, ...],
    config: Path | None,
    tier: str | None,
    model: str | None,
    keys: tuple[str, ...],
    faults: tuple[str, ...],
    **options: Any,
) -> int:
    """Serve a simulated PROVIDER that really enforces its limits.

    PROVIDER is one of openai, anthropic, azure, bedrock, cohere, dashscope, deepseek,
    fireworks, gemini, groq, holysheep, mistral, moonshot, openrouter, together, vertex,
    xai and zhipu; another name speaks as OpenAI does. One request can ask for a fault
    of its own with the header x-simulate: "status=529", "cut=3", "latency=2, pace=0.1".
    """
    from ratekeeper.simulator.cues import FaultPlan
    from ratekeeper.simulator.server import Simulator, serving

    simulator = Simulator(
        provider,
        _limits(provider, limits, config, tier, model),
        enforce=options["enforce"],
        latency_s=options["latency"],
        jitter_s=options["jitter"],
        keys=keys or None,
        faults=FaultPlan.parse(faults),
        ban_after=options["ban_after"],
        ban_s=options["ban_hours"] * 3600,
        seed=options["seed"],
    )
    with (
        _termination() as stopped,
        serving(simulator, options["host"], options["port"]) as url,
    ):
        code = 0
        try:
            _greet(simulator, url, options, keys[0] if keys else _ANY_KEY)
            stopped.wait()
        except KeyboardInterrupt:
            code = INTERRUPTED
        seen = simulator.stats
    as_json = options["as_json"]
    click.echo(json.dumps({"stats": seen}) if as_json else _summary(seen))
    return code


@contextlib.contextmanager
def _termination() -> Iterator[threading.Event]:
    """Turn a request to terminate into an event."""
    stopped = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)


def _limits(
    provider: str,
    limits: tuple[str, ...],
    config: Path | None,
    tier: str | None,
    model: str | None,
) -> tuple[str, ...]:
    """Take the limits named, a file's, or a tier's; () for the provider's usual ones."""
    by_tier = tier is not None or model is not None
    if bool(limits) + (config is not None) + by_tier > 1 or (by_tier and tier is None):
        message = "give one of --limit, --config, or --tier and perhaps --model"
        raise ConfigError(message)
    if config is not None:
        return _limits_in(config, provider)
    if tier is None:
        return limits
    from ratekeeper.providers.presets import preset

    return preset(provider, tier=tier, model=model).limits


def _limits_in(file: Path, provider: str) -> tuple[str, ...]:
    """Take the limits of a provider's first account in a config file."""
    from ratekeeper.config.load import limits_of, load

    found = load(file).providers.get(provider)
    if found is None or not found.accounts:
        message = f"{file.name} has no account of {provider}"
        raise ConfigError(message)
    return limits_of(provider, found.accounts[0])


def _greet(simulator: Simulator, url: str, options: dict[str, Any], key: str) -> None:
    """Say where it is and how to reach it."""
    host = url.removesuffix(simulator.dialect.base_path)
    own_path = simulator.dialect.own_path
    facts = {
        "provider": simulator.dialect.name,
        "base_url": url,
        "own_url": f"{host}{own_path}" if own_path else None,
        "stats_url": f"{host}/_stats",
        "limits": list(simulator.limits),
        "enforce": options["enforce"],
    }
    if options["as_json"]:
        click.echo(json.dumps(facts))
    else:
        click.echo(_greeting(simulator, facts, key))


def _greeting(simulator: Simulator, facts: dict[str, Any], key: str) -> str:
    name, url = simulator.dialect.name, facts["base_url"]
    lines = [
        f"A simulated {name}, enforcing for real; Ctrl-C ends it.",
        "",
        f"  base URL   {url}",
        *([f"  own API    {facts['own_url']}"] if facts["own_url"] else []),
        f"  limits     {', '.join(facts['limits'])} ({facts['enforce']})",
        f"  seen       {facts['stats_url']}",
        "",
        "Try it:",
        "",
        f"  {_curl(simulator, url, key)}",
        "",
        "Point an SDK at it:",
        "",
    ]
    if name == "anthropic":
        sdk, variable = "Anthropic", "ANTHROPIC_BASE_URL"
    else:
        sdk, variable = "OpenAI", "OPENAI_BASE_URL"
    lines += [
        f'  Python   {sdk}(base_url="{url}", api_key="{key}")',
        f'  Node     new {sdk}({{ baseURL: "{url}", apiKey: "{key}" }})',
        f"  Shell    export {variable}={url} {sdk.upper()}_API_KEY={key}",
        "",
        "And with Ratekeeper below it:",
        "",
        f'  {sdk}(base_url="{url}", api_key="{key}", max_retries=0,',
        f"      http_client=ratekeeper.http_client({_arguments(simulator, url)}))",
        "",
    ]
    return "\n".join(lines)


def _arguments(simulator: Simulator, url: str) -> str:
    """Write what `ratekeeper.http_client` must know of this provider."""
    from ratekeeper.providers.catalog import PROVIDERS

    name = simulator.dialect.name
    told = [name if name in PROVIDERS else url, *simulator.limits]
    return ", ".join(json.dumps(one) for one in told)


def _curl(simulator: Simulator, url: str, key: str) -> str:
    """Write a line that works as it stands."""
    body: dict[str, object] = {
        "model": "any",
        "messages": [{"role": "user", "content": "Say hello"}],
        "max_tokens": 20,
    }
    if simulator.dialect.name == "anthropic":
        path = "/v1/messages"
        headers = [f"x-api-key: {key}", "anthropic-version: 2023-06-01"]
    else:
        path, headers = "/chat/completions", [f"authorization: Bearer {key}"]
    words = ["curl", f"{url}{path}"]
    for header in (*headers, "content-type: application/json"):
        words += ["-H", header]
    return shlex.join([*words, "-d", json.dumps(body)])


def _summary(seen: dict[str, Any]) -> str:
    statuses = ", ".join(
        f"{count}x {code}" for code, count in seen["by_status"].items()
    )
    lines = [
        "",
        f"Seen in {seen['seconds']:.0f} s: {seen['requests']} requests, "
        f"{statuses or 'none answered'}",
        f"  tokens     {seen['tokens_served']:,} served, "
        f"{seen['tokens_in_vain']:,} sent in vain",
        f"  busiest    {seen['worst_minute_requests']} admitted within a minute, "
        f"{seen['worst_in_flight']} at once",
    ]
    if seen["refused_by_limit"]:
        named = ", ".join(
            f"{n}x {name}" for name, n in seen["refused_by_limit"].items()
        )
        lines.append(f"  refused    {named}")
    if seen["bans"]:
        lines.append(f"  banned     {seen['banned']} calls met the ban")
    return "\n".join(lines)
