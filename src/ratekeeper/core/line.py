"""The line: who waits, in which order, and who is next.

A waiter stands in the lines of the limits that deny it now. Order is priority class,
then weighted fair sharing between the flows of a class, then arrival. A call never
overtakes an earlier one on a limit both need and the earlier one lacks.
Everything here is pure: `enter`, `advance` and `withdraw` change meters and lines, and
report the waiters whose fate changed; waking them is the store's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.core.meter import NEVER
from ratekeeper.core.order import Line
from ratekeeper.core.units import MINUTE, SECOND
from ratekeeper.core.waiter import LAST, RISE, Priority, Seat, State, Waiter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratekeeper.core.meter import Meter

__all__ = [
    "LAST",
    "RISE",
    "Line",
    "Priority",
    "Seat",
    "State",
    "Waiter",
    "advance",
    "enter",
    "let_go",
    "look_again",
    "refuse_lost",
    "wait_us",
    "withdraw",
]


def enter(waiter: Waiter, now: int) -> list[Waiter]:
    """Grant a call now, let it stand in line, or refuse it when its deadline is lost.

    Returns every waiter whose state or wake time changed, this one included.
    """
    changed = advance(waiter.meters, now)
    _consider(waiter, now, changed)
    return changed


def look_again(waiter: Waiter, now: int) -> list[Waiter]:
    """Move on the lines a waiter stands in and reconsider it: its wake time has come.

    Returns every waiter whose state or wake time changed.
    """
    changed = advance(list(waiter.lacks), now)
    if waiter.state is State.WAITING:
        _consider(waiter, now, changed)
    return changed


def advance(meters: Iterable[Meter], now: int) -> list[Waiter]:
    """Move the lines of these limits on as far as they go, past owners who are gone.

    Returns the waiters whose state changed or who must wake earlier than they meant to.
    """
    changed: list[Waiter] = []
    todo = [meter for meter in meters if meter.line is not None]
    while todo:
        meter = todo.pop()
        while meter.line is not None:
            first = meter.line.first(now)
            assert first is not None  # an empty line is dropped
            lines = list(first.lacks)
            if first.seat is not None and first.seat.is_gone():
                _leave(first, lines, served=False)
                first.state = State.LEFT
                changed.append(first)
            else:
                _consider(first, now, changed)
            if meter in first.lacks:
                _remind_second(meter, first, now, changed)
                break
            todo.extend(m for m in lines if m is not meter and m.line is not None)
    return changed


def withdraw(waiter: Waiter, now: int) -> list[Waiter]:
    """Take a waiter out of every line; returns whom that let through."""
    lines = list(waiter.lacks)
    _leave(waiter, lines, served=False)
    waiter.state = State.LEFT
    return advance(lines, now)


def let_go(waiters: Iterable[Waiter], now: int) -> list[Waiter]:
    """Take waiters out of every line, so that they may stand in others.

    Returns every waiter whose state or wake time changed. None of them is let through
    by another's leaving: whoever lets them go wants them elsewhere.
    """
    changed: list[Waiter] = []
    lines: dict[Meter, None] = {}
    for waiter in waiters:
        if waiter.state is State.WAITING:
            lines |= dict.fromkeys(waiter.lacks)
            _leave(waiter, waiter.lacks, served=False)
            waiter.state = State.LET_GO
            changed.append(waiter)
    return changed + advance(lines, now)


def refuse_lost(meters: Iterable[Meter], now: int) -> list[Waiter]:
    """Refuse whom a pause or a lowered amount has made wait in vain.

    Returns every waiter whose state or wake time changed.
    """
    changed: list[Waiter] = []
    for meter in meters:
        for waiter in list(meter.line or ()):
            if waiter.state is not State.WAITING:
                continue  # an earlier one's leaving has let it through
            lines = list(waiter.lacks)
            end_us = waiter.deadline_us
            if meter.never(waiter.cost_of(meter)) or (
                end_us is not None and end_us < meter.paused_until_us
            ):
                _consider(waiter, now, changed)
            if waiter.state is not State.WAITING:
                changed += advance(lines, now)
    return changed


def wait_us(waiter: Waiter, now: int) -> int:
    """Return the least wait of a call as things stand, in a line or before one."""
    return max((delay for _, delay in _lacking(waiter, now)), default=0)


def _lacking(waiter: Waiter, now: int) -> list[tuple[Meter, int]]:
    """List the limits that hold a call up now, each with its least wait."""
    lacking = []
    for meter, cost in zip(waiter.meters, waiter.costs, strict=True):
        delay = meter.delay_us(cost, now)
        line = meter.line
        if line is not None and cost and not line.is_first(waiter, now):
            first = line.first(now)
            assert first is not None  # the one this call comes after
            delay = max(
                delay,
                1,
                meter.delay_us(first.cost_of(meter), now),
                meter.behind_us(line.ahead(waiter, now), cost, now),
            )
        if delay:
            lacking.append((meter, delay))
    return lacking


def _consider(waiter: Waiter, now: int, changed: list[Waiter]) -> None:
    """Grant, refuse or place one call."""
    lacking = _lacking(waiter, now)
    if not lacking:
        for meter, cost in zip(waiter.meters, waiter.costs, strict=True):
            meter.grant(cost, now)
        waiter.go(now)
        _leave(waiter, waiter.lacks, served=True)
        changed.append(waiter)
        return
    waiter.held_by, waiter.wait_us = max(lacking, key=lambda pair: pair[1])
    late = _late(waiter, lacking, now)
    sure_us = max((least for _, least in late), default=0)
    waiter.least_us = sure_us if late else waiter.wait_us
    if _is_lost(waiter, sure_us, now):
        _leave(waiter, waiter.lacks, served=False)
        waiter.state = State.REFUSED
        changed.append(waiter)
        return
    wanted = [meter for meter, _ in lacking]
    _leave(waiter, [m for m in waiter.lacks if m not in wanted], served=False)
    for meter in wanted:
        if meter not in waiter.lacks:
            if meter.line is None:
                meter.line = Line()
                meter.attention = True
            meter.line.add(waiter, meter.weight(waiter.cost_of(meter)), now)
            waiter.lacks.append(meter)
    wake = now + waiter.wait_us
    if late:  # what is given back until then may decide
        wake = min(wake, now + _LOOK_US * (1 + _longest(wanted) // _CROWD))
    rank = waiter.rank(now)
    if rank and any(_first_rank(meter, now) < rank for meter in wanted):
        wake = min(wake, waiter.rises_us(rank))  # it may be first then
    if waiter.deadline_us is not None:
        wake = min(wake, waiter.deadline_us)
    if wake < waiter.wake_us or waiter.wake_us <= now:
        changed.append(waiter)
    waiter.wake_us = wake


def _longest(meters: Iterable[Meter]) -> int:
    return max(0 if meter.line is None else len(meter.line) for meter in meters)


def _first_rank(meter: Meter, now: int) -> int:
    first = None if meter.line is None else meter.line.first(now)
    return LAST if first is None else first.rank(now)


def _late(
    waiter: Waiter, lacking: list[tuple[Meter, int]], now: int
) -> list[tuple[Meter, int]]:
    """List the limits that would pass a call too late, each with its least wait.

    As things stand; the least wait allows for all that calls under way may give back,
    for what those ahead are likely to, and for the call's rising in line.
    """
    end_us = now + _PATIENCE if waiter.deadline_us is None else waiter.deadline_us
    return [
        (meter, _least_us(waiter, meter, wait, end_us, now))
        for meter, wait in lacking
        if now + wait > end_us
        and (meter.limit.is_money if waiter.deadline_us is None else meter.is_exact)
    ]


def _is_lost(waiter: Waiter, sure_us: int, now: int) -> bool:
    """Say whether a call's deadline is provably lost, or its budget is spent."""
    if waiter.wait_us >= NEVER:  # a limit was lowered below its cost
        return True
    if waiter.deadline_us is None:
        return sure_us > _PATIENCE
    return now >= waiter.deadline_us or now + sure_us > waiter.deadline_us


def _least_us(waiter: Waiter, meter: Meter, wait: int, end_us: int, now: int) -> int:
    """Return the least wait for one limit, whatever happens until then."""
    back = meter.may_come_back(now)
    rises = waiter.deadline_us is not None and waiter.rises_by(end_us, now)
    if not rises and not meter.is_elastic:
        return wait
    cost, ahead, line = waiter.cost_of(meter), 0, meter.line
    if line is not None:
        ahead = line.stay_ahead(waiter, now) if rises else line.ahead(waiter, now)
    return min(wait, meter.surely_us(meter.likely(ahead), cost, back, now))


_PATIENCE = MINUTE  # nobody waits longer than this for money unless told to
_LOOK_US = SECOND  # how often a call looks at what others have given back
_CROWD = 500  # calls in a line, beyond which each looks less often


def _remind_second(
    meter: Meter, first: Waiter, now: int, changed: list[Waiter]
) -> None:
    """Let the second in line wake when the first, held up elsewhere, lets it pass."""
    if meter.line is None or len(meter.line) == 1:
        return
    passes = now + meter.delay_us(first.cost_of(meter), now)
    if first.wake_us > passes > now:
        second = meter.line.first(now, skip=first)
        if second is not None and second.wake_us > passes:
            second.wake_us = passes
            changed.append(second)


def _leave(waiter: Waiter, meters: Iterable[Meter], *, served: bool) -> None:
    for meter in list(meters):
        assert meter.line is not None  # a waiter stands in it
        meter.line.remove(waiter, served=served)
        if not len(meter.line):
            meter.line = None
        waiter.lacks.remove(meter)
