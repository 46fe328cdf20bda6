"""Run `ratekeeper` and tell where its time went: by part, by module and by function.

A timer of processor time interrupts a thousand times a second; what runs then is
charged to the function whose code it is, and the kernel's and C's time to the one that
called. SIGUSR2 begins anew. Written to the file of RATEKEEPER_SHARES when the program ends.
"""

from __future__ import annotations

import collections
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ratekeeper.cli.main import main

if TYPE_CHECKING:
    from types import FrameType

PERIOD_S = 0.001
SHOWN = 40

# Whose work a module does; the first that fits.
PARTS = (
    (
        "callers' connections",
        ("ratekeeper.gateway.http", "ratekeeper.gateway.exchange"),
    ),
    ("callers' connections", ("ratekeeper.gateway.listener", "uvicorn", "httptools")),
    ("the provider's connections", ("aiohttp", "ratekeeper.client.pool", "yarl")),
    ("the provider's connections", ("multidict",)),
    ("what a request asks, and what an answer used", ("ratekeeper.providers", "json")),
    ("what a request asks, and what an answer used", ("ratekeeper.gateway.intake",)),
    ("what a request asks, and what an answer used", ("ratekeeper.client.lessons",)),
    ("limits", ("ratekeeper.core", "ratekeeper.stores.memory", "ratekeeper.grant")),
    ("limits", ("ratekeeper.gateway.admit", "ratekeeper.runtime")),
    ("money, and what is on disk", ("ratekeeper.client", "ratekeeper.stores")),
    ("money, and what is on disk", ("ratekeeper.gateway.ledger", "sqlite3")),
    ("headers", ("ratekeeper.gateway.quota", "ratekeeper.gateway.fields")),
    ("headers", ("ratekeeper.gateway.relay", "ratekeeper.gateway.reply")),
    ("who calls, for what, and where it goes", ("ratekeeper.gateway",)),
    ("Python's own library", ("",)),
)

shares: collections.Counter[tuple[str, str]] = collections.Counter()


def note(signum: int, frame: FrameType | None) -> None:
    """Charge a sample to the function that runs."""
    del signum
    if frame is not None:
        module = str(frame.f_globals.get("__name__", "?"))
        shares[module, frame.f_code.co_qualname] += 1


def forget(signum: int, frame: FrameType | None) -> None:
    """Begin anew, once all is warm."""
    del signum, frame
    shares.clear()


def part_of(module: str) -> str:
    """Return whose work a module does."""
    return next(part for part, starts in PARTS if module.startswith(starts))


def write(path: Path) -> None:
    """Write the shares, largest first."""
    total = max(1, shares.total())
    modules: collections.Counter[str] = collections.Counter()
    for (module, _), count in shares.items():
        modules[module] += count
    parts: collections.Counter[str] = collections.Counter()
    for module, count in modules.items():
        parts[part_of(module)] += count
    functions = collections.Counter({".".join(of): n for of, n in shares.items()})
    tables = [
        "".join(
            f"{count / total:6.1%}  {name}\n"
            for name, count in counted.most_common(SHOWN)
        )
        for counted in (parts, modules, functions)
    ]
    path.write_text("\n".join(tables))


if __name__ == "__main__":
    signal.signal(signal.SIGPROF, note)
    signal.signal(signal.SIGUSR2, forget)
    signal.setitimer(signal.ITIMER_PROF, PERIOD_S, PERIOD_S)
    try:
        sys.exit(main())
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        write(Path(os.environ["RATEKEEPER_SHARES"]))
