"""A store by its address: `memory://` now, shared stores later."""

from __future__ import annotations

from ratekeeper.errors import ConfigError
from ratekeeper.stores.memory import MemoryStore

_SHARED: list[MemoryStore] = []


def open_store(address: MemoryStore | str, *, shared: bool) -> MemoryStore:
    """Return a store; `memory://` is the process's own where `shared`, else private."""
    if isinstance(address, MemoryStore):
        return address
    if address == "memory://":
        if not shared:
            return MemoryStore()
        if not _SHARED:
            _SHARED.append(MemoryStore())
        return _SHARED[0]
    scheme = str(address).partition("://")[0][:20]
    msg = f"store {scheme!r}: expected memory:// or a MemoryStore"
    raise ConfigError(msg)
