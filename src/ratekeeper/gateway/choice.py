"""Choice: which account takes a call, and its place in line until that one does.

The first target with an account that is open is taken, there the account with the most
room, or the one that has the prompt cached. A call that comes back from a line without
a pass chooses anew, at the place it had. It sends nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from ratekeeper.core import units
from ratekeeper.core.backoff import Backoff
from ratekeeper.core.decision import denied, never_possible
from ratekeeper.core.line import State, Waiter
from ratekeeper.errors import ConfigError, NeverPossible, StoreUnavailable
from ratekeeper.gateway import stays, upstream
from ratekeeper.gateway.admit import Turn, admit
from ratekeeper.gateway.owners import Owned
from ratekeeper.gateway.refused import ACCOUNT_LIMITS, Refused
from ratekeeper.gateway.reply import Fault
from ratekeeper.gateway.trial import Offer
from ratekeeper.providers import counting, shapes
from ratekeeper.providers.facts import Counting
from ratekeeper.providers.provider import counts_tokens
from ratekeeper.stores.keys import NoRoom

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ratekeeper.core.decision import Denied
    from ratekeeper.core.meter import Meter
    from ratekeeper.gateway.admit import Crowd, Pass, Way
    from ratekeeper.gateway.app import Gateway
    from ratekeeper.gateway.request import Destination
    from ratekeeper.gateway.upstream import Account
    from ratekeeper.providers.facts import RequestFacts
    from ratekeeper.providers.provider import Provider

ATTEMPTS = 4
_BACKOFF = Backoff(attempts=ATTEMPTS)
_NO_ROOM = "too many calls wait at this gateway already"
_NOT_WRITTEN = "the gateway cannot write down what the call takes"


class Choice(Owned):
    """A request that looks for an account to take it."""

    def __init__(
        self, gateway: Gateway, scope: Mapping[str, Any], receive: Any
    ) -> None:
        super().__init__(gateway, scope, receive)
        self.attempts = 0
        self.waited_us = 0
        self.tried: set[Account | tuple[Account, str]] = set()  # failed, or cannot
        self.roster = gateway.roster  # by which it has been looked up, and its keys
        self.edition = gateway.roster.edition
        self.began_us = 0  # when all of it was there, and it began to wait
        self.waiter: Waiter | None = None  # its place where no account was open
        self.is_in = False  # it has stood there until it was its turn
        self.is_displaced = False  # a reload has come before that
        self.readings: dict[tuple[str, str], RequestFacts] = {}  # by provider and model
        self.place: tuple[int, int] | None = None  # in the last line it stood in
        self.lost: tuple[Way, Waiter] | None = None  # where the wait was least too long
        self.impossible: Refused | None = None  # why an account can never take it
        self.deadline_us = 0
        self.rest_us = 0  # until it may be sent again

    def is_outdated(self) -> bool:
        """Say whether who calls, or where it may go, is not what it was looked up as."""
        roster = self.gateway.roster
        if roster.edition is self.edition:
            return False
        if roster is self.roster:
            caller, now = self.caller, self.who()
            if now is not None and now.record == caller.record:
                self.edition = roster.edition  # other keys have changed
                return False
        return True

    def identify_anew(self) -> None:
        """Find out who calls, as the config and its keys have it by now."""
        roster = self.roster = self.gateway.roster
        self.edition = roster.edition
        self.identify()

    def look_up_anew(self) -> None:
        """Look up who calls, and where it may go, as the config has it by now.

        It keeps its place in line. Raises `Refused` where it may not call any more.
        """
        self.identify_anew()
        caller = self.caller
        if caller.is_restricted and self.is_json:
            self.read()  # for all the models that it names
        self.find_targets()
        self.check_model()
        self.keep_home()
        self.lost = self.impossible = None
        self.tried.clear()
        if self.waiter is not None:
            self.waiter.priority, self.waiter.flow = caller.priority, caller.flow
            self.waiter.weight = caller.weight
            self.is_displaced = not self.is_in

    def open_accounts(self) -> tuple[Destination, list[Account], int]:
        """Return the first target with accounts that are open, and those.

        Where all are closed, for how long they are.
        """
        now, least = self.gateway.now_us(), upstream.LONGEST_US
        for target in self.targets:
            able, wait_us = upstream.open_ones(self._untried(target), now)
            if able:
                return target, able, 0
            least = min(least, wait_us)
        return self.targets[0], [], least

    def _accounts(self, target: Destination) -> tuple[Account, ...]:
        """Return the accounts that may take it: all, unless it belongs to one."""
        return target.upstream.accounts if self.home is None else (self.home,)

    def _untried(self, target: Destination) -> Sequence[Account]:
        accounts, model, tried = self._accounts(target), target.model, self.tried
        if not tried:
            return accounts
        return [a for a in accounts if a not in tried and (a, model) not in tried]

    def best(self, target: Destination, offers: list[Offer]) -> Offer:
        """Return the roomiest offer, or that of the account which has the prompt cached."""
        if len(offers) == 1:
            return offers[0]
        if offers[0].facts.input_tokens < stays.LEAST_TOKENS:
            return min(offers, key=self._room)
        name, now = target.upstream.name, self.gateway.now_us()
        beginning = stays.beginning_of(name, target.model, self.body.data)
        last = self.gateway.stays.find(beginning, now)
        best = next((one for one in offers if one.account.name == last), None)
        if best is not None:
            wait_us, full = self._room(best)
            if wait_us or full >= stays.FULL:
                best = None
        best = best or min(offers, key=self._room)
        self.gateway.stays.went(beginning, best.account.name, now)
        return best

    def _room(self, offer: Offer) -> tuple[int, float]:
        """Say how long the call would wait for an account, and how full that is."""
        return self.gateway.store.room(
            offer.way.theirs,
            offer.costs[offer.way.split :],
            priority=self.caller.priority,
            flow=self.caller.flow,
        )

    def _doors(self) -> tuple[Account, ...]:
        """Return the accounts that may still take it, each once."""
        found = (self._untried(target) for target in self.targets)
        return tuple(dict.fromkeys(itertools.chain.from_iterable(found)))

    def has_to_queue(self) -> bool:
        """Say whether others wait already for the accounts it would go to."""
        steps = self.gateway.doorsteps
        if self.is_in or not (steps or self.is_displaced):
            return False
        return self.is_displaced or steps.are_taken(self._doors())

    async def outside(self, wait_us: int) -> None:
        """Wait for accounts that are set aside, or say that none is to be had."""
        caller, steps, now = self.caller, self.gateway.doorsteps, self.gateway.now_us()
        if self.attempts >= ATTEMPTS or now + wait_us > self.deadline_us:
            if self.lost is not None:
                raise self._busy(*self.lost)
            if self.impossible is not None and wait_us >= upstream.LONGEST_US:
                raise self.impossible
            names = " or ".join(
                dict.fromkeys(one.upstream.name for one in self.targets)
            )
            raise Refused(
                Fault.UNAVAILABLE,
                f"no account of {names} takes calls at the moment",
                retry_after_us=wait_us,
            )
        self.said = None  # as in line
        if self.waiter is None:
            self.waiter = steps.waiter(
                caller.priority,
                caller.flow,
                caller.weight,
                self.began_us,
                self.deadline_us,
            )
        self.waiter.again = self.attempts > 0
        self.is_displaced = False
        self.is_in = await steps.wait(self._doors(), self.waiter)
        self.waited_us += self.gateway.now_us() - now
        self.tried.clear()
        self.lost = None

    def offers(self, target: Destination, able: Sequence[Account]) -> list[Offer]:
        """Say what attempts through accounts take, one where nobody knows the price."""
        offers: list[Offer] = []
        for account in able:
            try:
                offers.append(self._offer(target, account))
            except ConfigError as error:  # no price, or no rate for a limit's currency
                if self.impossible is None:
                    self.impossible = Refused(Fault.PRICE_UNKNOWN, str(error))
                self.tried.add((account, target.model))
        return offers

    def _offer(self, target: Destination, account: Account) -> Offer:
        """Say what an attempt through an account takes from every limit on its way."""
        caller, provider, body = self.caller, account.provider, self.body.data
        read, path = self._asked(target, provider), self.route.path
        facts = account.lessons.corrected(provider.name, read, caller.name)
        way = account.way(caller, target.model)
        # A budget is never passed: no lesson makes a call cheaper.
        worst = read if read.input_tokens > facts.input_tokens else facts
        watched = [rule.limit for rule in way.watched_money]
        bill, most = account.cashier.bill(
            way.money, worst, self.method, path, body, watched
        )
        for rule in way.watched_money:
            if rule.limit.unit not in most:
                text = f"{rule.text}, without a price"
                self.gateway.observer.shadowed(caller.name, text)
        theirs = provider.costs(facts)
        ours = theirs
        if provider.counting is not Counting.SUM:
            ours = counting.costs(Counting.SUM, facts)
        costs = way.costs(ours, theirs, most)
        return Offer(account, target.model, facts, bill, caller.name, way, costs)

    def _asked(self, target: Destination, provider: Provider) -> RequestFacts:
        """Return what it asks of a provider; read once, however often it chooses."""
        words = provider.name, target.model
        found = self.readings.get(words)
        if found is None:
            said = self.body.data if self.said is None else self.said
            if target.model != self.model:  # whose price it is
                said = {**(shapes.read_object(said) or {}), "model": target.model}
            found = provider.read_request(self.method, self.route.path, said)
            self.readings[words] = found
        return found

    def turned_back(self, offer: Offer, waiter: Waiter) -> None:
        """Choose anew after standing in an account's line, at the place it had there.

        Raises `Refused` where limits of the caller's own are in the way: no other
        account has less of those.
        """
        self.place = waiter.place
        if waiter.state is State.LET_GO:
            return
        if waiter.held_by in waiter.meters[: offer.way.split]:
            raise self._busy(offer.way, waiter)
        if self.lost is None or waiter.wait_us < self.lost[1].wait_us:
            self.lost = offer.way, waiter
        self.tried.add((offer.account, offer.model))

    def too_large_for(self, offer: Offer, error: NeverPossible) -> None:
        """Look for an account whose limits are larger than the call."""
        ours = error.limit in offer.way.own_texts
        refused = _impossible(error, ours=ours)
        if ours:
            raise refused from error
        if self.impossible is None:
            self.impossible = refused
        self.tried.add((offer.account, offer.model))

    def _turn(self, crowd: Crowd | None) -> Turn:
        """Say how it stands in line."""
        caller = self.caller
        return Turn(
            priority=caller.priority,
            flow=caller.flow,
            weight=caller.weight,
            timeout_us=max(0, self.deadline_us - self.gateway.now_us()),
            again=self.attempts > 0,
            place=self.place,
            crowd=crowd,
            has_choice=sum(len(self._accounts(one)) for one in self.targets) > 1,
        )

    async def admitted(self, way: Way, costs: list[int]) -> Pass:
        """Take a pass, waiting in line as long as the caller may."""
        try:
            passed = await self.stand(way, costs)
        except NeverPossible as error:
            raise _impossible(error, ours=error.limit in way.own_texts) from error
        if isinstance(passed, Waiter):
            raise self._busy(way, passed)
        return passed

    async def stand(
        self, way: Way, costs: list[int], crowd: Crowd | None = None
    ) -> Pass | Waiter:
        """Take a pass, or come back from the line without one."""
        caller, gateway = self.caller, self.gateway
        now = gateway.now_us()

        def turn() -> Turn:
            return self._turn(crowd)

        try:
            passed = await admit(gateway.store, way, costs, turn, gateway.ledger)
        except StoreUnavailable as error:
            # Not its message: where the store is concerns nobody but the operator.
            why = _NO_ROOM if isinstance(error, NoRoom) else _NOT_WRITTEN
            raise Refused(
                Fault.UNAVAILABLE, why, retry_after_us=units.SECOND
            ) from error
        if isinstance(passed, Waiter):
            self.waited_us += gateway.now_us() - now
            return passed
        if passed.waited_s:
            self.waited_us += gateway.now_us() - now
            self.place = passed.place
        if way.watched:
            for limit in passed.missed(way):
                gateway.observer.shadowed(caller.name, limit)
        return passed

    def refused_by_head(self) -> Refused | None:
        """Say why a call is sure to be refused, whatever its body; None: it is not."""
        caller, now = self.caller, self.gateway.now_us()
        bar, left_us = caller.bar, max(0, self.arrived_us + self.patience_us() - now)

        def waiter() -> Waiter:
            return Waiter(
                (), priority=caller.priority, flow=caller.flow, weight=caller.weight
            )

        only_counts = counts_tokens(self.route.path)
        wait_us = bar.wait_us(left_us, now, waiter, only_counts=only_counts)
        if not wait_us:
            return None
        assert bar.meter is not None
        answer = denied(bar.meter, wait_us, wait_us)
        return self._used_up(bar.meter, bar.cost, answer, ours=True)

    def _busy(self, way: Way, waiter: Waiter) -> Refused:
        """Say which limit holds a call up, and when to come back."""
        meter = waiter.held_by
        assert meter is not None
        ours = meter in waiter.meters[: way.split]
        cost = waiter.cost_of(meter)
        if meter.never(cost):  # a reload has lowered it meanwhile
            return _impossible(never_possible(meter, cost), ours=ours)
        if ours:
            self.caller.bar.close(meter)
        answer = denied(meter, waiter.wait_us, waiter.least_us)
        return self._used_up(meter, cost, answer, ours=ours)

    def _used_up(
        self, meter: Meter, cost: int, answer: Denied, *, ours: bool
    ) -> Refused:
        wait_us = answer.retry_after_us
        if answer.exact:
            wait_us = self.gateway.promised_us(meter, cost, wait_us, self.caller)
        # What an account holds is nobody's business but the operator's.
        name, whose = ACCOUNT_LIMITS, "the account"
        if ours:
            assert self.caller is not None
            whose = self.caller.whose(meter)
            name = f"the limit '{meter.text}' of {whose}"
        message = f"{name} is {answer.why}"
        is_spent = meter.limit.is_money and not answer.is_held
        fault = Fault.BUDGET if is_spent else Fault.BUSY
        return Refused(
            fault,
            message,
            retry_after_us=wait_us,
            exact=answer.exact,
            limit=f"{meter.text} of {whose}",
        )

    def may_rest(self) -> bool:
        """Say whether it has the time to go where it was just turned away.

        The first time it goes when the provider says; then it backs off as well, for a
        provider that says "at once" again and again does not mean it.
        """
        if self.attempts > 1:
            rest_us = _BACKOFF.wait_us(self.attempts - 1, 0, self.gateway.draw)
            self.rest_us = rest_us or 0
        return self.gateway.now_us() + self.rest_us <= self.deadline_us

    async def rest(self) -> None:
        """Back off, holding nothing, where that is due."""
        if self.rest_us:
            now, rest_us, self.rest_us = self.gateway.now_us(), self.rest_us, 0
            await asyncio.sleep(units.seconds(rest_us))
            self.waited_us += self.gateway.now_us() - now

    def has_others(self, account: Account) -> bool:
        """Say whether another account is open and may take it, none that was tried."""
        self.tried.add(account)
        try:
            while True:
                target, able, _ = self.open_accounts()
                if not able or self.offers(target, able):
                    return bool(able)
        finally:
            self.tried.discard(account)


def _impossible(error: NeverPossible, *, ours: bool) -> Refused:
    message = str(error) if ours else f"it is larger than {ACCOUNT_LIMITS}"
    return Refused(Fault.IMPOSSIBLE, message)
