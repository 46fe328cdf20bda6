"""One call on its way: who calls, what for, through which account, and its answer.

It goes from account to account until one answers or none can; what limits say is asked
of admission, what answers mean of the trial. Nothing is sent to anybody before a pass
is there, and nothing is sent again once the caller has seen a byte.
It is long because every way in which an attempt can end stands here, in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratekeeper.client.pool import Unreached
from ratekeeper.core.decision import denied, never_possible
from ratekeeper.core.line import State, Waiter
from ratekeeper.errors import ConfigError, NeverPossible, StoreUnavailable
from ratekeeper.gateway import (
    auth,
    desk,
    fields,
    ids,
    intake,
    relay,
    reply,
    route,
    stays,
    uploads,
    upstream,
    usage,
)
from ratekeeper.gateway.admit import Turn, admit
from ratekeeper.gateway.exchange import BadHead
from ratekeeper.gateway.observer import Done
from ratekeeper.gateway.refused import ACCOUNT_LIMITS, Refused, of_account, of_silence
from ratekeeper.gateway.reply import Fault
from ratekeeper.gateway.request import NO_PATH, Request, Target
from ratekeeper.gateway.trial import Offer, Trial
from ratekeeper.providers import counting, shapes
from ratekeeper.providers.facts import Counting, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratekeeper.client.pool import Answer
    from ratekeeper.gateway.admit import Pass, Way
    from ratekeeper.gateway.app import Gateway
    from ratekeeper.gateway.exchange import Wire
    from ratekeeper.gateway.route import Route
    from ratekeeper.gateway.upstream import Account
    from ratekeeper.providers.facts import RequestFacts
    from ratekeeper.providers.provider import Provider

_ATTEMPTS = 4
_NO_ROOM = (
    "the gateway has no room in line, or cannot write down what a call takes: "
    "try again in a moment"
)
_NO_ROOM_US = 1_000_000
_ERROR = 400
_MOST_ERROR = 64 * 1024  # bytes of an error that are read; the largest seen is below 8
_ELSEWHERE = frozenset(
    [
        Kind.THROTTLED,
        Kind.RAMP,
        Kind.STOPPED,
        Kind.OVERLOADED,
        Kind.TRANSIENT,
        Kind.BILLING,
        Kind.UNAUTHORIZED,
    ]
)
_SAME_AGAIN = frozenset([Kind.THROTTLED, Kind.RAMP, Kind.OVERLOADED])
_THROTTLES = frozenset([Kind.THROTTLED, Kind.RAMP, Kind.STOPPED])
# What is between the gateway and its account is not its callers' business.
_ACCOUNTS = frozenset([Kind.UNAUTHORIZED, Kind.BILLING, *_THROTTLES])


class Call(Request):
    """One request from its head to its end."""

    def __init__(
        self, gateway: Gateway, scope: Mapping[str, Any], receive: Any, send: Any
    ) -> None:
        super().__init__(gateway, scope, receive)
        self.send = send
        self.wire: Wire = scope["ratekeeper.wire"]
        self.id = gateway.new_id()
        self.account: Account | None = None
        self.waited_us = 0
        self.attempts = 0
        self.targets: list[Target] = []
        self.asked_usage = False
        self.status = 0  # of the answer, once it has begun
        self.pages = 0  # of a list, that held nothing of its caller's
        self.first_byte_us: int | None = None
        self.trial: Trial | None = None  # the attempt under way, or the last one
        self.refused: Refused | None = None
        self.waiter: Waiter | None = None  # its place where no account was open
        self.is_in = False  # it has stood there until it was its turn
        self.sight: ids.Sight | None = None  # where its answer may name what it made
        self.readings: dict[tuple[str, str], RequestFacts] = {}  # by provider and model
        self.place: tuple[int, int] | None = None  # in the last line it stood in
        self.lost: tuple[Way, Waiter] | None = None  # where the wait was least too long
        self.impossible: Refused | None = None  # it is larger than an account

    async def run(self) -> None:
        """Answer it, whatever happens."""
        try:
            await self._serve()
        except Refused as error:
            await self._refuse(error)
        except intake.CallerGone:
            pass
        finally:
            self.body.let_go()
            self._tell()

    async def _serve(self) -> None:
        found = route.find(self.raw_path, self.headers)
        self.dialect = (
            route.guessed(self.raw_path, self.headers)
            if found is None
            else found.dialect
        )
        self.caller = self.known()
        if self.raw_path.startswith(desk.PREFIX):
            self.kind = "desk"
            await self.gateway.desk.serve(self)
            return
        if found is None:
            raise Refused(Fault.NOT_FOUND, NO_PATH)
        self.kind = found.family
        if self.method not in route.METHODS:
            raise Refused(Fault.METHOD, f"{self.method[:20]} is not served here")
        self.streamed = await self.take_in(found)
        self.targets = self.targets_of(found)
        self.check_model(found)
        self.targets = self.settle_home(found, self.targets)
        await self._go(found)

    # From account to account.

    async def _go(self, found: Route) -> None:
        tried: set[Account] = set()
        deadline_us = self.arrived_us + self.patience_us()
        while True:
            target, able, wait_us = self._open(tried)
            if not able or self._has_to_queue(tried):
                await self._outside(tried, wait_us, deadline_us)
                tried.clear()
                self.lost = None
                continue
            offers = [self._offer(found, target, account) for account in able]
            offer = offers[0] if len(offers) == 1 else self._best(target, offers)
            self.said = None  # it weighs many times its bytes, and may have to wait
            self.account = offer.account
            try:
                passed = await self._stand(offer.way, offer.costs, deadline_us, offer)
            except NeverPossible as error:
                self._too_large_for(offer, error, tried)
                continue
            if isinstance(passed, Waiter):
                self._turned_back(offer, passed, tried)
                continue
            trial = Trial(offer, passed)
            self.trial = trial
            try:
                if offer.account.wait_us(self.gateway.now_us()):
                    trial.unsent()  # it closed while the call stood in line
                    continue
                self.attempts += 1
                if not await self._attempt(found, target, trial, tried):
                    return
            finally:
                self._note(trial)

    def _open(self, tried: set[Account]) -> tuple[Target, list[Account], int]:
        """Return the first target with accounts that are open, and those."""
        now, least = self.gateway.now_us(), upstream.LONGEST_US
        for target in self.targets:
            accounts = [one for one in self._accounts(target) if one not in tried]
            able, wait_us = upstream.open_ones(accounts, now)
            if able:
                return target, able, 0
            least = min(least, wait_us)
        return self.targets[0], [], least

    def _accounts(self, target: Target) -> tuple[Account, ...]:
        """Return the accounts that may take it: all, unless it belongs to one."""
        return target.upstream.accounts if self.home is None else (self.home,)

    def _best(self, target: Target, offers: list[Offer]) -> Offer:
        """Return the roomiest offer, or that of the account which has the prompt cached."""
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
        assert self.caller is not None
        return self.gateway.store.room(
            offer.way.theirs,
            offer.costs[offer.way.split :],
            priority=self.caller.priority,
            flow=self.caller.flow,
        )

    def _untried(self, tried: set[Account]) -> tuple[Account, ...]:
        return tuple(
            one
            for target in self.targets
            for one in self._accounts(target)
            if one not in tried
        )

    def _has_to_queue(self, tried: set[Account]) -> bool:
        """Say whether others wait already for the accounts it would go to."""
        steps = self.gateway.doorsteps
        return bool(steps) and not self.is_in and steps.are_taken(self._untried(tried))

    async def _outside(
        self, tried: set[Account], wait_us: int, deadline_us: int
    ) -> None:
        """Wait for accounts that are set aside, or say that none is to be had."""
        caller, steps, now = self.caller, self.gateway.doorsteps, self.gateway.now_us()
        assert caller is not None
        if self.attempts >= _ATTEMPTS or now + wait_us > deadline_us:
            if self.lost is not None:
                raise self._busy(*self.lost)
            if self.impossible is not None and wait_us >= upstream.LONGEST_US:
                raise self.impossible
            raise Refused(
                Fault.UNAVAILABLE,
                "no account of this provider takes calls at the moment",
                retry_after_us=wait_us,
            )
        self.said = None  # as in line
        if self.waiter is None:
            self.waiter = steps.waiter(
                caller.priority,
                caller.flow,
                caller.weight,
                self.arrived_us,
                deadline_us,
            )
        self.waiter.again = self.attempts > 0
        self.is_in = await steps.wait(self._untried(tried), self.waiter)
        self.waited_us += self.gateway.now_us() - now

    async def _attempt(
        self, found: Route, target: Target, trial: Trial, tried: set[Account]
    ) -> bool:
        """Send it once; True where it is to be sent again."""
        account = trial.account
        account.breaker.go(self.gateway.now_us())
        try:
            answer = await self._sent(found, target, trial)
        except Unreached as error:
            return self._unreached(error, trial, tried)
        except BaseException as error:
            account.breaker.given_up()
            trial.unanswered()
            if isinstance(error, intake.BodyTooLarge):
                raise self.too_large() from None
            raise
        try:
            if answer.status >= _ERROR:
                return await self._failed(answer, trial, tried)
            account.succeeded(self.gateway.now_us())
            self.gateway.budget.succeeded()
            if self.makes:
                self.sight = ids.Sight(self.refers_to)
            self.body.let_go()  # it will not be sent again
            if await relay.relay(self, answer, trial):
                self.home = account  # the next page of the same list
                return True
        except Unreached as error:
            raise of_silence(error.reason, "the answer broke off") from error
        except BadHead as error:
            raise Refused(
                Fault.UNREACHABLE, "the provider's answer holds a header that is none"
            ) from error
        finally:
            answer.close()
            trial.end()
        return False

    def _offer(self, found: Route, target: Target, account: Account) -> Offer:
        """Say what an attempt through an account takes from every limit on its way."""
        caller, provider, body = self.caller, account.provider, self.body.data
        assert caller is not None
        path = found.path
        read = self._asked(path, target, provider)
        facts = account.lessons.corrected(provider.name, read, caller.name)
        way = account.way(caller, target.model)
        # A budget is never passed: no lesson makes a call cheaper.
        worst = read if read.input_tokens > facts.input_tokens else facts
        try:
            bill, most = account.cashier.bill(way.money, worst, self.method, path, body)
        except ConfigError as error:  # no price, or no rate for a limit's currency
            raise Refused(Fault.PRICE_UNKNOWN, str(error)) from error
        theirs = provider.costs(facts)
        ours = theirs
        if provider.counting is not Counting.SUM:
            ours = counting.costs(Counting.SUM, facts)
        return Offer(
            account, facts, bill, caller.name, way, way.costs(ours, theirs, most)
        )

    def _asked(self, path: str, target: Target, provider: Provider) -> RequestFacts:
        """Return what it asks of a provider; read once, however often it chooses."""
        words = provider.name, target.model
        found = self.readings.get(words)
        if found is None:
            said = self.body.data if self.said is None else self.said
            if target.model != self.model:  # whose price it is
                said = {**(shapes.read_object(said) or {}), "model": target.model}
            found = provider.read_request(self.method, path, said)
            self.readings[words] = found
        return found

    def _turned_back(self, offer: Offer, waiter: Waiter, tried: set[Account]) -> None:
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
        tried.add(offer.account)

    def _too_large_for(
        self, offer: Offer, error: NeverPossible, tried: set[Account]
    ) -> None:
        """Look for an account whose limits are larger than the call."""
        ours = error.limit in offer.way.own_texts
        self.impossible = _impossible(error, ours=ours)
        if ours:
            raise self.impossible from error
        tried.add(offer.account)

    def _turn(self, deadline_us: int, offer: Offer | None) -> Turn:
        """Say how it stands in line."""
        caller = self.caller
        assert caller is not None
        return Turn(
            priority=caller.priority,
            flow=caller.flow,
            weight=caller.weight,
            timeout_us=max(0, deadline_us - self.gateway.now_us()),
            again=self.attempts > 0,
            place=self.place,
            crowd=None if offer is None else offer.account.crowd,
            has_choice=sum(len(self._accounts(one)) for one in self.targets) > 1,
        )

    async def admitted(self, way: Way, costs: list[int], deadline_us: int) -> Pass:
        """Take a pass, waiting in line as long as the caller may."""
        try:
            passed = await self._stand(way, costs, deadline_us)
        except NeverPossible as error:
            raise _impossible(error, ours=error.limit in way.own_texts) from error
        if isinstance(passed, Waiter):
            raise self._busy(way, passed)
        return passed

    async def _stand(
        self, way: Way, costs: list[int], deadline_us: int, offer: Offer | None = None
    ) -> Pass | Waiter:
        """Take a pass, or come back from the line without one."""
        caller, gateway = self.caller, self.gateway
        assert caller is not None
        now = gateway.now_us()

        def turn() -> Turn:
            return self._turn(deadline_us, offer)

        try:
            passed = await admit(gateway.store, way, costs, turn, gateway.ledger)
        except StoreUnavailable as error:
            # Not its message: where the store is concerns nobody but the operator.
            raise Refused(
                Fault.UNAVAILABLE, _NO_ROOM, retry_after_us=_NO_ROOM_US
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

    def _busy(self, way: Way, waiter: Waiter) -> Refused:
        """Say which limit holds a call up, and when to come back."""
        meter = waiter.held_by
        assert meter is not None
        ours = meter in waiter.meters[: way.split]
        cost = waiter.cost_of(meter)
        if meter.never(cost):  # a reload has lowered it meanwhile
            return _impossible(never_possible(meter, cost), ours=ours)
        answer = denied(meter, waiter.wait_us)
        wait_us = self.gateway.promised_us(meter, waiter, answer.retry_after_us)
        # What an account holds is nobody's business but the operator's.
        name = f"the limit '{meter.text}'" if ours else ACCOUNT_LIMITS
        message = f"{name} is used up"
        fault = Fault.BUDGET if meter.limit.is_money else Fault.BUSY
        return Refused(
            fault,
            message,
            retry_after_us=wait_us,
            exact=answer.exact,
            limit=meter.text,
        )

    async def _sent(self, found: Route, target: Target, trial: Trial) -> Answer:
        account, body = trial.account, self.body.data
        url = route.url_of(account.provider.base_url, found)
        query = auth.strip_key(self.query)
        if query:
            url = f"{url}?{query.decode('latin-1')}"
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in fields.onward(self.headers)
        ]
        headers += account.native_headers if found.is_native else account.headers
        headers.append(("accept-encoding", "identity"))  # what is packed is not metered
        data: Any = body or None
        if self.streamed:
            data = intake.passing(self.receive, self.gateway.roster.max_body)
            length = self.field(b"content-length")
            if length:
                headers.append(("content-length", length.decode("latin-1")))
        else:
            if target.model != self.model:
                data = intake.with_model(body, target.model)
            if data and usage.is_asked_for(account.provider, trial.facts):
                asking = usage.ask(data)
                self.asked_usage = asking is not None
                data = asking or data
        return await self.gateway.pool.send(
            self.method, url, headers, data, proxy=account.proxy
        )

    def _unreached(self, error: Unreached, trial: Trial, tried: set[Account]) -> bool:
        """Settle an attempt that got no answer; True where another is to be made."""
        account = trial.account
        if error.reason == "redirect":
            account.succeeded(self.gateway.now_us())  # somebody is there, and answers
        else:
            account.unreached(str(error), self.gateway.now_us())
        self.gateway.tell_of(account)
        if error.was_sent:
            trial.unanswered()
        else:
            trial.unsent()
            if self._has_others(account, tried) and self._may_go_on(throttled=False):
                tried.add(account)
                return True
        raise of_silence(error.reason) from error

    async def _failed(self, answer: Answer, trial: Trial, tried: set[Account]) -> bool:
        """Heed an error answer: go on elsewhere, or pass it on to the caller."""
        account = trial.account
        try:
            head = account.masked(await answer.head(_MOST_ERROR))
        except BaseException:
            account.breaker.given_up()
            raise
        said = answer.fields
        verdict = trial.judge(answer.status, said, head)
        account.judged(verdict, self.gateway.now_us())
        self.gateway.tell_of(account)
        again = (
            verdict.kind in _ELSEWHERE
            and (verdict.kind in _SAME_AGAIN or self._has_others(account, tried))
            and self._may_go_on(throttled=verdict.kind in _THROTTLES)
        )
        trial.turned_away(verdict, answer.status, said, again=again)
        if again:
            if verdict.kind not in _SAME_AGAIN:
                tried.add(account)
            return True
        if verdict.kind in _ACCOUNTS:
            raise of_account(verdict, account.wait_us(self.gateway.now_us()))
        headers = relay.head(self, answer)
        headers.append((b"content-length", b"%d" % len(head)))
        await relay.whole(self, answer.status, headers, head)
        return False

    def _has_others(self, account: Account, tried: set[Account]) -> bool:
        now = self.gateway.now_us()
        return any(
            one is not account and one not in tried and not one.wait_us(now)
            for target in self.targets
            for one in self._accounts(target)
        )

    def _may_go_on(self, *, throttled: bool) -> bool:
        """Say whether another attempt may be made: few each, and paid for by answers."""
        return (
            not self.streamed
            and self.attempts < _ATTEMPTS
            and self.gateway.budget.spend(throttled=throttled)
        )

    async def _refuse(self, error: Refused) -> None:
        self.refused = error
        also = [] if self.caller is None else self.quota(refused=True)
        if error.fault is Fault.METHOD:
            also.append(
                (b"allow", b", ".join(m.encode() for m in sorted(route.METHODS)))
            )
        if error.fault is Fault.TOO_LARGE:  # what is left of it is not read
            also.append((b"connection", b"close"))
        answer = reply.answer(
            error.fault,
            error.message,
            self.dialect,
            retry_after_us=error.retry_after_us,
            exact=error.exact,
            request_id=self.id,
            also=also,
        )
        await relay.whole(self, answer.status, answer.headers, answer.body)

    def _note(self, trial: Trial) -> None:
        """Have the ledger keep what an attempt came to, answered or not."""
        caller, ledger = self.caller, self.gateway.ledger
        assert caller is not None
        if trial.usage is None:
            ledger.soon()
            return
        ledger.spent(
            caller.name,
            caller.team,
            trial.account.upstream,
            self.model,
            trial.usage,
            trial.cost,
        )

    def _tell(self) -> None:
        """Tell the observer what has become of it."""
        caller, account, refused = self.caller, self.account, self.refused
        used = None if self.trial is None else self.trial.usage
        cost = {} if self.trial is None else self.trial.cost
        gateway = self.gateway
        if refused is None and not gateway.observer.hears_all:
            return
        gateway.observer.done(
            Done(
                request_id=self.id,
                status=self.status,
                kind=self.kind,
                key="" if caller is None else caller.name,
                team="" if caller is None else caller.team,
                provider="" if account is None else account.upstream,
                account="" if account is None else account.name,
                model=self.model,
                fault=None if refused is None else refused.fault,
                limit="" if refused is None else refused.limit,
                waited_us=self.waited_us,
                first_byte_us=self.first_byte_us,
                took_us=gateway.now_us() - self.arrived_us,
                input_tokens=None if used is None else used.input_tokens,
                output_tokens=None if used is None else used.output_tokens,
                cost_nano=cost,
                attempts=self.attempts,
            )
        )

    def see(self, part: bytes) -> None:
        """Look at a part of a good answer for what it has made, before it is passed on."""
        if self.sight is not None:
            for name in self.sight.feed(part):
                self._made(name)

    def lead_here(
        self, headers: list[tuple[bytes, bytes]]
    ) -> list[tuple[bytes, bytes]]:
        """Return an answer's headers; an upload that it begins goes on through here."""
        if not uploads.begins(self.raw_path):
            return headers
        is_secure = self.field(b"x-forwarded-proto") == b"https"
        led = list(uploads.led_here(headers, self.field(b"host"), is_secure=is_secure))
        for _, value in led:
            for name in uploads.ids_in(value.partition(b"?")[2]):
                self._made(name)
                if self.secret is not None:
                    self.gateway.uploads.began(name, self.secret)
        return led

    def _made(self, name: str) -> None:
        assert self.account is not None
        assert self.caller is not None
        self.gateway.homes.made(name, self.account.name, self.caller.owner)

    def begin(self, status: int) -> None:
        """Take note that the answer begins."""
        self.status = status
        self.first_byte_us = self.gateway.now_us() - self.arrived_us

    def own_headers(self) -> list[tuple[bytes, bytes]]:
        """Return what the gateway itself says on an answer."""
        return [
            (b"x-ratekeeper-request-id", self.id.encode()),
            (b"x-ratekeeper-waited-ms", b"%d" % -(-self.waited_us // 1000)),
            *self.quota(),
        ]


def _impossible(error: NeverPossible, *, ours: bool) -> Refused:
    message = str(error) if ours else f"it is larger than {ACCOUNT_LIMITS}"
    return Refused(Fault.IMPOSSIBLE, message)
