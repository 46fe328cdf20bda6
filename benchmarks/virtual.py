"""Virtual time for libraries that read the clock themselves.

`install` puts functions of our own in the place of `time.time`, `time.monotonic` and
`time.perf_counter` (and their nanosecond twins): while a `PeerLoop` runs they read its
clock, else the real one. It must run before the peers are imported, as some of them
keep the functions they find. `asyncio.sleep`, timers and `loop.time()` follow the loop
by themselves, and work sent to a thread is done at once, in no virtual time.
Nothing else of a peer is touched.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ratekeeper.testing import VirtualLoop
from ratekeeper.testing.clock import EPOCH

if TYPE_CHECKING:
    import asyncio

_running: list[PeerLoop] = []
_NAMES = ("time", "monotonic", "perf_counter")


def install() -> None:
    """Let the functions of `time` follow the virtual loop that runs."""
    for name in _NAMES:
        for suffix in ("", "_ns"):
            _replace(name + suffix, ns=bool(suffix))


def _replace(name: str, *, ns: bool) -> None:
    real = getattr(time, name)

    def read() -> float:
        if not _running:
            return real()  # type: ignore[no-any-return]
        now_ns = _running[-1].read_ns(epoch=name.startswith("time"))
        return now_ns if ns else now_ns / 1e9

    setattr(time, name, read)


_PATIENCE = 900  # looks at one instant: fewer nanoseconds than a microsecond


class PeerLoop(VirtualLoop):
    """A virtual loop whose time is everybody's while it runs.

    A library whose floats say "wait 0.000000000001 s" would spin for ever where time
    stands still, and one that orders callers by their time of arrival expects no two
    alike; so a look at the clock takes a nanosecond, and very many a microsecond.
    """

    def __init__(self) -> None:
        super().__init__()
        self._looks = (0.0, 0)

    def read_ns(self, *, epoch: bool) -> int:
        """Return nanoseconds, of the epoch or since the loop began."""
        now = self.time()
        start_ns = EPOCH * 1000 if epoch else 0
        return start_ns + round(now * 1e6) * 1000 + self._looks[1]

    def time(self) -> float:
        """Return virtual seconds since the loop began."""
        now = super().time()
        last, looks = self._looks
        self._looks = (now, looks + 1 if now == last else 0)
        if looks > _PATIENCE:
            self.clock.advance(us=1)
        return now

    def run_forever(self) -> None:
        """Run with the clock functions of `time` following this loop."""
        _running.append(self)
        try:
            super().run_forever()
        finally:
            _running.remove(self)

    def run_in_executor(  # type: ignore[override]  # the stubs' TypeVarTuple
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        """Do a thread's work now: virtual time stands still meanwhile."""
        del executor
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            future.set_exception(error)
        return future
