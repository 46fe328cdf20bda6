"""A forked child has limits of its own, and is told so."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING

import pytest

from ratekeeper import Limiter, MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has none")


def in_child(check: Callable[[], bool]) -> tuple[bool, str]:
    """Fork; return what `check` says in the child, and the warnings it was given."""
    reader, writer = os.pipe()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # pytest has threads
        pid = os.fork()
    if pid == 0:
        try:
            told = " ".join(str(warning.message) for warning in seen)
            os.write(writer, f"{check()}|{told}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer, _, told = pipe.read().partition("|")
    os.waitpid(pid, 0)
    return answer == "True", told


def test_a_forked_child_starts_with_an_empty_store_and_a_warning() -> None:
    limiter = Limiter("1 rpm", "1 concurrent", name="forked")
    limiter.acquire()

    def check() -> bool:
        return bool(limiter.try_acquire()) and not limiter.try_acquire()

    fresh, told = in_child(check)

    assert fresh
    assert not limiter.try_acquire()
    assert "memory limits start empty" in told


def test_a_child_forked_while_the_store_is_locked_does_not_hang() -> None:
    limiter = Limiter("5 rpm", store=MemoryStore())
    store = limiter._store
    locked, done = threading.Event(), threading.Event()

    def keep() -> None:
        with store._lock:
            store._moving = True
            locked.set()
            done.wait(5)
            store._moving = False

    keeper = threading.Thread(target=keep)
    keeper.start()
    locked.wait(5)
    fresh, _ = in_child(lambda: bool(limiter.try_acquire()))
    done.set()
    keeper.join()

    assert fresh


_UNUSED = """
import os, ratekeeper
limiter = ratekeeper.Limiter("5 rpm")
pid = os.fork()
limiter.acquire()
if pid:
    os.waitpid(pid, 0)
"""


def test_a_child_of_a_process_that_limited_nothing_is_told_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _UNUSED], capture_output=True, text=True, check=True
    )

    assert "" == done.stderr
