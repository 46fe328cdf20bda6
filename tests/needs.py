"""Programs that tests run where they are there, and must run where they are asked for.

RATEKEEPER_TESTS_NEED names those, by commas: a test that lacks one fails then.
"""

from __future__ import annotations

import os
import shutil
import sys

import pytest

_PLACES = os.pathsep.join([f"{sys.prefix}/bin", os.environ.get("PATH", "")])


def find(program: str) -> str | None:
    """Return where a program is: the environment's own first."""
    return shutil.which(program, path=_PLACES)


def lack(program: str, why: str) -> None:
    """Skip a test that lacks a program, or fail it where that is asked for."""
    needed = os.environ.get("RATEKEEPER_TESTS_NEED", "").split(",")
    (pytest.fail if program in needed else pytest.skip)(why)


def need(program: str) -> str:
    """Return where a program is; ends the test where there is none."""
    found = find(program)
    if found is None:
        lack(program, f"there is no {program} here")
    assert found is not None
    return found
