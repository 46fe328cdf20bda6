"""The memory store: the limits of one process, its threads and its event loops.

One lock guards meters and lines; under it there is only arithmetic. Waiters are told
of their fate after it is released. It is long because what may be done under the lock,
the steps of the line, stands beside the lock.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
import time
import warnings
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from ratekeeper.core import line
from ratekeeper.core.decision import LimitStatus, never_possible, status_of
from ratekeeper.core.learning import blamed, match
from ratekeeper.core.limits import CONCURRENT
from ratekeeper.core.line import Priority, State, Waiter
from ratekeeper.core.slots import Gate, Slots
from ratekeeper.errors import ConfigError, StoreUnavailable
from ratekeeper.runtime.clock import MonotonicClock, Steady
from ratekeeper.stores.keys import Keys, NoRoom, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ratekeeper.core.meter import Meter
    from ratekeeper.core.policy import Rule
    from ratekeeper.core.reading import Reading
    from ratekeeper.runtime.clock import Clock
    from ratekeeper.stores.journal import Journal
    from ratekeeper.stores.keys import Target

    Step = Callable[..., list[Waiter]]  # its last argument is the time


_NONE: tuple[int, Mapping[str, int]] = (0, {})
_TURNS = 100  # given to whoever is under the lock before sleeping on it


class MemoryStore:
    """State in this process, shared by everything that is given this store.

    `max_keys` and `max_waiting` bound its memory. With a journal, the use of durable
    limits in scopes that have a name outlives the process.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        max_keys: int = 100_000,
        max_waiting: int = 100_000,
        journal: Journal | None = None,
    ) -> None:
        if max_waiting < 1:
            msg = "max_waiting: expected at least 1"
            raise ConfigError(msg)
        self._keys = Keys(max_keys, journal)
        self.clock = MonotonicClock() if clock is None else Steady(clock)
        self._now = self.clock.now_us
        # Reentrant, and `_moving` says that a line is being moved: the garbage
        # collector may close a forgotten stream, and settle its grant, anywhere.
        self._lock = threading.RLock()
        self._moving = False
        # A hint, true while somebody is at work under the lock: see `_let_finish`.
        self._busy = False
        self._later: deque[tuple[Step, tuple[Any, ...]]] = deque()
        self._max_waiting = max_waiting
        # A scope lives while a limiter refers to it or a key of it is kept.
        self._scopes: weakref.WeakValueDictionary[str, Scope] = (
            weakref.WeakValueDictionary()
        )
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

    def named(self, name: str, rules: Sequence[Rule]) -> Scope:
        """Return the scope of a name as it is, made with these rules where it is new."""
        with self._lock:
            return self._scopes.setdefault(name, Scope(name, rules))

    def update(self, scope: Scope, rules: Sequence[Rule]) -> None:
        """Change amounts live: what was used is kept, nobody loses a place."""
        known = [rule.limit.identity for rule in scope.rules]
        given = {rule.limit.identity: rule for rule in rules}
        if set(known) != set(given):
            had = ", ".join(rule.text for rule in scope.rules)
            msg = (
                f"'{scope.name}' already limits {had}: only amounts change live, "
                "use another name for other limits"
                if scope.name
                else f"this limiter keeps {had}: only amounts change live, "
                "make another limiter for other limits"
            )
            raise ConfigError(msg)
        self._move(self._changed, scope, [given[identity] for identity in known])

    @staticmethod
    def _changed(scope: Scope, rules: Sequence[Rule], now: int) -> list[Waiter]:
        touched: list[Meter] = []
        for at, rule in enumerate(rules):
            if scope.rules[at] != rule:
                for row in scope.rows.values():
                    meter = row[at]
                    meter.text, meter.refunds = rule.text, rule.refunds
                    meter.__class__ = rule.kind_with(meter.page)  # watched or not
                    if meter.learner is None:
                        meter.change(rule.limit, now)
                    else:
                        meter.learner.tell(rule.limit, now)
                    if meter.line is not None:
                        touched.append(meter)
                scope.rules[at] = rule
        return [*line.refuse_lost(touched, now), *line.advance(touched, now)]

    def reshape(self, scope: Scope, rules: Sequence[Rule]) -> None:
        """Change a scope's limits live, in number as well as in amount.

        A limit that stays keeps what was used and who waits; a new one begins; one that
        is gone holds nobody up any more. What is in flight settles where it was taken.
        """
        self._move(self._reshaped, scope, tuple(rules))

    def _reshaped(self, scope: Scope, rules: Sequence[Rule], now: int) -> list[Waiter]:
        before = {rule.limit.identity: at for at, rule in enumerate(scope.rules)}
        told: list[Waiter] = []
        stay = []  # the old place of each limit that stays
        for rule in rules:
            at = before.get(rule.limit.identity)
            if at is not None and not _is_alike(scope.rules[at], rule):
                at = None
            stay.append(at)
        made = {  # of all keys first: a journal that cannot be read changes nothing
            key: tuple(
                self._keys.meter(rule, scope, key, now) if at is None else row[at]
                for rule, at in zip(rules, stay, strict=True)
            )
            for key, row in scope.rows.items()
        }
        for key, fresh in made.items():
            row = scope.rows[key]
            scope.rows[key] = fresh
            for at, meter in enumerate(row):
                if meter not in fresh:
                    _lift(meter, scope.rules[at])
                    told += line.advance([meter], now)
        old = scope.rules
        scope.rules = [
            rule if at is None else old[at]
            for rule, at in zip(rules, stay, strict=True)
        ]
        scope.learns = any(rule.learns for rule in rules)
        return told + self._changed(scope, rules, now)

    # The direct path: no line, no driver.

    def take(
        self, scope: Scope, key: str, costs: Sequence[int]
    ) -> tuple[Sequence[Meter], int, Waiter | None] | None:
        """Grant now if nothing stands in the way, else change nothing.

        Returns the meters charged, the instant, and who went where limits learn.
        """
        if self._busy:
            self._let_finish()
        with self._lock:
            self._busy = True
            try:
                now = self._now()
                meters = scope.rows.get(key)
                if meters is None:
                    meters = self._keys.row(scope, key, now)
                return _taken(meters, costs, now, learns=scope.learns)
            finally:
                self._busy = False

    def take_all(
        self, targets: Sequence[Target], costs: Sequence[int]
    ) -> tuple[Sequence[Meter], int, Waiter | None] | None:
        """Grant several keys together now, if nothing stands in the way of any.

        Like `take`; None as well where a key is new, or named twice: the line makes
        keys, and says what is wrong.
        """
        if len({*targets}) != len(targets):
            return None
        if self._busy:
            self._let_finish()
        with self._lock:
            self._busy = True
            try:
                now = self._now()
                meters: list[Meter] = []
                learns = False
                for scope, key in targets:
                    row = scope.rows.get(key)
                    if row is None:
                        return None
                    meters += row
                    learns = learns or scope.learns
                return _taken(meters, costs, now, learns=learns)
            finally:
                self._busy = False

    def settle(
        self,
        meters: Sequence[Meter],
        costs: Sequence[int],
        taken_us: int,
        actual: Mapping[str, int],
        counted_us: int | None = None,
        ours: tuple[int, Mapping[str, int]] = _NONE,
    ) -> None:
        """True a grant up: refund what was not used, charge what was used on top.

        Slots are given back. Amounts that `actual` does not name stay as they are. The
        first meters, so many as `ours` says, settle by what it says: no provider has
        counted them.
        """
        if self._busy:
            self._let_finish()
        with self._lock:
            if self._moving:  # by this very thread, which will see to it afterwards
                terms = (meters, costs, taken_us, actual, counted_us, ours)
                self._later.append((_settled, terms))
                return
            self._busy = True
            try:
                freed = _trued_up(
                    meters, costs, taken_us, actual, counted_us, ours, self._now()
                )
            finally:
                self._busy = False
        if freed:
            self._move(_advanced, meters)

    def give_back(
        self, meters: Sequence[Meter], costs: Sequence[int], taken_us: int
    ) -> None:
        """Undo a grant whose call was never sent."""
        self._move(_given_back, meters, costs, taken_us)

    # The line.

    def try_take(self, targets: Sequence[Target], costs: Sequence[int]) -> Waiter:
        """Grant or refuse now, never overtaking anyone who waits."""
        waiter = Waiter(costs, timeout_us=0, priority=line.LAST)
        self.enter(waiter, targets)
        return waiter

    def enter(self, waiter: Waiter, targets: Sequence[Target]) -> None:
        """Grant a call, let it stand in line, or refuse it; its state says which.

        Raises `NeverPossible` for a call no wait would let through.
        """
        self._move(self._entered, waiter, targets)
        if not waiter.meters:
            waiter.state = State.LEFT
            msg = "a finalizer asked for a grant while this thread was giving one"
            raise StoreUnavailable(msg)
        if waiter.state is State.LEFT:
            msg = f"{self._max_waiting} calls are waiting already (max_waiting)"
            raise NoRoom(msg)

    def _entered(
        self, waiter: Waiter, targets: Sequence[Target], now: int
    ) -> list[Waiter]:
        if waiter.state is State.LEFT:  # it was put off, and told so
            return []
        meters = [m for scope, key in targets for m in self._keys.row(scope, key, now)]
        if len({id(meter) for meter in meters}) != len(meters):
            msg = "one call names the same limiter and key twice"
            raise ConfigError(msg)
        if any(key not in scope.rows for scope, key in targets):
            raise self._keys.no_room()
        for meter, cost in zip(meters, waiter.costs, strict=True):
            if meter.never(cost):
                raise never_possible(meter, cost)
        waiter.arrive(meters, now, next(self._seq))
        told = line.enter(waiter, now)
        self._count(told)
        if waiter.state is State.WAITING:
            if self._waiting < self._max_waiting:
                waiter.stood = True
                self._waiting += 1
                for meter in meters:
                    meter.awaited += 1
            else:
                told += line.withdraw(waiter, now)
        for meter in meters:
            meter.settle_attention(now)
        return [other for other in told if other is not waiter]

    def look_again(self, waiter: Waiter) -> None:
        """Reconsider a waiter whose wake time has come."""
        self._move(_looked_again, waiter)

    def leave(self, waiter: Waiter) -> None:
        """Take a cancelled waiter out, or give its unused grant back: no trace."""
        self._move(self._left, waiter)

    def let_go(self, waiters: Sequence[Waiter]) -> None:
        """Take those who still wait out of line, to stand in another; each is told."""
        self._move(_let_go, waiters)

    def _left(self, waiter: Waiter, now: int) -> list[Waiter]:
        told = []
        if waiter.state is State.WAITING:
            told = line.withdraw(waiter, now)
            told += _advanced(waiter.meters, now)
        elif waiter.state is State.GRANTED:
            waiter.state = State.LEFT
            told = _given_back(waiter.meters, waiter.costs, waiter.granted_us, now)
        self._count([waiter])
        return told

    def _move(self, step: Step, *args: Any) -> None:
        """Change lines under the lock, then wake whose fate changed, outside it.

        An owner that is gone (its loop closed, its thread ended) leaves the line.
        """
        if self._busy:
            self._let_finish()
        with self._lock:
            if self._moving:  # by this very thread, which will see to it afterwards
                self._later.append((step, args))
                return
        try:
            self._make(step, args)
        finally:
            while self._later:
                try:
                    step, args = self._later.popleft()
                except IndexError:  # another thread was quicker
                    break
                self._make(step, args)

    def _make(self, step: Step, args: tuple[Any, ...]) -> None:
        told = self._perform(step, *args)
        for waiter in told:  # it grows by those whom the gone let through
            seat = waiter.seat
            if waiter.state is State.LEFT or seat is None:
                continue
            if not seat.wake(waiter):
                told += self._perform(self._left, waiter)

    def _perform(self, step: Step, *args: Any) -> list[Waiter]:
        if self._busy:
            self._let_finish()
        with self._lock:
            self._busy = self._moving = True
            try:
                told = step(*args, self._now())
                self._count(told)
            finally:
                self._busy = self._moving = False
        return told

    def _let_finish(self) -> None:
        """Let a thread that was put aside under the lock run on, and come back then.

        A thread that slept on the lock would be handed it while another one runs, and
        that one would soon sleep on it in turn: from then on each call costs a switch
        of threads. The interpreter switches threads at calls and jumps alone, so whoever
        finds `_busy` false finds the lock free; where it errs the lock still holds.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 - as threading.Condition asks
            return
        for _ in range(_TURNS):
            time.sleep(0)
            if not self._busy:
                return

    def _count(self, told: Iterable[Waiter]) -> None:
        """Keep the number of waiters; only those that stood in line were counted."""
        for waiter in told:
            if waiter.stood and waiter.state is not State.WAITING:
                waiter.stood = False
                self._waiting -= 1
                for meter in waiter.meters:
                    meter.awaited -= 1

    # What providers say.

    def answered(self, waiter: Waiter, readings: Iterable[Reading]) -> None:
        """Learn from an answer to a call that was let in."""
        found = match(readings, waiter.meters)
        if self._busy:
            self._let_finish()
        with self._lock:
            if self._moving:  # by this very thread, which will see to it afterwards
                self._later.append((_answered, (waiter, found)))
                return
            self._busy = True
            try:
                changed = _taught(waiter, found, self._now())
            finally:
                self._busy = False
        for meter in waiter.meters:
            if changed or meter.line is not None:
                self._move(_opened, waiter, changed)
                break

    def refused(
        self,
        meters: Sequence[Meter],
        wait_us: int,
        waiter: Waiter | None,
        readings: Iterable[Reading],
        *,
        ramp: bool,
    ) -> None:
        """Let nobody pass these limits for so long: the provider said so.

        Where there is a waiter whose limits learn, they do so.
        """
        found = [] if waiter is None else match(readings, waiter.meters)
        self._move(_refused, meters, wait_us, waiter, found, ramp)

    def renew(self, meter: Meter, old_us: int, new_us: int) -> bool:
        """Hold a concurrency slot longer; False if its lease had run out."""
        with self._lock:
            return isinstance(meter, Slots) and meter.renew(old_us, new_us)

    # Looking in.

    def now_us(self) -> int:
        """Return the store's time in epoch microseconds."""
        if self._busy:
            self._let_finish()
        with self._lock:
            return self._now()

    def status(self, scope: Scope, key: str) -> list[LimitStatus]:
        """Describe the limits of a key; reading changes nothing."""
        with self._lock:
            now = self._now()
            meters = self._keys.look(scope, key, now)
            return [status_of(meter, now) for meter in meters if meter.is_known]

    def room(
        self,
        targets: Sequence[Target],
        costs: Sequence[int],
        *,
        priority: int = Priority.NORMAL,
        flow: str = "",
    ) -> tuple[int, float]:
        """Return how long such a call would wait now, and how full its limits are.

        The wait is that of the limit that holds it up longest, its line included,
        `NEVER` where none would do; of the limits' uses the largest share. Reading
        changes nothing.
        """
        waiter = Waiter(costs, priority=priority, flow=flow)
        with self._lock:
            now = self._now()
            meters = [
                m for scope, key in targets for m in self._keys.look(scope, key, now)
            ]
            waiter.arrive(meters, now, next(self._seq))
            fullness = max((meter.fullness(now) for meter in meters), default=0.0)
            return line.wait_us(waiter, now), fullness

    def _start_anew(self) -> bool:
        """Begin empty in a forked child; says whether there was anything."""
        self._lock = threading.RLock()
        self._busy = self._moving = False
        self._later.clear()
        self._waiting = 0
        return self._keys.clear()


def _lift(meter: Meter, rule: Rule) -> None:
    """Let a limit that is gone hold nobody up: it is watched from now on."""
    meter.__class__ = dataclasses.replace(rule, shadow=True).kind_with(meter.page)
    meter.paused_until_us = meter.cold_until_us = 0
    meter.pace = None


def _is_alike(old: Rule, new: Rule) -> bool:
    """Say whether a meter of one rule can be kept under the other."""
    return (old.kind, old.learns, old.is_told, old.cold) == (
        new.kind,
        new.learns,
        new.is_told,
        new.cold,
    )


# The steps of the line, each under the lock; they return whom to tell.


def _taken(
    meters: Sequence[Meter], costs: Sequence[int], now: int, *, learns: bool
) -> tuple[Sequence[Meter], int, Waiter | None] | None:
    """Grant where nothing stands in the way, else change nothing."""
    at = 0  # counting is half the price of zip, here and in settle
    for meter in meters:
        if meter.attention:
            # A pace or a pause may let it pass; whoever waits may not be overtaken.
            if meter.line is not None or meter.delay_us(costs[at], now):
                return None
        elif meter.wait_us(costs[at], now):
            return None
        at += 1
    if learns:
        return meters, now, _gone(meters, costs, now)
    at = 0
    for meter in meters:
        meter.grant(costs[at], now)
        at += 1
    return meters, now, None


def _settled(meters: Sequence[Meter], *terms: Any) -> list[Waiter]:
    return _advanced(meters, terms[-1]) if _trued_up(meters, *terms) else []


def _trued_up(
    meters: Sequence[Meter],
    costs: Sequence[int],
    taken_us: int,
    actual: Mapping[str, int],
    counted_us: int | None,
    ours: tuple[int, Mapping[str, int]],
    now: int,
) -> bool:
    """Refund and charge; says whether that may let somebody through."""
    freed = False
    split, said = ours
    counted = None
    at = 0
    for meter in meters:
        if at == split:
            said, counted = actual, counted_us
        cost = costs[at]
        unit = meter.unit
        if meter.is_amount:
            meter.let_go(cost, said.get(unit, cost), taken_us)
        if unit in said:
            delta = said[unit] - cost
            if delta > 0:
                meter.charge(delta, now)
            elif delta and meter.refunds:
                meter.back(-delta, taken_us, now, counted)
                freed = freed or meter.attention
        elif unit == CONCURRENT:
            meter.back(cost, taken_us, now)
            freed = freed or meter.attention
        at += 1
    return freed


def _advanced(meters: Sequence[Meter], now: int) -> list[Waiter]:
    told = line.advance(meters, now)
    for meter in meters:
        meter.settle_attention(now)
    return told


def _given_back(
    meters: Sequence[Meter], costs: Sequence[int], taken_us: int, now: int
) -> list[Waiter]:
    for meter, cost in zip(meters, costs, strict=True):
        if meter.is_amount:
            meter.let_go(cost, 0, taken_us)
        meter.back(cost, taken_us, now)
    return _advanced(meters, now)


def _looked_again(waiter: Waiter, now: int) -> list[Waiter]:
    if waiter.state is not State.WAITING:
        return []
    told = line.look_again(waiter, now)
    for meter in waiter.meters:
        meter.settle_attention(now)
    return told


def _let_go(waiters: Sequence[Waiter], now: int) -> list[Waiter]:
    told = line.let_go(waiters, now)
    for meter in {meter: None for waiter in waiters for meter in waiter.meters}:
        meter.settle_attention(now)
    return told


def _gone(meters: Sequence[Meter], costs: Sequence[int], now: int) -> Waiter:
    """Grant a call whose answer will teach."""
    waiter = Waiter(costs)
    waiter.arrive(meters, now, 0)
    at = 0
    for meter in meters:
        if meter.learner is None:
            meter.admit(costs[at], now)
            if meter.is_amount:
                meter.take_hold(costs[at], now)
        else:
            meter.grant(costs[at], now)
        at += 1
    waiter.go(now)
    return waiter


def _answered(
    waiter: Waiter, readings: Sequence[Reading | None], now: int
) -> list[Waiter]:
    return _opened(waiter, _taught(waiter, readings, now), now)


def _taught(
    waiter: Waiter, readings: Sequence[Reading | None], now: int
) -> list[Meter]:
    """Learn from an answer; returns the limits whose amounts that changed."""
    taken_us, changed = waiter.granted_us, []
    for at, meter in enumerate(waiter.meters):
        mark, learner, cost = waiter.marks[at], meter.learner, waiter.costs[at]
        if mark is None:
            continue
        if learner is None:
            meter.let_in(taken_us, now)
            continue
        if waiter.counted_us is None:
            waiter.counted_us = learner.counted_us(taken_us, now)
        learner.let_in(cost, taken_us, waiter.counted_us, now)
        if learner.heed(mark, readings[at], now):
            changed.append(meter)
        if meter.attention:  # the cold start may be over
            meter.settle_attention(now)
    return changed


def _opened(waiter: Waiter, changed: Sequence[Meter], now: int) -> list[Waiter]:
    """Let through whom an answer lets through."""
    if changed:
        _open_gates(waiter.meters, now)
    return [*line.refuse_lost(changed, now), *_advanced(waiter.meters, now)]


def _open_gates(meters: Sequence[Meter], now: int) -> None:
    """Let those through who wait for limits to be known; what they hold must fit."""
    for gate in meters:
        if isinstance(gate, Gate):
            for waiter in gate.line or ():
                waiter.cut()
            gate.open(now)


def _refused(
    meters: Sequence[Meter],
    wait_us: int,
    waiter: Waiter | None,
    readings: Sequence[Reading | None],
    ramp: bool,  # noqa: FBT001 - private
    now: int,
) -> list[Waiter]:
    if waiter is not None:
        _turned_away(waiter, meters, readings, ramp, now)
    for meter in meters:
        meter.pause(now + wait_us)
    touched = meters if waiter is None else waiter.meters
    return [*line.refuse_lost(touched, now), *_advanced(touched, now)]


def _turned_away(
    waiter: Waiter,
    named: Sequence[Meter],
    readings: Sequence[Reading | None],
    ramp: bool,  # noqa: FBT001 - private
    now: int,
) -> None:
    taken_us = waiter.granted_us
    costs = [waiter.cost_of(meter) for meter in named]
    own = [readings[waiter.meters.index(meter)] for meter in named]
    guilty = blamed(named, costs, own, taken_us, now)
    for at, meter in enumerate(waiter.meters):
        mark, learner = waiter.marks[at], meter.learner
        if learner is not None and mark is not None:
            learner.heed(mark, readings[at], now)
            if meter in guilty:
                learner.turned_away(taken_us, now, ramp=ramp)
        elif meter in guilty:
            meter.turned_away(taken_us, now)


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
