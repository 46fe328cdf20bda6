"""The entry point: what exists is named, and errors become exit codes."""

from __future__ import annotations

import importlib
import os
import subprocess

import click
import pytest

import ratekeeper
from ratekeeper import errors
from ratekeeper.cli.main import COMMANDS, exit_code
from tests.cli.running import START, run


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_named_exists_and_explains_itself(name: str) -> None:
    home = name.replace("-", "_")
    command = getattr(importlib.import_module(f"ratekeeper.cli.{home}"), home)
    done = run(name, "--help")

    assert isinstance(command, click.Command)
    assert 0 == done.returncode
    assert f"Usage: ratekeeper {name}" in done.stdout


def test_help_lists_the_commands() -> None:
    done = run("--help")

    assert 0 == done.returncode
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert "..." not in done.stdout.partition("Commands:")[2]  # no help is cut off


def test_the_version_is_the_packages() -> None:
    done = run("--version")

    assert f"ratekeeper {ratekeeper.__version__}\n" == done.stdout


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("--nothing",)])
def test_what_does_not_exist_is_bad_usage(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)

    assert 2 == done.returncode
    assert "" == done.stdout
    assert "Usage" in done.stderr


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("simulat", "Did you mean 'simulate'?"),
        ("zzz", f"There are {', '.join(COMMANDS)}."),
    ],
)
def test_a_command_that_does_not_exist_is_told_which_do(word: str, hint: str) -> None:
    done = run(word)

    assert f"No such command '{word}'. {hint}\n" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("x"), 2),
        (errors.LimitExceeded("x", retry_after_s=1, limit="1 rpm"), 3),
        (errors.BudgetExceeded("x", retry_after_s=1, limit="$1/day"), 3),
        (errors.BillingStopped("x", status=429), 3),
        (errors.ProviderError("x", status=500), 1),
        (errors.ProviderUnreachable("x", reason="refused"), 1),
    ],
)
def test_an_error_has_its_exit_code(error: errors.RatekeeperError, code: int) -> None:
    assert code == exit_code(error)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from ratekeeper.cli.main import run; run(['--help']); "
        "heavy = {'uvicorn', 'rich', 'httpx2', 'msgspec'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [START[0], "-c", code], capture_output=True, text=True, timeout=15, check=False
    )

    assert "[]\n" == done.stderr


def test_a_reader_who_has_gone_ends_it_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*START, "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=15,
        check=False,
    )
    os.close(write)

    assert 1 == done.returncode
    assert "Traceback" not in done.stderr
