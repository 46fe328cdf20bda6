"""What a plan may ask for: the only words between pure flows and the outside.

A plan is a generator that yields these and is sent their results; a driver performs
them, one for threads and one for asyncio.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratekeeper.core.line import Waiter


@dataclasses.dataclass(frozen=True, slots=True)
class Enter:
    """Stand in line, or be granted or refused at once; the waiter tells which."""

    waiter: Waiter


@dataclasses.dataclass(frozen=True, slots=True)
class Park:
    """Wait until the waiter's state changes or its wake time comes."""

    waiter: Waiter


@dataclasses.dataclass(frozen=True, slots=True)
class LookAgain:
    """Reconsider a waiter whose wake time has come."""

    waiter: Waiter


@dataclasses.dataclass(frozen=True, slots=True)
class Leave:
    """Leave the line, or give back a grant nobody will use."""

    waiter: Waiter


Effect = Enter | Park | LookAgain | Leave
Plan = Generator[Any, Any, Any]  # effects differ per floor; each driver checks its own
