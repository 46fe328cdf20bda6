"""The public test kit: clocks that tests own, and a virtual-time event loop."""

from __future__ import annotations

from ratekeeper.testing.clock import ManualClock, VirtualLoop, run_virtual

__all__ = ["ManualClock", "VirtualLoop", "run_virtual"]
