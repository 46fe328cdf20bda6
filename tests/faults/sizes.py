"""How large a scenario is: as CI has time for, or in full by `make scenarios`.

`RATEKEEPER_SCENARIOS=full` says which; a figure that is the scenario's pass mark is the
same in both.
"""

from __future__ import annotations

import os
import resource
import sys

import pytest

IS_FULL = os.environ.get("RATEKEEPER_SCENARIOS") == "full"


def size(short: int, full: int) -> int:
    """Return how many, how often or how long."""
    return full if IS_FULL else short


def scenario(full_s: int) -> pytest.MarkDecorator:
    """Mark a test that takes so many seconds at most in full."""
    return pytest.mark.timeout(size(20, full_s))


def allow_files() -> None:
    """Let this process open as many files as thousands of callers need."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def say(what: str) -> None:
    """Tell what was measured; `make scenarios` shows it."""
    sys.stdout.write(f"{what}\n")
