"""The memory store: the limits of one process, its threads and its event loops.

One lock guards meters and lines; under it there is only arithmetic. Waiters are told
of their fate after it is released. Keys are bounded: the ones that hold the least are
forgotten first, and one that is at its limit never is.
"""

from __future__ import annotations

import itertools
import os
import threading
import warnings
import weakref
from typing import TYPE_CHECKING

from ratekeeper.core import line
from ratekeeper.core.decision import LimitStatus, status_of
from ratekeeper.core.limits import CONCURRENT
from ratekeeper.core.line import State, Waiter
from ratekeeper.core.slots import Slots
from ratekeeper.errors import ConfigError, NeverPossible, StoreUnavailable
from ratekeeper.runtime.clock import MonotonicClock, Steady

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ratekeeper.core.meter import Meter
    from ratekeeper.core.policy import Rule
    from ratekeeper.runtime.clock import Clock

Target = tuple["Scope", str]  # whose limits, and which key

_LOOK = 32  # rows looked at to find one to forget


class Scope:
    """The limits that share a name, and their meters by key."""

    __slots__ = ("name", "rows", "rules")

    def __init__(self, name: str, rules: Sequence[Rule]) -> None:
        self.name = name
        self.rules = list(rules)
        self.rows: dict[str, tuple[Meter, ...]] = {}


class MemoryStore:
    """State in this process, shared by everything that is given this store.

    `max_keys` and `max_waiting` bound its memory.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        max_keys: int = 100_000,
        max_waiting: int = 100_000,
    ) -> None:
        if max_keys < 1 or max_waiting < 1:
            msg = "max_keys and max_waiting: expected at least 1"
            raise ConfigError(msg)
        self.clock = MonotonicClock() if clock is None else Steady(clock)
        self._now = self.clock.now_us
        self._lock = threading.Lock()
        self._max_keys = max_keys
        self._max_waiting = max_waiting
        self._scopes: dict[str, Scope] = {}
        self._rows: dict[tuple[Scope, str], None] = {}  # oldest first
        self._seq = itertools.count()
        self._waiting = 0
        _STORES.add(self)

    # Scopes.

    def scope(self, name: str | None, rules: Sequence[Rule]) -> Scope:
        """Return the scope of a name with these rules in force; None is private."""
        if name is None:
            return Scope("", rules)
        with self._lock:
            scope = self._scopes.setdefault(name, Scope(name, rules))
        self.update(scope, rules)
        return scope

    def update(self, scope: Scope, rules: Sequence[Rule]) -> None:
        """Change amounts live: what was used is kept, nobody loses a place."""
        known = [rule.limit.identity for rule in scope.rules]
        if known != [rule.limit.identity for rule in rules]:
            had = ", ".join(rule.text for rule in scope.rules)
            msg = (
                f"'{scope.name}' already limits {had}: only amounts change live, "
                "use another name for other limits"
            )
            raise ConfigError(msg)
        with self._lock:
            now = self._now()
            touched: list[Meter] = []
            for at, rule in enumerate(rules):
                if scope.rules[at].limit != rule.limit:
                    for row in scope.rows.values():
                        row[at].change(rule.limit, now)
                        row[at].text = rule.text
                        touched.append(row[at])
                scope.rules[at] = rule
            told = self._advance(touched, now)
        self._tell(told)

    # The direct path: no line, no driver.

    def take(
        self, scope: Scope, key: str, costs: Sequence[int]
    ) -> tuple[Sequence[Meter], int] | None:
        """Grant now if nothing stands in the way, else change nothing.

        Returns the meters charged and the instant, or None.
        """
        with self._lock:
            now = self._now()
            meters = scope.rows.get(key)
            if meters is None:
                meters = self._row(scope, key, now)
            at = 0  # counting is half the price of zip, here and in settle
            for meter in meters:
                if meter.attention or meter.wait_us(costs[at], now):
                    return None
                at += 1
            at = 0
            for meter in meters:
                meter.admit(costs[at], now)
                at += 1
            return meters, now

    def settle(
        self,
        meters: Sequence[Meter],
        costs: Sequence[int],
        taken_us: int,
        actual: Mapping[str, int],
    ) -> None:
        """True a grant up: refund what was not used, charge what was used on top.

        Slots are given back. Amounts that `actual` does not name stay as they are.
        """
        told: list[Waiter] = []
        with self._lock:
            now = self._now()
            freed = False
            at = 0
            for meter in meters:
                unit = meter.unit
                if unit in actual:
                    delta = actual[unit] - costs[at]
                    if delta > 0:
                        meter.charge(delta, now)
                    elif delta and meter.refunds:
                        meter.back(-delta, taken_us, now)
                        freed = freed or meter.attention
                elif unit == CONCURRENT:
                    meter.back(costs[at], taken_us, now)
                    freed = freed or meter.attention
                at += 1
            if freed:
                told = self._advance(meters, now)
        if told:
            self._tell(told)

    def give_back(
        self, meters: Sequence[Meter], costs: Sequence[int], taken_us: int
    ) -> None:
        """Undo a grant whose call was never sent."""
        with self._lock:
            now = self._now()
            for meter, cost in zip(meters, costs, strict=True):
                meter.back(cost, taken_us, now)
            told = self._advance(meters, now)
        self._tell(told)

    def _advance(self, meters: Iterable[Meter], now: int) -> list[Waiter]:
        lines = [meter for meter in meters if meter.attention]
        if not lines:
            return []
        told = line.advance(lines, now)
        self._count(told)
        for meter in lines:
            meter.settle_attention(now)
        return told

    # The line.

    def try_take(self, targets: Sequence[Target], costs: Sequence[int]) -> Waiter:
        """Grant or refuse now, never overtaking anyone who waits."""
        waiter = Waiter(costs, timeout_us=0, priority=line.Priority.BATCH)
        self.enter(waiter, targets)
        return waiter

    def enter(self, waiter: Waiter, targets: Sequence[Target]) -> None:
        """Grant a call, let it stand in line, or refuse it; its state says which.

        Raises `NeverPossible` for a call no wait would let through.
        """
        with self._lock:
            now = self._now()
            meters = [m for scope, key in targets for m in self._row(scope, key, now)]
            if len({id(meter) for meter in meters}) != len(meters):
                msg = "one call names the same limiter and key twice"
                raise ConfigError(msg)
            for meter, cost in zip(meters, waiter.costs, strict=True):
                if meter.never(cost):
                    raise NeverPossible(_too_large(meter, cost), limit=meter.text)
            if self._waiting >= self._max_waiting and waiter.timeout_us != 0:
                msg = f"{self._waiting} calls are waiting already (max_waiting)"
                raise StoreUnavailable(msg)
            waiter.arrive(meters, now, next(self._seq))
            told = line.enter(waiter, now)
            for meter in meters:
                meter.settle_attention(now)
            self._count(told)
            if waiter.state is State.WAITING:
                waiter.stood = True
                self._waiting += 1
        self._tell(w for w in told if w is not waiter)

    def look_again(self, waiter: Waiter) -> None:
        """Reconsider a waiter whose wake time has come."""
        with self._lock:
            told = []
            if waiter.state is State.WAITING:
                now = self._now()
                told = line.look_again(waiter, now)
                self._count(told)
        self._tell(told)

    def leave(self, waiter: Waiter) -> None:
        """Take a cancelled waiter out, or give its unused grant back: no trace."""
        with self._lock:
            now = self._now()
            if waiter.state is State.WAITING:
                told = [*line.withdraw(waiter, now), waiter]
            elif waiter.state is State.GRANTED:
                for meter, cost in zip(waiter.meters, waiter.costs, strict=True):
                    meter.back(cost, waiter.granted_us, now)
                waiter.state = State.LEFT
                told = line.advance(waiter.meters, now)
            else:
                return
            self._count(told)
            for meter in waiter.meters:
                meter.settle_attention(now)
        self._tell(told)

    def _count(self, told: Iterable[Waiter]) -> None:
        """Keep the number of waiters; only those that stood in line were counted."""
        for waiter in told:
            if waiter.state is not State.WAITING and waiter.stood:
                waiter.stood = False
                self._waiting -= 1

    def _tell(self, told: Iterable[Waiter]) -> None:
        """Wake owners, outside the lock; drop the waiters of those who are gone."""
        for waiter in told:
            if waiter.state is State.LEFT or waiter.seat is None:
                continue
            if not waiter.seat.wake(waiter):
                self.leave(waiter)

    # What providers say.

    def pause(self, meters: Iterable[Meter], wait_us: int) -> None:
        """Let nobody pass these limits for so long: the provider said so."""
        with self._lock:
            now = self._now()
            for meter in meters:
                meter.pause(now + wait_us)

    def confirm(self, meter: Meter, remaining: int, charged_before: int) -> None:
        """Tell a cold meter what the provider says is left."""
        with self._lock:
            now = self._now()
            meter.confirm(remaining, charged_before, now)
            told = self._advance([meter], now)
        self._tell(told)

    def renew(self, meter: Meter, old_us: int, new_us: int) -> bool:
        """Hold a concurrency slot longer; False if its lease had run out."""
        with self._lock:
            return isinstance(meter, Slots) and meter.renew(old_us, new_us)

    # Looking in.

    def now_us(self) -> int:
        """Return the store's time in epoch microseconds."""
        with self._lock:
            return self._now()

    def status(self, scope: Scope, key: str) -> list[LimitStatus]:
        """Describe the limits of a key; reading changes nothing."""
        with self._lock:
            now = self._now()
            meters = scope.rows.get(key)
            if meters is None:
                meters = tuple(rule.meter(now) for rule in scope.rules)
            return [status_of(meter, now) for meter in meters]

    # Keys.

    def _row(self, scope: Scope, key: str, now: int) -> tuple[Meter, ...]:
        """Return the meters of a key, made on first sight."""
        row = scope.rows.get(key)
        if row is None:
            if len(self._rows) >= self._max_keys:
                self._forget_one(now)
            row = tuple(rule.meter(now) for rule in scope.rules)
            self._rows[scope, key] = None
            scope.rows[key] = row
        return row

    def _forget_one(self, now: int) -> None:
        """Forget the key that holds least among the oldest; never one at its limit."""
        best: tuple[float, tuple[Scope, str]] | None = None
        for name in list(itertools.islice(self._rows, _LOOK)):
            row = name[0].rows[name[1]]
            del self._rows[name]  # a second chance: to the end of the order
            self._rows[name] = None
            if any(meter.is_binding(now) for meter in row):
                continue
            held = max(m.used(now) / m.limit.amount for m in row)
            if best is None or held < best[0]:
                best = held, name
        if best is None:
            msg = (
                f"the store holds {self._max_keys} keys and those looked at are all at "
                "their limits: raise max_keys"
            )
            raise StoreUnavailable(msg)
        del self._rows[best[1]]
        del best[1][0].rows[best[1][1]]

    def _start_anew(self) -> bool:
        """Begin empty in a forked child; says whether there was anything."""
        self._lock = threading.Lock()
        used = bool(self._rows)
        for scope, _ in self._rows:
            scope.rows.clear()
        self._rows.clear()
        self._waiting = 0
        return used


_STORES: weakref.WeakSet[MemoryStore] = weakref.WeakSet()


def _after_fork() -> None:
    used = [store._start_anew() for store in list(_STORES)]  # noqa: SLF001 - its own
    if any(used):
        warnings.warn(
            "this process was forked: its memory limits start empty and are its own, "
            "so parent and child together may pass them; share a store instead",
            RuntimeWarning,
            stacklevel=2,
        )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _too_large(meter: Meter, cost: int) -> str:
    return (
        f"the call takes {cost} {meter.limit.unit}, more than the limit "
        f"'{meter.text}' ever holds: make it smaller or raise the limit"
    )
