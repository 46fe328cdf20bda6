"""The entry point: finds a command, runs it, and turns errors into exit codes.

0 done, 1 some requests failed, 2 bad usage or config, 3 stopped by a budget or quota,
130 interrupted. A command is imported only when it is named.
"""

from __future__ import annotations

import difflib
import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from ratekeeper.errors import (
    BillingStopped,
    BudgetExceeded,
    ConfigError,
    LimitExceeded,
    RatekeeperError,
)

COMMANDS = ("demo", "serve", "simulate", "check-key", "check-config", "keys")

FAILED = 1
BAD_USAGE = 2
STOPPED = 3
INTERRUPTED = 130


class _Commands(click.Group):
    """Commands by name; `ratekeeper.cli.check_config` holds `check-config`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of `--help`."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"ratekeeper.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the command nearest to one that does not exist."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = f"There are {', '.join(COMMANDS)}."
            if near := difflib.get_close_matches(args[0], COMMANDS, n=1):
                hint = f"Did you mean '{near[0]}'?"
            raise click.UsageError(f"{error.message} {hint}", ctx) from error


@click.group(cls=_Commands)
@click.version_option(package_name="ratekeeper", message="%(prog)s %(version)s")
def cli() -> None:
    """Use all of your AI quota, and never see a 429."""


def main() -> NoReturn:
    """Run the command line and exit."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        done = cli.main(arguments, prog_name="ratekeeper", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return BAD_USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has gone: nothing to tell them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except RatekeeperError as error:
        click.echo(f"ratekeeper: {error}", err=True)
        return exit_code(error)
    return done if isinstance(done, int) else 0


def exit_code(error: RatekeeperError) -> int:
    """Return the exit code of an error."""
    match error:
        case ConfigError():
            return BAD_USAGE
        case BudgetExceeded() | BillingStopped() | LimitExceeded():
            return STOPPED
        case _:
            return FAILED
