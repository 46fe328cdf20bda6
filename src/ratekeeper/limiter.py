"""Limiter and AsyncLimiter: the library's front door.

Both are thin: a call that fits now takes the store's direct path; one that does not
becomes a plan for the thread or the asyncio driver. A grant is settled exactly once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Self

from ratekeeper.core import plans, units
from ratekeeper.core.decision import Denied, LimitStatus, denied
from ratekeeper.core.limits import CONCURRENT
from ratekeeper.core.line import Priority, State, Waiter
from ratekeeper.core.units import MAX_COST
from ratekeeper.core.policy import HOLD, Account, costs_of, rules_of
from ratekeeper.errors import BudgetExceeded, ConfigError, LimitExceeded
from ratekeeper.runtime import aio, sync
from ratekeeper.stores.open import open_store

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from decimal import Decimal
    from types import TracebackType

    from ratekeeper.core.limits import Limit
    from ratekeeper.core.meter import Meter
    from ratekeeper.stores.memory import MemoryStore, Target

_log = logging.getLogger("ratekeeper")

class Grant:
    """Permission to call, holding its cost until it is settled.

    Use it as a context manager: left without `settle` it counts as fully used.
    """

    __slots__ = (
        "_costs",
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
        self._open = True
        self._renewal: asyncio.TimerHandle | None = None

    @property
    def waited_s(self) -> float:
        """How long the call waited in line, in seconds."""
        if self._waiter is None:
            return 0.0
        return units.seconds(self._taken_us - self._waiter.arrived_us)

    @property
    def is_open(self) -> bool:
        """Whether the grant has not been settled yet."""
        return self._open

    def settle(self, **actual: int | Decimal | str) -> None:
        """True the grant up to what was really used, and give its slot back.

        Units not named stay as reserved. A refund is usable at once; an overrun delays
        later calls. A second settle changes nothing and is logged once.
        """
        for unit, amount in actual.items():
            if type(amount) is not int or not 0 <= amount <= MAX_COST:
                actual[unit] = units.count(unit, amount)
        if self._open and self._renewal is None:
            self._open = False
        elif not self._close("settle"):
            return
        self._store.settle(self._meters, self._costs, self._taken_us, actual)  # type: ignore[arg-type]  # checked above

    def release(self) -> None:
        """Give the slot back; everything reserved counts as used."""
        if self._close("release"):
            self._store.settle(self._meters, self._costs, self._taken_us, {})

    def cancel(self) -> None:
        """Give everything back: the call was never sent."""
        if self._close("cancel"):
            self._store.give_back(self._meters, self._costs, self._taken_us)

    def refused(
        self,
        retry_after_s: float | None = None,
        *,
        unit: str | None = None,
        **actual: int | Decimal | str,
    ) -> None:
        """Tell that the provider said 429: the limit pauses for everyone.

        `retry_after_s` is the provider's hint (without one: a second), `unit` the limit
        it named (without one: all of them). The request counts; `actual` settles the
        rest, and money comes back.
        """
        checked = {unit: units.count(unit, amount) for unit, amount in actual.items()}
        for meter in self._meters:
            if meter.limit.is_money:
                checked.setdefault(meter.limit.unit, 0)
        hint_us = units.SECOND
        if retry_after_s is not None and 0 <= retry_after_s < _ABSURD_S:
            hint_us = units.micros(retry_after_s)
        named = [m for m in self._meters if unit is None or m.limit.unit == unit]
        rates = [
            meter
            for meter in named or self._meters
            if not meter.limit.is_money and meter.limit.unit != CONCURRENT
        ]
        self._store.pause(rates or named, hint_us)
        if self._close("refused"):
            self._store.settle(self._meters, self._costs, self._taken_us, checked)

    def _renew_slots(self) -> None:
        """Keep concurrency slots while a task holds them: half-way through each hold.

        The lease then outlives neither its holder's loop nor a settled grant.
        """
        for i, meter in enumerate(self._meters):
            if meter.limit.unit == CONCURRENT and self._open:
                hold_us = self._costs[i]
                loop = asyncio.get_running_loop()
                self._renewal = loop.call_later(hold_us / 2e6, self._renew, i, hold_us)

    def _renew(self, at: int, hold_us: int) -> None:
        meter, held = self._meters[at], self._costs[at]
        now = self._store.now_us()
        until = now + hold_us
        if self._store.renew(meter, self._taken_us + held, until):
            self._costs = [*self._costs]
            self._costs[at] = until - self._taken_us
            loop = asyncio.get_running_loop()
            self._renewal = loop.call_later(hold_us / 2e6, self._renew, at, hold_us)

    def _close(self, verb: str) -> bool:
        if not self._open:
            _log.warning("a grant was settled twice (%s): the second is ignored", verb)
            return False
        self._open = False
        if self._renewal is not None:
            self._renewal.cancel()
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
            self.release()

    def __repr__(self) -> str:
        held = ", ".join(meter.text for meter in self._meters)
        return f"<Grant {'open' if self._open else 'settled'}: {held}>"


_ABSURD_S = 31 * 24 * 3600.0  # a hint beyond a month is ignored


_USUAL = {"requests": 1, CONCURRENT: HOLD}


class _Front:
    """What both limiters share: the policy, the store, and how a call is asked for."""

    def __init__(
        self,
        *limits: Limit | str,
        name: str | None = None,
        store: MemoryStore | str = "memory://",
        account: Account | None = None,
    ) -> None:
        self._rules = rules_of(limits, account)
        self._account = account
        self._store = open_store(store, shared=name is not None)
        self._scope = self._store.scope(name, self._rules)
        self._has_slots = any(rule.limit.unit == CONCURRENT for rule in self._rules)
        # What the direct path reads: each limit's unit and what a call takes unless it
        # says so; None (tokens, money) leaves it to `costs_of`.
        self._units = [
            (rule.limit.unit, _USUAL.get(rule.limit.unit)) for rule in self._rules
        ]

    @property
    def has_slots(self) -> bool:
        """Whether a concurrency limit is among them."""
        return self._has_slots

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits in force, their algorithms filled in."""
        return tuple(rule.limit for rule in self._scope.rules)

    def update(self, *limits: Limit | str) -> None:
        """Change amounts live: what was used is kept, nobody loses a place in line."""
        rules = rules_of(limits, self._account)
        self._store.update(self._scope, rules)
        self._rules = rules

    def status(self, key: str = "") -> dict[str, LimitStatus]:
        """Return, by limit: used, remaining, reset_after_s, waiting."""
        rows = self._store.status(self._scope, key)
        return {row.limit: row for row in rows}

    def try_acquire(
        self,
        *,
        key: str = "",
        hold: float | None = None,
        also: Iterable[tuple[_Front, str]] = (),
        **cost: int | Decimal | str,
    ) -> Grant | Denied:
        """Grant or deny now, without waiting and without overtaking those who wait.

        Costs are named by unit: `tokens=500`; `requests` is 1 unless said. `also`
        names more (limiter, key) pairs that must grant together with this one.
        Raises `NeverPossible` for a call larger than a limit, `TypeError` where a
        limit counts something the call does not state.
        """
        grant, costs = self._direct(key, hold, also, cost)
        if grant is not None:
            return grant
        costs, targets = self._targets(key, costs, also, cost, hold)
        waiter = self._store.try_take(targets, costs)
        if waiter.state is State.GRANTED:
            return Grant(self._store, waiter.meters, costs, waiter.granted_us)
        assert waiter.held_by is not None  # noqa: S101 - set by every refusal
        return denied(waiter.held_by, waiter.wait_us)

    def _direct(
        self,
        key: str,
        hold: float | None,
        also: Iterable[tuple[_Front, str]],
        cost: dict[str, Any],
    ) -> tuple[Grant | None, list[int]]:
        """Check the costs and grant where nothing stands in the way."""
        costs = []
        for unit, usual in self._units:
            amount = cost.get(unit, usual)
            if type(amount) is not int or not 0 <= amount <= MAX_COST:
                costs = self._costs(cost, hold)
                break
            costs.append(amount)
        if hold is not None:
            costs = self._costs(cost, hold)
        if not also:
            taken = self._store.take(self._scope, key, costs)
            if taken is not None:
                return Grant(self._store, taken[0], costs, taken[1]), costs
        return None, costs

    def _costs(self, cost: dict[str, Any], hold: float | None) -> list[int]:
        return costs_of(self._rules, cost, HOLD if hold is None else _hold_us(hold))

    def _targets(
        self,
        key: str,
        costs: list[int],
        also: Iterable[tuple[_Front, str]],
        cost: dict[str, Any],
        hold: float | None,
    ) -> tuple[list[int], list[Target]]:
        if not isinstance(key, str):
            msg = f"key= is a string, not {type(key).__name__}"
            raise TypeError(msg)
        targets: list[Target] = [(self._scope, key)]
        for other, other_key in also:
            if other._store is not self._store:
                msg = "all limits of one call live in one store: pass store= to both"
                raise ConfigError(msg)
            targets.append((other._scope, other_key))
            costs = costs + other._costs(cost, hold)
        return costs, targets

    def _granted(self, waiter: Waiter) -> Grant:
        """Turn a waiter whose fate is decided into a grant or the error."""
        meter = waiter.held_by
        if waiter.state is not State.GRANTED:
            assert meter is not None
            answer = denied(meter, waiter.wait_us)
            kind = BudgetExceeded if meter.limit.is_money else LimitExceeded
            raise kind(
                str(answer), retry_after_s=answer.retry_after_s, limit=answer.limit
            )
        if meter is not None:
            waited = units.format_wait(waiter.granted_us - waiter.arrived_us)
            _log.info("waited %s for the limit '%s'", waited, meter.text)
        return Grant(
            self._store, waiter.meters, waiter.costs, waiter.granted_us, waiter
        )


_NOBODY = Waiter(())


def _priority(name: str) -> Priority:
    try:
        return Priority[name.upper()]
    except (KeyError, AttributeError):
        msg = f"priority={name!r}: expected interactive, normal or batch"
        raise ConfigError(msg) from None


def _timeout_us(timeout: float | None) -> int | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        msg = f"timeout= is a number of seconds or None, not {type(timeout).__name__}"
        raise TypeError(msg)
    if timeout != timeout:  # noqa: PLR0124 - NaN
        msg = "timeout= is not a number"
        raise ConfigError(msg)
    # A deadline that has passed is a denial, not an error: it counts as 0.
    return None if timeout > _ABSURD_S else units.micros(max(0.0, timeout))


def _hold_us(hold: float) -> int:
    if (
        isinstance(hold, bool)
        or not isinstance(hold, int | float)
        or not 0 < hold <= _ABSURD_S
    ):
        msg = f"hold={hold!r}: expected the longest life of a slot in seconds"
        raise ConfigError(msg)
    return units.micros(hold)


class Limiter(_Front):
    """Grants calls to threads under all its limits together, or not at all.

    Example:
        >>> limiter = Limiter("500 requests/minute", "120k tokens/minute")
        >>> with limiter.acquire(tokens=500, timeout=30) as grant:
        ...     grant.settle(tokens=320)  # 180 tokens go back at once
    """

    def acquire(
        self,
        *,
        key: str = "",
        timeout: float | None = None,
        priority: str = "normal",
        hold: float | None = None,
        also: Iterable[tuple[_Front, str]] = (),
        **cost: int | Decimal | str,
    ) -> Grant:
        """Wait in line for a grant, at most `timeout` seconds (None: without bound).

        A timeout that cannot be met raises `LimitExceeded` at once with the exact
        wait; 0 grants or refuses now. For the rest see `try_acquire`.
        """
        grant, costs = self._direct(key, hold, also, cost)
        if grant is not None:
            return grant
        costs, targets = self._targets(key, costs, also, cost, hold)
        waiter = Waiter(
            costs,
            timeout_us=_timeout_us(timeout),
            priority=_priority(priority),
            seat=sync.ThreadSeat(),
        )
        sync.run(plans.acquire(waiter), self._store, targets)
        return self._granted(waiter)


class AsyncLimiter(_Front):
    """The same limiter for tasks: `async with limiter.acquire(tokens=500) as grant`."""

    def acquire(
        self,
        *,
        key: str = "",
        timeout: float | None = None,
        priority: str = "normal",
        hold: float | None = None,
        also: Iterable[tuple[_Front, str]] = (),
        **cost: int | Decimal | str,
    ) -> _Acquire:
        """Wait in line for a grant; await it, or enter it with `async with`.

        See `Limiter.acquire`; a concurrency slot is renewed while the grant is open.
        """
        return _Acquire(self, key, timeout, priority, hold, also, cost)


class _Acquire:
    """An acquire on its way: awaitable, and an async context manager."""

    __slots__ = (
        "_also",
        "_cost",
        "_grant",
        "_hold",
        "_key",
        "_limiter",
        "_priority",
        "_timeout",
    )

    def __init__(
        self,
        limiter: AsyncLimiter,
        key: str,
        timeout: float | None,
        priority: str,
        hold: float | None,
        also: Iterable[tuple[_Front, str]],
        cost: dict[str, Any],
    ) -> None:
        self._limiter = limiter
        self._key = key
        self._timeout = timeout
        self._priority = priority
        self._hold = hold
        self._also = also
        self._cost = cost

    def __await__(self) -> Generator[Any, None, Grant]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Grant:
        limiter = self._limiter
        grant, costs = limiter._direct(  # noqa: SLF001 - its other half
            self._key, self._hold, self._also, self._cost
        )
        if grant is None:
            grant = await self._wait(costs)
        if limiter.has_slots:
            grant._renew_slots()  # noqa: SLF001
        self._grant = grant
        return grant

    async def _wait(self, costs: list[int]) -> Grant:
        limiter = self._limiter
        store = limiter._store  # noqa: SLF001
        costs, targets = limiter._targets(  # noqa: SLF001
            self._key, costs, self._also, self._cost, self._hold
        )
        waiter = Waiter(
            costs,
            timeout_us=_timeout_us(self._timeout),
            priority=_priority(self._priority),
            seat=aio.TaskSeat(store),
        )
        await aio.run(plans.acquire(waiter), store, targets)
        return limiter._granted(waiter)  # noqa: SLF001

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._grant.__exit__(kind, error, trace)
