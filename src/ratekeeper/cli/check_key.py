"""`ratekeeper check-key`: is the key set, well formed and alive, and what may it do?

It finds the key, asks once and prints the finding; what is said of it stands in
`cli/finding.py`. A key is read from the environment or standard input, never from an
argument, and what may be one is never repeated.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import click

from ratekeeper.cli.main import BAD_USAGE, FAILED, STOPPED
from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratekeeper.cli.finding import Finding
    from ratekeeper.client.check import KeyCheck
    from ratekeeper.client.keys import ApiKey
    from ratekeeper.providers.catalog import Provider

_TIMEOUT_S = 10.0
_GRACE_S = 0.25  # so that a time-out of HTTP itself, which knows more, comes first
_LONGEST_LINE = 8192  # bytes of standard input: above any key
_MAY_BE_A_KEY = 16  # characters; no provider's name has so many
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}", re.ASCII)
_NEVER_AN_ARGUMENT = (
    "a key is never given as an argument, where `ps` and the shell's history show it: "
    "set the provider's variable, name another with --key-env, or pipe the key in "
    "with --key-stdin"
)
_ONE_SLOT = "1 concurrent"  # one question is asked, and nothing else waits


class _Discreet(click.Command):
    """A command whose usage errors repeat nothing that may be a key."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; an error about what may be a key says so and no more."""
        given = [arg.rpartition("=")[2] for arg in args]
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            meant = isinstance(error, click.NoSuchOption) and "key" in error.option_name
            if meant or any(_may_be_a_key(one, error.message) for one in given):
                raise click.UsageError(_NEVER_AN_ARGUMENT, ctx) from None
            raise


def _may_be_a_key(argument: str, message: str) -> bool:
    return len(argument) >= _MAY_BE_A_KEY and argument in message


@click.command(cls=_Discreet)
@click.argument("provider")
@click.option("--key-env", metavar="NAME", help="The variable that holds the key.")
@click.option("--key-stdin", is_flag=True, help="Read the key from standard input.")
@click.option("--base-url", metavar="URL", help="Ask there, not at the provider's own.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.001, max=600),
    default=_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long all of it may take.",
)
@click.option(
    "--probe",
    is_flag=True,
    help="Send one chat call of one token: its answer shows more, and costs a little.",
)
@click.option("--model", help="The model that --probe calls.")
@click.option("--json", "as_json", is_flag=True, help="Print the finding as JSON.")
def check_key(
    provider: str,
    base_url: str | None,
    key_env: str | None,
    timeout: float,
    model: str | None,
    *,
    key_stdin: bool,
    probe: bool,
    as_json: bool,
) -> int:
    """Tell whether a provider's key is alive, and its limits.

    PROVIDER is a name, such as openai, or a base URL. The key is that of its variable
    and is never shown. Asked is for the list of models, which is free, unless --probe.

    Exit codes: 0 valid (and perhaps throttled), 1 refused, unreachable or nobody can
    tell, 2 no key or none that can be one, 3 out of credit.
    """
    from ratekeeper.cli.finding import Finding
    from ratekeeper.client import check, keys

    if probe != bool(model):
        raise click.UsageError("--probe needs --model, and --model has no other use")
    at = _provider(provider, base_url)
    variable = _variable(at, key_env, key_stdin=key_stdin)
    value = _from_stdin() if key_stdin else os.environ.get(variable, "").strip()
    source = variable or "standard input"
    key = keys.ApiKey(value=value, source=source, variable=variable)
    found = check.examine(at, value) or _asked(at, key, timeout, model)
    finding = Finding(
        provider=at, key=key, check=found, probed=probe, timeout_s=timeout
    )
    _print(finding, as_json=as_json)
    return _exit_code(found)


def _provider(name: str, base_url: str | None) -> Provider:
    from ratekeeper.client import front, keys
    from ratekeeper.providers.catalog import PROVIDERS, find_provider

    known = name.lower() in PROVIDERS or "://" in name
    if not known and (len(name) >= _MAY_BE_A_KEY or keys.masked(name) != name):
        raise click.UsageError(_NEVER_AN_ARGUMENT)
    at = find_provider(name, base_url=base_url or front.base_url_in(os.environ, name))
    if not at.base_url:
        raise ConfigError(
            f"{at.name} has a base URL for each account: give --base-url "
            f"{at.base_form} (your own words for those in capitals)"
        )
    return at


def _variable(at: Provider, key_env: str | None, *, key_stdin: bool) -> str:
    """Return the variable to look into, "" for standard input."""
    if key_stdin:
        if key_env is not None:
            raise click.UsageError("give --key-env or --key-stdin, not both")
        return ""
    if key_env and key_env not in os.environ and not _VARIABLE.fullmatch(key_env):
        message = "--key-env takes the name of a variable, as OPENAI_API_KEY; "
        raise click.UsageError(message + _NEVER_AN_ARGUMENT)
    variable = key_env or at.key_variable
    if not variable:
        raise ConfigError(
            f"no variable is known to hold a key for {at.name}: name it with "
            "--key-env, or pipe the key in with --key-stdin"
        )
    return variable


def _from_stdin() -> str:
    """Read one line; on a terminal it is asked for and not shown."""
    if sys.stdin.isatty():
        return getpass.getpass("Key: ").strip()
    line = sys.stdin.buffer.readline(_LONGEST_LINE)
    return line.decode("utf-8", "replace").strip()


def _asked(at: Provider, key: ApiKey, timeout_s: float, model: str | None) -> KeyCheck:
    """Ask the provider, within the time there is."""
    import urllib.parse

    from ratekeeper.client.api import Client
    from ratekeeper.client.check import KeyCheck, KeyStatus

    def ask() -> KeyCheck:
        with Client(
            at.name if at.key_variable else at.base_url,
            base_url=at.base_url if at.key_variable else None,
            api_key=key,
            limits=_ONE_SLOT,
            timeout=timeout_s,
            connect_timeout=timeout_s,
            read_timeout=timeout_s,
        ) as ai:
            return ai.validate_key(model=model)

    try:
        return _within(timeout_s + _GRACE_S, ask)
    except TimeoutError:
        return KeyCheck(
            status=KeyStatus.UNREACHABLE,
            key=str(key),
            reason="deadline",
            host=urllib.parse.urlsplit(at.base_url).netloc,
            round_trip_s=timeout_s,
        )


def _within(limit_s: float, ask: Callable[[], KeyCheck]) -> KeyCheck:
    """Return what is answered, or raise `TimeoutError`, whatever it hangs in.

    Looking up a name knows no time-out, and each address of a host has one of its own.
    """
    answer: Future[KeyCheck] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return answer.result(limit_s)


def _print(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(finding.facts(), indent=2))
        return
    for warning in finding.warnings():
        click.echo(f"warning: {warning}", err=True)
    unsent = finding.check.http_status is None and finding.check.round_trip_s is None
    for line in finding.lines():
        click.echo(line, err=unsent)


def _exit_code(found: KeyCheck) -> int:
    from ratekeeper.client.check import KeyStatus

    codes: dict[Any, int] = {
        KeyStatus.OK: 0,
        KeyStatus.THROTTLED: 0,
        KeyStatus.NO_CREDIT: STOPPED,
        KeyStatus.MISSING: BAD_USAGE,
        KeyStatus.MALFORMED: BAD_USAGE,
    }
    return codes.get(found.status, FAILED)
