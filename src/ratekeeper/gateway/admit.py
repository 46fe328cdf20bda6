"""Admission: one grant over every limit on a call's way, all together or not at all.

A `Way` is whose limits a call goes through: those of the caller's key and team, which
are ours, then those of a model and an account, which are the provider's. What is ours
settles by what was really used; what is the provider's, as that provider counts.
"""

from __future__ import annotations

import asyncio
import dataclasses
from itertools import islice
from typing import TYPE_CHECKING

from ratekeeper.core import plans
from ratekeeper.core.limits import CONCURRENT
from ratekeeper.core.line import State, Waiter
from ratekeeper.core.policy import HOLD
from ratekeeper.grant import Grant, named
from ratekeeper.runtime import aio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ratekeeper.core.meter import Meter
    from ratekeeper.core.reading import Reading
    from ratekeeper.gateway.ledger import Ledger
    from ratekeeper.providers.catalog import Provider
    from ratekeeper.providers.facts import Costs
    from ratekeeper.stores.keys import Target
    from ratekeeper.stores.memory import MemoryStore

_READ_US = 10_000  # answers that come closer together show much the same of limits
_AT_ONCE = 16  # calls that choose anew in one turn of the loop: a millisecond or so


class Crowd:
    """The calls that stand in line for one account, and may be sent to another."""

    __slots__ = ("_going", "_store", "_waiters")

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._going: dict[Waiter, None] = {}  # who is to be let go, in that order
        self._waiters: dict[Waiter, bool] = {}  # and whether it has a choice

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, waiter: Waiter, *, has_choice: bool) -> None:
        """Take note that a call stands in line."""
        self._waiters[waiter] = has_choice

    def part(self, waiter: Waiter) -> None:
        """Take note that it does so no more."""
        del self._waiters[waiter]

    def disperse(self, *, all_of_them: bool) -> None:
        """Let those go who have a choice, or all of them, so that they choose anew.

        They go in the order in which they came, a few in each turn of the loop, however
        often it is asked for: others have business there as well.
        """
        is_under_way = bool(self._going)
        here = [one for one, free in self._waiters.items() if free or all_of_them]
        self._going |= dict.fromkeys(sorted(here))
        if not is_under_way:
            self._let_some_go()

    def _let_some_go(self) -> None:
        some = list(islice(self._going, _AT_ONCE))
        for waiter in some:
            del self._going[waiter]
        self._store.let_go(some)  # those who do not wait any more are passed over
        if self._going:
            asyncio.get_running_loop().call_soon(self._let_some_go)


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """How a call stands in line: its class, its flow, and how long it may wait."""

    priority: int
    flow: str
    weight: int
    timeout_us: int
    again: bool = False
    place: tuple[int, int] | None = None  # that it has had in another line
    crowd: Crowd | None = None
    has_choice: bool = False


class Way:
    """Whose limits a call goes through; the first `split` of them are ours."""

    __slots__ = (
        "_read_us",
        "_rules",
        "asked",
        "is_durable",
        "money",
        "of_model",
        "own_texts",
        "split",
        "targets",
        "theirs",
        "units",
        "watched",
        "watched_money",
    )

    def __init__(self, ours: Sequence[Target], theirs: Sequence[Target]) -> None:
        self.targets = (*ours, *theirs)
        self.theirs = tuple(theirs)
        rules = [rule for scope, _ in self.targets for rule in scope.rules]
        self.split = sum(len(scope.rules) for scope, _ in ours)
        # Which are of the model alone: what is the provider's is kept by model, if by
        # anything.
        by = [key for scope, key in self.targets for _ in scope.rules]
        self.of_model = tuple(at for at, key in enumerate(by) if key)
        budgets = [rule for rule in rules if rule.limit.is_money]
        self.money = tuple(rule.limit for rule in budgets if not rule.shadow)
        self.watched_money = tuple(rule for rule in budgets if rule.shadow)
        told = [one for one in rules if one.is_told and one.limit.unit != CONCURRENT]
        self.units = frozenset(rule.limit.unit for rule in told)
        # Those without which a call cannot be decided.
        self.asked = frozenset(rule.limit.unit for rule in told if not rule.shadow)
        self.own_texts = frozenset(rule.text for rule in rules[: self.split])
        self.watched = tuple(at for at, rule in enumerate(rules) if rule.shadow)
        self.is_durable = any(rule.is_durable for rule in rules)
        self._rules = [scope.rules for scope, _ in self.targets]
        self._read_us = 0  # when an answer last showed what is left

    @property
    def is_current(self) -> bool:
        """Whether its limits are still as many: a reload may have changed that."""
        at = 0
        for scope, _ in self.targets:
            if scope.rules is not self._rules[at]:
                return False
            at += 1
        return True

    def readings(
        self, provider: Provider, fields: Mapping[str, str], now: int
    ) -> Sequence[Reading]:
        """Return what an answer shows of the provider's limits, once in a moment.

        At many answers a second each tells what the one before it told.
        """
        if 0 <= now - self._read_us < _READ_US:
            return ()
        found = provider.readings(fields, now)
        if found:
            self._read_us = now
        return found

    def costs(self, ours: Costs, theirs: Costs, money: Mapping[str, int]) -> list[int]:
        """Return what a call takes from each limit of its way.

        As a precaution no more is held than a limit ever holds, but never less than is
        charged: so a call that can never be admitted is refused when it asks.
        """
        costs: list[int] = []
        charged, reserved = ours.charged, ours.reserved
        for scope, key in self.targets:
            if len(costs) == self.split:
                charged, reserved = theirs.charged, theirs.reserved
            for one in scope.rows.get(key) or scope.rules:
                limit = one.limit
                unit = limit.unit
                if unit in charged:
                    cost, held = charged[unit], min(reserved[unit], limit.amount)
                    costs.append(max(cost, held))
                elif unit == CONCURRENT:
                    costs.append(HOLD)
                else:
                    # A budget that is only watched may not know what a call costs.
                    costs.append(money.get(unit, 0) if limit.is_money else 0)
        return costs


class Pass(Grant):
    """A grant over a whole way, settled in two parts."""

    __slots__ = ("_of_model", "_split", "is_of_model", "ours")

    def __init__(
        self,
        store: MemoryStore,
        way: Way,
        taken: tuple[Sequence[Meter], Sequence[int], int, Waiter | None],
    ) -> None:
        super().__init__(store, *taken)
        self._split = way.split
        self._of_model = way.of_model
        self.is_of_model = False  # whether a refusal is about the model alone
        self.ours: Mapping[str, int] | None = None  # how to settle what is ours
        self._keep_slots()
        for meter in self._meters:
            meter.settles = True

    @property
    def place(self) -> tuple[int, int] | None:
        """Its place in the line, where it has waited."""
        return None if self._waiter is None else self._waiter.place

    def missed(self, way: Way) -> list[str]:
        """Return the watched limits that would have denied the call."""
        meters = [self._meters[at] for at in way.watched]
        return [one.text for one in meters if one.missed_us == self._taken_us]

    def bounded(self, used: Mapping[str, int]) -> dict[str, int]:
        """Return of what was used what may be settled at the provider's limits.

        A caller's word charges none of them to more than twice its amount, though never
        less than was taken: else it would close the account for everybody.
        """
        found, now = dict(used), self._store.now_us()
        theirs = slice(self._split, None)
        for meter, cost in zip(self._meters[theirs], self._costs[theirs], strict=True):
            if meter.unit in found:
                amount = meter.limit.amount if meter.is_known else 0
                room = max(0, 2 * amount - meter.used(now))
                found[meter.unit] = min(found[meter.unit], cost + room)
        return found

    def _named(self, unit: str | None, window_s: float | None) -> Sequence[Meter]:
        """Return the limits that a refusal speaks of: none of ours."""
        theirs = self._meters[self._split :]
        if self.is_of_model and self._of_model:
            theirs = [self._meters[at] for at in self._of_model]
        return named(theirs, unit, window_s)

    def _settle(self, actual: Mapping[str, int]) -> None:
        ours = actual if self.ours is None else self.ours
        counted_us = None if self._waiter is None else self._waiter.counted_us
        self._store.settle(
            self._meters,
            self._costs,
            self._taken_us,
            actual,
            counted_us,
            (self._split, ours),
        )


async def admit(
    store: MemoryStore,
    way: Way,
    costs: Sequence[int],
    turn: Callable[[], Turn],
    ledger: Ledger,
) -> Pass | Waiter:
    """Wait in line for a pass; a refused waiter says which limit holds it up.

    A waiter that was let go may try elsewhere. `turn` is asked where there is a line.

    Raises `NeverPossible` for a call larger than a limit, `StoreUnavailable` where the
    line is full, or what it spends cannot be kept.
    """
    taken = store.take_all(way.targets, costs)
    if taken is not None:
        meters, now, gone = taken
        passed = Pass(store, way, (meters, costs, now, gone))
    else:
        waiter = await _in_line(store, way, costs, turn())
        if waiter.state is not State.GRANTED:
            return waiter
        stood = (waiter.meters, waiter.costs, waiter.granted_us, waiter)
        passed = Pass(store, way, stood)
    if way.is_durable:
        try:
            await ledger.kept()
        except BaseException:
            passed.cancel()
            raise
    return passed


async def _in_line(
    store: MemoryStore, way: Way, costs: Sequence[int], turn: Turn
) -> Waiter:
    waiter = Waiter(
        costs,
        timeout_us=turn.timeout_us,
        priority=turn.priority,
        flow=turn.flow,
        weight=turn.weight,
        again=turn.again,
        place=turn.place,
        seat=aio.TaskSeat(store),
    )
    crowd = turn.crowd
    if crowd is None:
        await aio.run(plans.acquire(waiter), store, way.targets)
        return waiter
    crowd.join(waiter, has_choice=turn.has_choice)
    try:
        await aio.run(plans.acquire(waiter), store, way.targets)
    finally:
        crowd.part(waiter)
    return waiter
