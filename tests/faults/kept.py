"""What stands in a gateway's file, as another process reads it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

OUTAGE_S = 0.8  # in which a commit that failed is tried again three times
_WITHIN_S = 10.0


def _sum(path: Path, query: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute(query).fetchone()
    return int(found or 0)


def on_disk(path: Path) -> int:
    """Return what the limits of a file count."""
    return _sum(path, "SELECT sum(amount) FROM used")


def settled(path: Path, calls: int) -> bool:
    """Wait until so many calls are written down, and nothing of them is left to."""
    end = time.monotonic() + _WITHIN_S
    while (found := _sum(path, "SELECT sum(requests) FROM spend")) != calls:
        if time.monotonic() > end:
            break
        time.sleep(0.02)
    return found == calls
