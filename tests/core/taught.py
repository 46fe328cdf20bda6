"""An account's limit that learns, driven as a store drives it, and a provider to teach it.

The provider holds the simulator's rules, which share no code with the core.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from typing import TYPE_CHECKING

from ratekeeper.core.learning import Learner, Mark
from ratekeeper.core.limits import Algorithm, Limit, parse_limits
from ratekeeper.core.policy import Rule
from ratekeeper.core.reading import Reading
from ratekeeper.core.units import MAX_AMOUNT
from tests.core.room import START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ratekeeper.core.meter import Meter
    from ratekeeper.simulator import rules


@dataclasses.dataclass(frozen=True)
class Sent:
    """A call on its way."""

    taken_us: int
    cost: int
    mark: Mark


class Pupil:
    """One limit of an account, and its clock."""

    def __init__(
        self, text: str, *, told: bool = True, guard_us: int = 0, cold: bool = False
    ) -> None:
        (limit,) = parse_limits([Limit.parse(text)], Algorithm.PACED)
        if not told:
            limit = dataclasses.replace(limit, amount=MAX_AMOUNT)
        rule = Rule(
            limit=limit,
            text=text,
            guard_us=guard_us,
            cold=cold,
            learns=True,
            is_told=told,
        )
        self.now = START
        self.meter: Meter = rule.meter(START)

    @property
    def learner(self) -> Learner:
        assert self.meter.learner is not None
        return self.meter.learner

    @property
    def amount(self) -> int:
        return self.meter.limit.amount

    def wait_us(self, cost: int = 1) -> int:
        return self.meter.delay_us(cost, self.now)

    def send(self, cost: int = 1) -> Sent:
        """Wait as told, and go."""
        self.now += self.wait_us(cost)
        self.meter.grant(cost, self.now)
        return Sent(self.now, cost, self.learner.mark(self.now))

    def answer(self, sent: Sent, reading: Reading | None = None) -> bool:
        """Hear now that a call was let in; True if that changes the amount."""
        counted_us = self.learner.counted_us(sent.taken_us, self.now)
        self.learner.let_in(sent.cost, sent.taken_us, counted_us, self.now)
        return self.learner.heed(sent.mark, reading, self.now)

    def refuse(
        self,
        sent: Sent,
        reading: Reading | None = None,
        *,
        ramp: bool = False,
        hint_us: int = 0,
    ) -> None:
        """Hear now that a call was turned away."""
        self.learner.heed(sent.mark, reading, self.now)
        self.learner.turned_away(sent.taken_us, self.now, ramp=ramp)
        self.meter.pause(self.now + hint_us)

    def asked(self, reading: Reading | None = None, cost: int = 1) -> None:
        """Send a call and hear at once that it was let in."""
        self.answer(self.send(cost), reading)

    def rate(
        self, *, over_us: int, reading: Callable[[], Reading] | None = None
    ) -> int:
        """Return how many calls go in a time, all of them let in."""
        end_us, calls = self.now + over_us, 0
        while self.now + self.wait_us() < end_us:
            self.asked(None if reading is None else reading())
            calls += 1
        self.now = end_us
        return calls


def left(remaining: int, limit: int | None = None, unit: str = "requests") -> Reading:
    """Return what a header shows that says no window."""
    return Reading(unit=unit, limit=limit, remaining=remaining)


@dataclasses.dataclass
class Client:
    """A program that sends as soon as its limit lets it, and what became of that."""

    pupil: Pupil
    demand: Iterator[tuple[int, int]]  # when a call comes, and its cost
    admitted: list[int] = dataclasses.field(default_factory=list)  # when it was counted
    refused: list[int] = dataclasses.field(default_factory=list)
    under_way: int = 0
    sent: list[int] = dataclasses.field(default_factory=list)
    over: int = 0  # the most that its window was found to hold above the limit
    longest_us: int = 0  # the longest wait that was told
    waits: tuple[int, int] | None = None  # the call at the head: when it came, its cost
    wake_us: int = 0


class Provider:
    """A rule of the simulator at the end of a line that takes its time.

    `way_us` and `back_us` bound how long a call and its answer are under way, drawn
    evenly; answers come in any order.
    """

    def __init__(
        self,
        rule: rules.Rule,
        clients: Iterable[Client],
        *,
        way_us: tuple[int, int] = (0, 0),
        back_us: tuple[int, int] = (0, 0),
        shows: bool = True,
        seed: int = 0,
    ) -> None:
        self.rule = rule
        self.now = START
        self._clients = list(clients)
        self._way_us, self._back_us = way_us, back_us
        self._shows = shows
        self._random = random.Random(seed)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        for client in self._clients:
            self._look(client)

    def run(self, until_us: int) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= until_us:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until_us

    def _at(self, when_us: int, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_us, next(self._order), event))

    def _look(self, client: Client) -> None:
        """Send what may go, and come back when the next call may."""
        pupil = client.pupil
        while True:
            if client.waits is None:
                client.waits = next(client.demand, None)
            is_gated = client.under_way and not pupil.meter.is_known
            if client.waits is None or is_gated:
                return
            came_us, cost = client.waits
            pupil.now = self.now
            wait_us = max(came_us - self.now, 0)
            if not wait_us:
                wait_us = pupil.wait_us(cost)
                client.longest_us = max(client.longest_us, wait_us)
            if wait_us:
                wake_us = self.now + wait_us
                if not self.now < client.wake_us <= wake_us:
                    client.wake_us = wake_us
                    self._at(wake_us, lambda: self._look(client))
                return
            client.waits = None
            client.under_way += 1
            client.sent.append(self.now)
            sent = pupil.send(cost)
            over = pupil.meter.used(self.now) - pupil.amount
            client.over = max(client.over, over)
            arrives_us = self.now + self._random.randint(*self._way_us)
            self._at(arrives_us, lambda sent=sent: self._arrive(client, sent))  # type: ignore[misc]  # bound now

    def _arrive(self, client: Client, sent: Sent) -> None:
        """Judge a call, and send the answer back."""
        rule, now = self.rule, self.now
        ready_us = rule.ready_at(sent.cost, now)
        assert ready_us is not None  # no call here is larger than the rule
        hint_us = max(0, ready_us - now)
        if not hint_us:
            rule.take(sent.cost, now)
        shown = None
        if self._shows:
            remaining = max(0, rule.capacity - rule.used(now))
            shown = Reading(unit=rule.unit, limit=rule.amount, remaining=remaining)
        kept = client.refused if hint_us else client.admitted
        kept.append(now)
        back_us = now + self._random.randint(*self._back_us)
        self._at(back_us, lambda: self._hear(client, sent, shown, hint_us))

    def _hear(
        self, client: Client, sent: Sent, shown: Reading | None, hint_us: int
    ) -> None:
        pupil = client.pupil
        pupil.now = self.now
        client.under_way -= 1
        if hint_us:
            pupil.refuse(sent, shown, hint_us=hint_us)
        else:
            pupil.answer(sent, shown)
        self._look(client)


def full_demand(cost: int = 1) -> Iterator[tuple[int, int]]:
    """A call is always waiting."""
    return itertools.repeat((START, cost))


def refused_in(client: Client, since_us: int) -> int:
    """Count the refusals from an instant on."""
    return sum(1 for at in client.refused if at >= since_us)
