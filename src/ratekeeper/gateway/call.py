"""One call on its way: who calls, what for, through which account, and its answer.

It goes from account to account until one answers or none can; which of them takes it is
the choice's to say, what answers mean the trial's. Nothing is sent to anybody before a pass
is there, and nothing is sent again once the caller has seen a byte.
It is long because every way in which an attempt can end stands here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratekeeper.client.pool import Silence, Unreached, Unsent
from ratekeeper.core.line import Waiter
from ratekeeper.errors import NeverPossible
from ratekeeper.gateway import (
    auth,
    desk,
    fields,
    intake,
    relay,
    reply,
    route,
    uploads,
    usage,
)
from ratekeeper.gateway.choice import ATTEMPTS, Choice
from ratekeeper.gateway.exchange import BadHead
from ratekeeper.gateway.observer import Done
from ratekeeper.gateway.refused import BROKE_OFF, Refused, of_account, of_silence
from ratekeeper.gateway.reply import Fault
from ratekeeper.gateway.request import NO_PATH, Destination
from ratekeeper.gateway.sight import sight_of
from ratekeeper.gateway.trial import Trial
from ratekeeper.providers.facts import Dialect, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import msgspec

    from ratekeeper.client.pool import Answer
    from ratekeeper.gateway.app import Gateway
    from ratekeeper.gateway.exchange import Wire
    from ratekeeper.gateway.upstream import Account

_ERROR = 400
_MOST_ERROR = 1024 * 1024  # bytes of an error; the largest seen has below 8,000
_ERROR_S = 3.0  # for all of an error to come: its head says what matters
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


_ID = b"x-ratekeeper-request-id"  # in the log too


class Call(Choice):
    """One request from its head to its end."""

    def __init__(
        self, gateway: Gateway, scope: Mapping[str, Any], receive: Any, send: Any
    ) -> None:
        super().__init__(gateway, scope, receive)
        self.send = send
        self.wire: Wire = scope["ratekeeper.wire"]
        self.id = gateway.new_id()
        self.account: Account | None = None
        self.asked_usage = False
        self.status = 0  # of the answer, once it has begun
        self.pages = 0  # of a list, that held nothing of its caller's
        self.first_byte_us: int | None = None
        self.trial: Trial | None = None  # the attempt under way, or the last one
        self.refused: Refused | None = None

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
        self.identify()
        self.wire.known()
        if self.raw_path.startswith(desk.PREFIX):
            self.kind = "desk"
            await self.gateway.desk.serve(self)
            return
        if found is None:
            raise Refused(Fault.NOT_FOUND, NO_PATH)
        self.route, self.kind = found, found.family
        if self.method not in route.METHODS:
            raise Refused(Fault.METHOD, f"{self.method[:20]} is not served here")
        if self.caller.bar.meter is not None:  # the last call was refused
            refused = self.refused_by_head()
            if refused is not None:
                most = max(self.wire.most_unread, self.gateway.roster.max_body)
                self.wire.most_unread = most
                raise refused
        self.passes = await self.take_in()
        self.find_targets()
        self.check_model()
        self.find_home()
        await self._go()

    # From account to account.

    async def _go(self) -> None:
        self.began_us = self.gateway.now_us()
        self.deadline_us = self.began_us + self.patience_us()
        while True:
            if self.is_outdated():
                self.look_up_anew()
            target, able, wait_us = self.open_accounts()
            if not able or self.has_to_queue():
                await self.outside(wait_us)
                continue
            offers = self.offers(target, able)
            if not offers:
                continue
            offer = self.best(target, offers)
            self.said = None  # it weighs many times its bytes, and may have to wait
            account = self.account = offer.account
            try:
                passed = await self.stand(offer.way, offer.costs, account.crowd)
            except NeverPossible as error:
                self.too_large_for(offer, error)
                continue
            if isinstance(passed, Waiter):
                self.turned_back(offer, passed)
                continue
            trial = Trial(offer, passed)
            self.trial = trial
            try:
                if account.wait_us(self.gateway.now_us()) or self.is_outdated():
                    trial.unsent()  # it closed, or was replaced, while this stood in line
                    continue
                self.attempts += 1
                if not await self._attempt(target, trial):
                    return
            finally:
                self._note(trial)
            await self.rest()

    async def _attempt(self, target: Destination, trial: Trial) -> bool:
        """Send it once; True where it is to be sent again."""
        account = trial.account
        account.breaker.go(self.gateway.now_us())
        try:
            answer = await self._sent(target, trial)
        except Unreached as error:
            return self._unreached(error, trial)
        except BaseException as error:
            account.breaker.given_up()
            if isinstance(error, Unsent):
                trial.unsent()
            else:
                trial.unanswered()
            if isinstance(error, intake.BodyTooLarge):
                raise self.too_large() from None
            raise
        try:
            if answer.status >= _ERROR:
                return await self._failed(answer, trial)
            account.succeeded(self.gateway.now_us())
            self.gateway.budget.succeeded()
            self.body.let_go()  # it will not be sent again
            if await relay.relay(self, answer, trial):
                self.home = account  # the next page of the same list
                return True
        except Unreached as error:
            raise of_silence(error.reason, account.upstream, BROKE_OFF) from error
        except BadHead as error:
            raise Refused(
                Fault.UNREACHABLE, "the provider's answer holds a header that is none"
            ) from error
        finally:
            answer.close()
            trial.end()
        return False

    async def _sent(self, target: Destination, trial: Trial) -> Answer:
        account, body = trial.account, self.body.data
        url = route.url_of(account.provider.base_url, self.route)
        query = auth.strip_key(self.query)
        if query and Dialect.GEMINI in target.upstream.dialects:
            query = fields.to_google(query)
        if query:
            url = f"{url}?{query.decode('latin-1')}"
        headers = fields.texts(fields.onward(self.headers))
        headers += account.native_headers if self.route.is_native else account.headers
        headers.append(("accept-encoding", "identity"))  # what is packed is not metered
        data: Any = body or None
        if self.passes:
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

    def _unreached(self, error: Unreached, trial: Trial) -> bool:
        """Settle an attempt that got no answer; True where another is to be made."""
        account = trial.account
        if error.reason is Silence.REDIRECT:
            account.succeeded(self.gateway.now_us())  # somebody is there, and answers
        else:
            account.failed(str(error), self.gateway.now_us())
        self.gateway.tell_of(account)
        if error.was_sent:
            trial.unanswered()
        else:
            trial.unsent()
            if self.has_others(account) and self._may_go_on(throttled=False):
                self.tried.add(account)
                return True
        raise of_silence(error.reason, account.upstream) from error

    async def _failed(self, answer: Answer, trial: Trial) -> bool:
        """Heed an error answer: go on elsewhere, or pass it on to the caller."""
        account = trial.account
        try:
            head, cut = await answer.head(_MOST_ERROR, _ERROR_S)
        except BaseException:
            account.breaker.given_up()
            raise
        head, said = account.masked(head), answer.fields
        verdict = trial.judge(answer.status, said, head)
        account.judged(verdict, self.gateway.now_us())
        self.gateway.tell_of(account)
        again = (
            verdict.kind in _ELSEWHERE
            and (
                self.has_others(account)
                or (verdict.kind in _SAME_AGAIN and self.may_rest())
            )
            and self._may_go_on(throttled=verdict.kind in _THROTTLES)
        )
        trial.turned_away(verdict, answer.status, said, again=again)
        if again:
            if verdict.kind not in _SAME_AGAIN:
                self.tried.add(account)
            return True
        if verdict.kind in _ACCOUNTS:
            closed_us = account.wait_us(self.gateway.now_us())
            raise of_account(verdict, account.upstream, closed_us)
        if cut is not None:
            raise of_silence(cut, account.upstream, BROKE_OFF)
        headers = relay.head(self, answer)
        shown = [(name, account.masked(value)) for name, value in headers]
        await relay.pass_on(self, answer, shown, head)
        return False

    def _may_go_on(self, *, throttled: bool) -> bool:
        """Say whether another attempt may be made: few each, and paid for by answers."""
        return (
            not self.passes
            and self.attempts < ATTEMPTS
            and self.gateway.budget.spend(throttled=throttled)
        )

    async def _refuse(self, error: Refused) -> None:
        self.refused = error
        also = [(_ID, self.id.encode())]
        if self._caller is not None:
            also += self.quota(refused=True)
        if error.fault is Fault.METHOD:
            also.append(
                (b"allow", b", ".join(m.encode() for m in sorted(route.METHODS)))
            )
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
        caller, account, refused = self._caller, self.account, self.refused
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
                key=self._whose(),
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

    def _whose(self) -> str:
        """Return the name of its key, of one that lets nobody in any more too."""
        if self._caller is not None:
            return self._caller.name
        return "" if self.refused is None else self.refused.key

    def see(self, part: bytes) -> None:
        """Look at a part of a good answer for what it has made, before it is passed on."""
        if self.sight is not None:
            for name, is_chosen in self.sight.feed(part):
                self._made(name, is_chosen=is_chosen)

    def see_own(self, items: Iterable[msgspec.Raw]) -> None:
        """Look at what a list holds of its caller's for what has come of it."""
        assert self.lists is not None
        for item in items:
            sight = sight_of(self.lists, self.method, {}, (), is_own=True)
            for name, _ in () if sight is None else sight.feed(bytes(item)):
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

    def _made(self, name: str, *, is_chosen: bool = False) -> None:
        assert self.account is not None
        self.gateway.homes.made(
            name, self.account.name, self.caller.owner, is_chosen=is_chosen
        )

    def begin(self, status: int) -> None:
        """Take note that the answer begins."""
        self.status = status
        self.first_byte_us = self.gateway.now_us() - self.arrived_us

    def own_headers(self) -> list[tuple[bytes, bytes]]:
        """Return what the gateway itself says on an answer."""
        return [
            (_ID, self.id.encode()),
            (b"x-ratekeeper-waited-ms", b"%d" % -(-self.waited_us // 1000)),
            *self.quota(),
        ]
