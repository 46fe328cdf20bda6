"""Meter: what one limit has counted for one key.

A meter is plain state and integer arithmetic: `wait_us` answers, `take` charges, `back`
refunds, and `now` never runs backwards (the store sees to that). Its cost is in the
limit's unit; for concurrency it is the hold in microseconds.
Invariant: a call that waits exactly `wait_us` is granted, one that waits less is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratekeeper.core.learning import Learner, Mark
    from ratekeeper.core.limits import Limit
    from ratekeeper.core.line import Line
    from ratekeeper.core.overlay import Page

NEVER = 1 << 62  # the wait of a call that no wait lets through
_REMEMBERED = 8  # limits' worth of calls, by which others are judged


class Meter:
    """The state of one limit for one key, and the gates in front of it."""

    exact = True  # whether a wait is known to the microsecond, refunds aside
    owes = True  # whether what is taken above the limit is paid for later

    __slots__ = (
        "attention",
        "awaited",
        "charged",
        "cold_until_us",
        "guard_us",
        "held",
        "held_before",
        "is_amount",
        "kept",
        "learner",
        "limit",
        "line",
        "missed",
        "missed_us",
        "pace",
        "page",
        "paused_until_us",
        "refunds",
        "settled",
        "settles",
        "text",
        "turns_us",
        "unit",
    )

    def __init__(self, limit: Limit, *, guard_us: int = 0) -> None:
        self.limit = limit
        self.unit = limit.unit
        self.guard_us = guard_us
        self.refunds = True
        self.text = str(limit)
        self.line: Line | None = None
        self.awaited = 0  # calls that wait, in this line or another, and will need it
        self.learner: Learner | None = None  # of an account's limit
        self.pace: Meter | None = None
        self.page: Page | None = None  # where its use is written down
        self.missed = 0  # calls let through that a limit only watched would deny
        self.missed_us = 0  # the last of them
        self.paused_until_us = 0
        self.cold_until_us = 0  # until then the pace is kept
        # True while a line, a pause or a pace stands before the arithmetic: the direct
        # path looks at this one flag.
        self.attention = False
        self.charged = 0
        # Whether it counts what a call may take more or less of.
        self.is_amount = self.unit != "requests" and limit.window_us > 0
        # By grants that are not settled: of this window, and of the one before.
        self.held = self.held_before = 0
        self.turns_us = 0  # when another begins
        self.settles = False  # whether grants will be: some callers never do
        self.settled = 0  # of what was held, and what of it was used in the end
        self.kept = 0

    # What each algorithm answers.

    def wait_us(self, cost: int, now: int) -> int:
        """Return how long until `cost` fits; 0 means now, `NEVER` never."""
        raise NotImplementedError

    def take(self, cost: int, now: int) -> None:
        """Charge `cost` at `now`, as debt where it does not fit."""
        raise NotImplementedError

    def admit(self, cost: int, now: int) -> None:
        """Charge what `wait_us` has just said fits at this same instant."""
        self.take(cost, now)

    def back(
        self, cost: int, taken_us: int, now: int, counted_us: int | None = None
    ) -> None:
        """Give back part of what was taken at `taken_us`, redated to `counted_us`."""
        raise NotImplementedError

    def never(self, cost: int) -> bool:
        """Say whether no wait would ever make `cost` fit."""
        raise NotImplementedError

    def backlog_us(self, ahead: int, cost: int, now: int) -> int:
        """Return the least time until `cost` fits once `ahead` has been served."""
        raise NotImplementedError

    def least_us(self, ahead: int, cost: int, back: int, now: int) -> int:
        """Return `backlog_us` if so much of what is used came back at once."""
        left = ahead + cost - back
        if left <= 0:
            return 0
        own = min(cost, left)
        return max(self.wait_us(own, now), self.backlog_us(left - own, own, now))

    def used(self, now: int) -> int:
        """Return what counts against the limit now."""
        raise NotImplementedError

    def reset_us(self, now: int) -> int:
        """Return how long until the limit is whole again if nothing more is taken."""
        raise NotImplementedError

    def change(self, limit: Limit, now: int) -> None:
        """Put a changed amount in force and keep what was used."""
        self.limit = limit
        if self.pace is not None:
            self.pace.change(limit, now)

    def mark(self, now: int) -> Mark | None:
        """Return how this limit stands for a call just granted; None: it learns not."""
        return None if self.learner is None else self.learner.mark(now)

    def widen(self, guard_us: int, now: int) -> None:
        """Allow for a longer way to the provider, or a shorter one."""
        del now
        self.guard_us = guard_us

    def redate(self, cost: int, taken_us: int, counted_us: int, now: int) -> None:
        """Count what was taken at `taken_us` as of another instant, where that matters.

        It is then known when the provider counted it, to within its usual answer time.
        """

    def let_in(self, taken_us: int, now: int) -> None:
        """Take note that the provider let in what was taken then."""

    def turned_away(self, taken_us: int, now: int) -> bool:
        """Take note that it refused what was taken then; True if that was a trial."""
        del taken_us, now
        return False

    def fullness(self, now: int) -> float:
        """Return how much of what may be used is: 1 at the bounds."""
        return self.used(now) / self.limit.amount

    def is_probing(self, taken_us: int) -> bool:
        """Say whether what was taken then was a trial."""
        del taken_us
        return False

    def shrink(self, now: int) -> bool:
        """Go more evenly: what had been let in before was refused.

        False where nothing has been learned that could be taken back.
        """
        del now
        return False

    def owed(self, now: int) -> int:
        """Return what a provider that refills at this rate has not refilled yet."""
        return self.used(now)

    def weight(self, cost: int) -> int:
        """Return what a call of this cost counts for in line."""
        return cost

    # What grants hold, and give back.

    def take_hold(self, cost: int, now: int) -> None:
        """Take note of what a grant holds from now on."""
        if now >= self.turns_us:
            self._turn(now)
        self.held += cost

    def let_go(self, cost: int, used: int, taken_us: int) -> None:
        """Take note that a grant is settled, and of what was used of what it held."""
        window_us = self.limit.window_us
        if taken_us >= self.turns_us - window_us:
            self.held -= cost
        elif taken_us >= self.turns_us - 2 * window_us:
            self.held_before -= cost
        self.settled += cost
        self.kept += used

    def _turn(self, now: int) -> None:
        """Begin to add up anew, each window; what is older than two is forgotten."""
        window_us = self.limit.window_us
        self.held_before = self.held if now < self.turns_us + window_us else 0
        self.held = 0
        self.turns_us = (now // window_us + 1) * window_us

    def may_come_back(self, now: int) -> int:
        """Return how much of what is used calls under way may yet give back, at most.

        What was taken in a window that has gone comes back no more; nor is it
        remembered for longer than two.
        """
        if not self.is_elastic:
            return 0
        if now >= self.turns_us:
            self._turn(now)
        return min(self.held + self.held_before, self.used(now))

    @property
    def is_elastic(self) -> bool:
        """Whether calls may take less of it in the end than they hold."""
        known = self.settles or self.settled > 0
        return self.is_amount and self.refunds and known

    def likely(self, amount: int) -> int:
        """Return what is used in the end of so much that calls are to hold.

        As with the calls before; 0 while nobody knows.
        """
        if not self.is_elastic:
            return amount
        if self.settled > _REMEMBERED * self.limit.amount:
            self.settled >>= 1
            self.kept >>= 1
        return amount * min(self.kept, self.settled) // max(1, self.settled)

    @property
    def grain_us(self) -> int:
        """By how much what is taken may count longer, as what came soon after does."""
        return 0

    @property
    def is_exact(self) -> bool:
        """Whether waits are known: not for slots, nor at a pace that others set."""
        return self.exact and self.cold_until_us != NEVER

    # What stands before the algorithm.

    def delay_us(self, cost: int, now: int) -> int:
        """Return `wait_us` with pauses and the cold start allowed for."""
        wait = self.wait_us(cost, now)
        if self.paused_until_us > now:
            wait = max(wait, self.paused_until_us - now)
        if self.pace is not None:
            if now >= self.cold_until_us:
                self.pace = None
            else:
                paced = self.pace.wait_us(cost, now)
                wait = max(wait, min(paced, self.cold_until_us - now))
        return wait

    def behind_us(self, ahead: int, cost: int, now: int) -> int:
        """Return `backlog_us` with pauses and the cold start allowed for."""
        wait = max(self.backlog_us(ahead, cost, now), self.paused_until_us - now)
        if self.pace is not None:
            paced = self.pace.backlog_us(ahead, cost, now)
            wait = max(wait, min(paced, self.cold_until_us - now))
        return wait

    def surely_us(self, ahead: int, cost: int, back: int, now: int) -> int:
        """Return the least wait once `ahead` has been served and `back` has come back."""
        wait = max(self.least_us(ahead, cost, back, now), self.paused_until_us - now)
        if self.pace is not None:
            paced = self.pace.wait_us(cost, now)
            wait = max(wait, min(paced, self.cold_until_us - now))
        return wait

    def grant(self, cost: int, now: int) -> None:
        """Charge what `delay_us` has just said fits at this same instant."""
        self.admit(cost, now)
        self.charged += cost
        if self.is_amount:
            if now >= self.turns_us:
                self._turn(now)
            self.held += cost
        if self.pace is not None:
            self.pace.take(cost, now)

    def charge(self, cost: int, now: int) -> None:
        """Charge `cost` to the algorithm and to the pace before it."""
        self.take(cost, now)
        self.charged += cost
        if self.pace is not None:
            self.pace.take(cost, now)

    def pause(self, until_us: int) -> None:
        """Refuse every call until `until_us`: the provider said so."""
        self.paused_until_us = max(self.paused_until_us, until_us)
        self.attention = True

    def start_cold(self, now: int, pace: Meter) -> None:
        """Follow `pace` for one window: what an earlier process used is unknown."""
        self.pace = pace
        self.cold_until_us = now + self.limit.window_us
        self.attention = True

    def confirm(self, remaining: int, charged_before: int, now: int) -> None:
        """End the cold start: the provider has said what is left.

        `charged_before` is `charged` as it was when the answered call was granted: what
        was charged since is not in the provider's figure.
        """
        if self.cold_until_us <= now:
            return
        self.pace = None
        self.cold_until_us = 0
        self._level(max(0, remaining - (self.charged - charged_before)), now)

    def _level(self, left: int, now: int) -> None:
        """Hold no more than `left`: what others used counts from now, to be safe."""
        self.take(max(0, self.remaining(now) - left), now)

    def settle_attention(self, now: int) -> None:
        """Drop the flag once nothing stands before the arithmetic any more."""
        self.attention = (
            self.line is not None
            or self.cold_until_us > now
            or self.paused_until_us > now
        )

    @property
    def is_known(self) -> bool:
        """Whether there is an amount, told or learned."""
        return self.learner is None or self.learner.is_known

    def remaining(self, now: int) -> int:
        """Return what a call could still take, never below 0."""
        return max(0, self.limit.amount - self.used(now))

    def is_binding(self, now: int) -> bool:
        """Say whether forgetting this meter would forgive a key over its limit."""
        return (
            self.line is not None
            or self.awaited > 0
            or self.paused_until_us > now
            or self.used(now) >= self.limit.amount
        )
