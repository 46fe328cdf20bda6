"""Limiter and AsyncLimiter: the library's front door.

Both are thin: a call that fits now takes the store's direct path; one that does not
becomes a plan for the thread or the asyncio driver.
It is long because every public verb stands here twice, for threads and for tasks.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

from ratekeeper.core import plans, units
from ratekeeper.core.decision import Denied, LimitStatus, denied, never_possible
from ratekeeper.core.limits import CONCURRENT
from ratekeeper.core.line import Priority, State, Waiter
from ratekeeper.core.policy import (
    HOLD,
    Account,
    costs_of,
    counted,
    means_learned,
    rules_of,
)
from ratekeeper.core.units import MAX_COST
from ratekeeper.errors import BudgetExceeded, ConfigError, LimitExceeded
from ratekeeper.grant import Grant
from ratekeeper.runtime import aio, sync
from ratekeeper.stores.open import open_store

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from decimal import Decimal
    from types import TracebackType

    from ratekeeper.core.limits import Limit
    from ratekeeper.stores.keys import Target
    from ratekeeper.stores.memory import MemoryStore

__all__ = ["AsyncLimiter", "Limiter"]

_log = logging.getLogger("ratekeeper")


_NORMAL = Priority.NORMAL  # reading a member of an Enum is no small price
_USUAL = {"requests": 1, CONCURRENT: HOLD}


class _Front:
    """What both limiters share: the policy, the store, and how a call is asked for."""

    def __init__(
        self,
        *limits: Limit | str,
        name: str | None = None,
        store: MemoryStore | str = "memory://",
        account: Account | str | None = None,
    ) -> None:
        if isinstance(account, str):
            account = _account_at(account)
        self._account = account
        self._store = open_store(store, shared=name is not None)
        learned, told = _parted(limits)
        # Limits told beside learned ones: they hold for all models together.
        self._beside: _Front | None = None
        if learned and told:
            self._beside = type(self)(
                *told, name=name, store=self._store, account=account
            )
            limits, name = learned, name and f"{name} (learned)"
        self._scope = self._store.scope(name, rules_of(limits, account))
        own = [rule.limit.unit for rule in self._scope.rules]
        self._has_slots = CONCURRENT in own
        # What the direct path reads: the plain counts a call may state, and each limit's
        # unit with what a call takes unless it says so. All else is left to `_asked`.
        self._counts = frozenset({*own} - {CONCURRENT} - units.CURRENCIES)
        self._units = [(unit, _USUAL.get(unit)) for unit in own]

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits in force, their algorithms filled in."""
        own = tuple(rule.limit for rule in self._scope.rules)
        return own if self._beside is None else (*own, *self._beside.limits)

    @property
    def is_learned(self) -> bool:
        """Whether the limits were not told, but are read from the account's answers."""
        return any(not rule.is_told for rule in self._scope.rules)

    def _amounts(self, key: str) -> Iterable[Limit]:
        """Return the limits of a key as they are now: learned ones follow the provider."""
        row = self._scope.rows.get(key)
        if row is None:
            return [rule.limit for rule in self._scope.rules]
        return [meter.limit for meter in row]

    def __repr__(self) -> str:
        rules = [*self._scope.rules]
        if self._beside is not None:
            rules += self._beside._scope.rules
        said = ", ".join(repr(rule.text) for rule in rules)
        name = f", name={self._scope.name!r}" if self._scope.name else ""
        return f"{type(self).__name__}({said}{name})"

    def _update(self, limits: tuple[Limit | str, ...]) -> None:
        if self._beside is not None:
            limits, told = _parted(limits)
            self._beside._update(told)
        self._store.update(self._scope, rules_of(limits, self._account))

    def _status(self, key: str) -> dict[str, LimitStatus]:
        rows = self._store.status(self._scope, key)
        beside = {} if self._beside is None else self._beside._status(key)
        return {**{row.limit: row for row in rows}, **beside}

    def _try(
        self,
        key: str,
        hold: float | None,
        also: Iterable[tuple[_Front, str]],
        cost: dict[str, Any],
    ) -> Grant | Denied:
        grant = None if also else self._direct(key, hold, cost)
        if grant is not None:
            return grant
        costs, targets = self._asked(key, hold, also, cost)
        waiter = self._store.try_take(targets, costs)
        if waiter.state is State.GRANTED:
            return Grant(self._store, waiter.meters, costs, waiter.granted_us, waiter)
        assert waiter.held_by is not None
        return denied(waiter.held_by, waiter.wait_us, waiter.least_us)

    def _direct(
        self, key: str, hold: float | None, cost: dict[str, Any]
    ) -> Grant | None:
        """Check the costs, and grant where nothing stands in the way."""
        if self._beside is not None:
            return None
        costs: list[Any] = []
        plain = hold is None
        for unit, usual in self._units:
            amount = cost.get(unit, usual)
            if type(amount) is not int or not 0 <= amount <= MAX_COST:
                plain = False
            costs.append(amount)
        for unit in cost:
            if unit not in self._counts:
                plain = False
        if not plain:
            costs, _ = self._asked(key, hold, (), cost)
        taken = self._store.take(self._scope, key, costs)
        if taken is None:
            return None
        return Grant(self._store, taken[0], costs, taken[1], taken[2])

    def _asked(
        self,
        key: str,
        hold: float | None,
        also: Iterable[tuple[_Front, str]],
        cost: dict[str, Any],
    ) -> tuple[list[int], list[Target]]:
        """Check what a call asks for: its cost in each limit, and whose limits."""
        hold_us = HOLD if hold is None else _hold_us(hold)
        targets = [(self._scope, key)]
        also = tuple(also)
        if self._beside is not None and self._beside not in [one for one, _ in also]:
            also = (*also, (self._beside, key))
        for other, other_key in also:
            if other._store is not self._store:
                msg = "all limits of one call live in one store: pass store= to both"
                raise ConfigError(msg)
            targets.append((other._scope, other_key))
        rules = [rule for scope, _ in targets for rule in scope.rules]
        checked = counted(cost, [rule.limit.unit for rule in rules])
        return costs_of(rules, checked, hold_us), targets

    def _granted(self, waiter: Waiter) -> Grant:
        """Turn a waiter whose fate is decided into a grant or the error."""
        meter = waiter.held_by
        if waiter.state is not State.GRANTED:
            assert meter is not None
            cost = waiter.cost_of(meter)
            if meter.never(cost):  # the limit was lowered meanwhile
                raise never_possible(meter, cost)
            answer = denied(meter, waiter.wait_us, waiter.least_us)
            kind = BudgetExceeded if meter.limit.is_money else LimitExceeded
            raise kind(
                str(answer), retry_after_s=answer.retry_after_s, limit=answer.limit
            )
        grant = Grant(
            self._store, waiter.meters, waiter.costs, waiter.granted_us, waiter
        )
        if meter is not None:
            waited = units.format_wait(waiter.granted_us - waiter.arrived_us)
            try:
                _log.info("waited %s for the limit '%s'", waited, meter.text)
            except BaseException:  # a handler's own, or an interrupt: nobody gets it
                grant.cancel()
                raise
        return grant


def _parted(
    limits: tuple[Limit | str, ...],
) -> tuple[tuple[Limit | str, ...], tuple[Limit | str, ...]]:
    """Part the word for limits that nobody has told from those that were."""
    learned = tuple(limit for limit in limits if means_learned(limit))
    return learned, tuple(limit for limit in limits if limit not in learned)


def _account_at(provider: str) -> Account:
    from ratekeeper.providers.catalog import find_provider

    return find_provider(provider).account()


def _timeout_us(timeout: float | None) -> int | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        msg = f"timeout= is a number of seconds or None, not {type(timeout).__name__}"
        raise TypeError(msg)
    if timeout != timeout:  # noqa: PLR0124 - NaN
        msg = "timeout= is not a number"
        raise ConfigError(msg)
    # A deadline that has passed is a denial, not an error: it counts as 0.
    return None if timeout > _LIFETIME_S else units.micros(max(0.0, timeout))


_LIFETIME_S = 3e9  # a century: no wait is longer


def _hold_us(hold: float) -> int:
    if (
        isinstance(hold, bool)
        or not isinstance(hold, (int, float))
        or not 0 < hold <= _LONGEST_HOLD_S
    ):
        msg = f"hold={hold!r}: expected the longest life of a slot in seconds"
        raise ConfigError(msg)
    return units.micros(hold)


_LONGEST_HOLD_S = 31 * 24 * 3600.0  # a month: no call lasts longer


class Limiter(_Front):
    """Grants calls to threads under all its limits together, or not at all.

    Limiters of one `name` in one `store` share one state, sync and async mixed; the
    amounts said last are in force. Without a name the state is this limiter's own.
    `account="openai"` makes them the limits of an account there: counted as that
    provider counts, begun cold, with room for the time a call is on its way to it.
    They learn from what its answers tell the grant; "learned" as the only limit needs no
    numbers, "learned from refusals" not even headers.

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
        again: bool = False,
        **cost: int | Decimal | str,
    ) -> Grant:
        """Wait in line for a grant, at most `timeout` seconds (None: without bound).

        A timeout that cannot be met raises `LimitExceeded` at once with the exact
        wait; 0 grants or refuses now. Each `key` has the limits to itself; `priority`
        is interactive, normal or batch; `hold` is how many seconds a concurrency slot
        is kept at most (900 unless said). `again` marks another attempt of a call that
        has had its turn: it stands at the head of its class. Costs, `also` and what
        else is raised: see `try_acquire`.
        """
        timeout_us = None if timeout is None else _timeout_us(timeout)
        rank = _NORMAL if priority == "normal" else Priority.named(priority)
        grant = None if also else self._direct(key, hold, cost)
        if grant is not None:
            return grant
        costs, targets = self._asked(key, hold, also, cost)
        waiter = Waiter(
            costs,
            timeout_us=timeout_us,
            priority=rank,
            again=again,
            seat=sync.ThreadSeat(self._store),
        )
        sync.run(plans.acquire(waiter), self._store, targets)
        return self._granted(waiter)

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
        limit counts something the call does not state, or nothing counts what it does.
        """
        return self._try(key, hold, also, cost)

    def status(self, key: str = "") -> dict[str, LimitStatus]:
        """Return, by limit: used, remaining, reset_after_s, waiting."""
        return self._status(key)

    def update(self, *limits: Limit | str) -> None:
        """Change amounts live: what was used is kept, nobody loses a place in line."""
        self._update(limits)


class AsyncLimiter(_Front):
    """The same limiter for tasks: `async with limiter.acquire(tokens=500) as grant`.

    Its concurrency slots are renewed for as long as a grant is open.
    """

    def acquire(
        self,
        *,
        key: str = "",
        timeout: float | None = None,
        priority: str = "normal",
        hold: float | None = None,
        also: Iterable[tuple[_Front, str]] = (),
        again: bool = False,
        **cost: int | Decimal | str,
    ) -> _Acquire:
        """Wait in line for a grant; await it, or enter it with `async with`.

        See `Limiter.acquire`.
        """
        timeout_us = None if timeout is None else _timeout_us(timeout)
        rank = _NORMAL if priority == "normal" else Priority.named(priority)
        pairs = tuple(also) if also else ()
        return _Acquire(self, key, timeout_us, rank, hold, pairs, again, cost)

    async def try_acquire(
        self,
        *,
        key: str = "",
        hold: float | None = None,
        also: Iterable[tuple[_Front, str]] = (),
        **cost: int | Decimal | str,
    ) -> Grant | Denied:
        """Grant or deny now; see `Limiter.try_acquire`."""
        answer = self._try(key, hold, also, cost)
        if isinstance(answer, Grant) and (self._has_slots or also):
            answer._keep_slots()
        return answer

    async def status(self, key: str = "") -> dict[str, LimitStatus]:
        """Return, by limit: used, remaining, reset_after_s, waiting."""
        return self._status(key)

    async def update(self, *limits: Limit | str) -> None:
        """Change amounts live: what was used is kept, nobody loses a place in line."""
        self._update(limits)


class _Acquire(Coroutine[Any, Any, Grant]):
    """An acquire on its way: awaitable, and an async context manager.

    It is awaited as itself, without a coroutine, so a call that fits costs no more than
    it does to a thread; what wants a coroutine, such as a task, may drive it as one.
    """

    __slots__ = (
        "_again",
        "_also",
        "_cost",
        "_flow",
        "_grant",
        "_hold",
        "_key",
        "_limiter",
        "_rank",
        "_timeout_us",
    )

    def __init__(
        self,
        limiter: AsyncLimiter,
        key: str,
        timeout_us: int | None,
        rank: Priority,
        hold: float | None,
        also: tuple[tuple[_Front, str], ...],
        again: bool,  # noqa: FBT001 - private
        cost: dict[str, Any],
    ) -> None:
        self._limiter = limiter
        self._key = key
        self._timeout_us = timeout_us
        self._rank = rank
        self._hold = hold
        self._also = also
        self._again = again
        self._cost: dict[str, Any] | None = cost

    def __await__(self) -> Generator[Any, Any, Grant]:
        limiter, cost = self._limiter, self._cost
        if cost is None:
            msg = "this acquire() has been awaited already: call it anew"
            raise RuntimeError(msg)
        self._cost = None
        grant = None if self._also else limiter._direct(self._key, self._hold, cost)
        if grant is None:
            grant = yield from self._wait(cost).__await__()
        if limiter._has_slots or self._also:
            grant._keep_slots()
        self._grant = grant
        return grant

    def send(self, value: Any) -> Any:
        """Go on, as a coroutine does."""
        return self._driven().send(value)

    def throw(self, *error: Any) -> Any:
        """Raise within, as a coroutine does."""
        flow = self._driven()
        self._cost = None
        return flow.throw(*error)

    def close(self) -> None:
        """Give up, as a coroutine does."""
        flow = self._driven()
        self._cost = None
        flow.close()

    def _driven(self) -> Generator[Any, Any, Grant]:
        if not hasattr(self, "_flow"):
            self._flow = self.__await__()
        return self._flow

    async def _wait(self, cost: dict[str, Any]) -> Grant:
        limiter = self._limiter
        store = limiter._store
        costs, targets = limiter._asked(self._key, self._hold, self._also, cost)
        waiter = Waiter(
            costs,
            timeout_us=self._timeout_us,
            priority=self._rank,
            again=self._again,
            seat=aio.TaskSeat(store),
        )
        await aio.run(plans.acquire(waiter), store, targets)
        return limiter._granted(waiter)

    def __aenter__(self) -> _Acquire:
        return self

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> _Nothing:
        self._grant.__exit__(kind, error, trace)
        return _NOTHING

    def __del__(self) -> None:
        if self._cost is not None:
            warnings.warn(
                "acquire() was never awaited: nothing was limited",
                RuntimeWarning,
                stacklevel=2,
            )


class _Nothing:
    """An awaitable that is done already."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return _EMPTY


_NOTHING = _Nothing()
_EMPTY = cast("Generator[Any, None, None]", iter(()))  # awaited, they are the same
