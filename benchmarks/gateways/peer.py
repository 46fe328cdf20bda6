"""What a gateway must say to be measured: how it is started, and what a caller sends.

Where its limits come from is its own affair; `Limits` says what they have to be.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "sk-" + "9f3c1a7e5b2d8046" * 3  # the provider's key; nobody checks it
NEVER = 100_000_000  # a limit that does not bind


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What each client key may do in a minute, and how long its calls may wait."""

    rpm: int = NEVER
    tpm: int = NEVER
    max_wait_s: int = 0

    @property
    def bind(self) -> bool:
        return min(self.rpm, self.tpm) < NEVER


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a gateway runs."""

    folder: Path  # for its files; nobody else's
    port: int
    upstream: int  # the provider's port
    keys: int = 1  # how many client keys there are


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start it, and the headers of a caller with each client key."""

    argv: list[str]
    callers: list[dict[str, str]]
    env: dict[str, str] = dataclasses.field(default_factory=dict)


class Peer(Protocol):
    """A gateway."""

    @property
    def name(self) -> str:
        """Name it with its version."""

    def missing(self) -> str:
        """Say why it cannot be measured here, "" where it can."""

    def launch(self, place: Place, limits: Limits) -> Launch:
        """Write its configuration and say how it is started."""


def bearer(number: int = 0) -> dict[str, str]:
    """Return the header of a caller whose key the gateway only tells from others."""
    return {"authorization": f"Bearer {SECRET[:-2]}{number:02}"}
