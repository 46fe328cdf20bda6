"""Grant: permission to call, holding its cost until it is settled.

It knows what was taken and from which meters; how a store keeps them it does not know.
Whatever ends it, ends it once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

from ratekeeper.core import units
from ratekeeper.core.limits import CONCURRENT
from ratekeeper.core.policy import COUNTS, counted
from ratekeeper.core.units import MAX_COST
from ratekeeper.runtime import aio

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from decimal import Decimal
    from types import TracebackType

    from ratekeeper.core.line import Waiter
    from ratekeeper.core.meter import Meter
    from ratekeeper.core.reading import Reading
    from ratekeeper.stores.memory import MemoryStore

_log = logging.getLogger("ratekeeper")


class Grant:
    """Permission to call, holding its cost until it is settled.

    Use it as a context manager: left without `settle` it counts as fully used.
    """

    __slots__ = (
        "__weakref__",
        "_costs",
        "_learns",
        "_meters",
        "_open",
        "_renewal",
        "_store",
        "_taken_us",
        "_waiter",
    )

    def __init__(
        self,
        store: MemoryStore,
        meters: Sequence[Meter],
        costs: Sequence[int],
        taken_us: int,
        waiter: Waiter | None = None,
    ) -> None:
        self._store = store
        self._meters = meters
        self._costs = costs
        self._taken_us = taken_us
        self._waiter = waiter
        # Whether the provider's answer has something to teach, and has not come yet.
        self._learns = waiter is not None and bool(waiter.marks)
        self._open: bool | None = True  # None: settled twice, and that was reported
        self._renewal: aio.Renewals | None = None

    @property
    def waited_s(self) -> float:
        """How long the call waited in line, in seconds."""
        if self._waiter is None:
            return 0.0
        return units.seconds(self._taken_us - self._waiter.arrived_us)

    @property
    def is_open(self) -> bool:
        """Whether the grant has not been settled yet."""
        return self._open is True

    def settle(self, **actual: int | Decimal | str) -> None:
        """True the grant up to what was really used, and give its slot back.

        Units not named stay as reserved. A refund is usable at once; an overrun delays
        later calls. A second settle changes nothing and is logged once.
        """
        for unit, amount in actual.items():
            if type(amount) is units.Nano and unit in units.CURRENCIES:
                known = 0 <= amount <= units.MAX_MONEY
            else:
                known = (
                    type(amount) is int and 0 <= amount <= MAX_COST and unit in COUNTS
                )
            if not known:
                actual = self._counted(actual)  # type: ignore[assignment]  # narrower
                break
        if self._learns and self._open:
            self.answered()
        if self._open and self._renewal is None:
            self._open = False
        elif not self._close("settle"):
            return
        self._settle(actual)  # type: ignore[arg-type]  # checked above

    def release(self) -> None:
        """Give the slot back; everything reserved counts as used."""
        if self._close("release"):
            self._settle({})

    def cancel(self) -> None:
        """Give everything back: the call was never sent."""
        if self._close("cancel"):
            self._store.give_back(self._meters, self._costs, self._taken_us)

    def refused(
        self,
        retry_after_s: float | None = None,
        *,
        unit: str | None = None,
        window_s: float | None = None,
        readings: Iterable[Reading] = (),
        ramp: bool = False,
        **actual: int | Decimal | str,
    ) -> None:
        """Tell that the provider said 429: the limit pauses for everyone.

        `retry_after_s` is the provider's hint (without one, or 0: a second); `unit` and
        `window_s` are the limit it named (without one, or one not held here: all of
        the account's); `readings` are what its headers show; `ramp` says that the rate
        rose too steeply. The request counts; `actual` settles the rest, and money comes
        back.
        """
        checked = self._counted(actual)
        for meter in self._meters:
            if meter.limit.is_money:
                checked.setdefault(meter.limit.unit, 0)
        hint_us = 0
        if retry_after_s is not None and 0 <= retry_after_s < _ABSURD_S:
            hint_us = units.micros(retry_after_s)
        spoken_of = self._named(unit, window_s)
        waiter = self._waiter if self._learns else None
        self._learns = False
        self._store.refused(
            spoken_of, hint_us or units.SECOND, waiter, readings, ramp=ramp
        )
        if self._close("refused"):
            self._settle(checked)

    def answered(self, readings: Iterable[Reading] | None = ()) -> None:
        """Tell that the provider let the call in, when the head of its answer is there.

        `readings` are the limits that its headers show; None says that the answer does
        not tell whether limits let it in. An account's limits learn from it; `settle`
        says the same, only later. A second time changes nothing.
        """
        if self._learns and self._waiter is not None:
            self._learns = False
            if readings is not None:
                self._store.answered(self._waiter, readings)

    def _named(self, unit: str | None, window_s: float | None) -> Sequence[Meter]:
        """Return the limits that a refusal speaks of: an account's, if there are any."""
        meters = self._meters
        waiter = self._waiter
        if waiter is not None and any(waiter.marks):
            marked = zip(waiter.meters, waiter.marks, strict=True)
            meters = [meter for meter, mark in marked if mark]
        return named(meters, unit, window_s)

    def _settle(self, actual: Mapping[str, int]) -> None:
        counted_us = None if self._waiter is None else self._waiter.counted_us
        self._store.settle(
            self._meters, self._costs, self._taken_us, actual, counted_us
        )

    def hold_again(self, hold_us: int) -> bool:
        """Hold its concurrency slots for so long from now on.

        False when none is held any more. Tasks need not: their slots are renewed.
        """
        held = False
        costs = [*self._costs]
        until_us = self._store.now_us() + hold_us
        for at, meter in enumerate(self._meters):
            if meter.unit == CONCURRENT and self._open:
                old_us = self._taken_us + costs[at]
                if self._store.renew(meter, old_us, until_us):
                    costs[at] = until_us - self._taken_us
                    held = True
        self._costs = costs
        if held and not self._open:  # settled by another thread meanwhile
            self._give_slots_back()
        return held

    def _give_slots_back(self) -> None:
        held = zip(self._meters, self._costs, strict=True)
        slots = [(meter, cost) for meter, cost in held if meter.unit == CONCURRENT]
        meters, costs = zip(*slots, strict=True)
        self._store.settle(meters, costs, self._taken_us, {})

    def _keep_slots(self) -> None:
        """Renew the concurrency slots for as long as the grant is open."""
        for meter, hold_us in zip(self._meters, self._costs, strict=True):
            if meter.unit == CONCURRENT:
                self._renewal = aio.keep(self, hold_us)
                return

    def _counted(self, actual: dict[str, Any]) -> dict[str, int]:
        return counted(actual, [meter.unit for meter in self._meters])

    def _close(self, verb: str) -> bool:
        if not self._open:
            if self._open is False:
                _log.warning("a grant was settled twice (%s): that is ignored", verb)
                self._open = None
            return False
        self._open = False
        if self._renewal is not None:
            self._renewal.discard(self)
            self._renewal = None
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open:
            if kind is None:
                self.answered()
            self.release()

    def __repr__(self) -> str:
        held = ", ".join(meter.text for meter in self._meters)
        return f"<Grant {'open' if self._open else 'settled'}: {held}>"


def named(
    meters: Sequence[Meter], unit: str | None, window_s: float | None
) -> Sequence[Meter]:
    """Return which of the limits a refusal speaks of: rates, if there are any."""
    found = [meter for meter in meters if _is_named(meter, unit, window_s)] or meters
    rates = [
        meter
        for meter in found
        if not meter.limit.is_money and meter.limit.unit != CONCURRENT
    ]
    return rates or found


def _is_named(meter: Meter, unit: str | None, window_s: float | None) -> bool:
    """Say whether a provider that names a unit and a window may mean this limit."""
    if unit is not None and meter.unit != unit:
        return False
    return window_s is None or meter.limit.window_us == units.micros(window_s)


_ABSURD_S = 31 * 24 * 3600.0  # a hint beyond a month is ignored
