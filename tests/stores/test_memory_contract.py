from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper import MemoryStore
from ratekeeper.testing.contract import StoreContract

if TYPE_CHECKING:
    from ratekeeper.testing import ManualClock


class TestMemoryStore(StoreContract):
    def make_store(self, clock: ManualClock) -> MemoryStore:
        return MemoryStore(clock=clock)
