"""The desk: grants for programs that keep an HTTP client of their own.

`POST /v1/ratekeeper/acquire` takes what a call would take from the limits of the key,
its team and, where a provider is named, of one of its accounts; `…/settle` says what it
came to. A grant that nobody settles counts as used in full when its hold is over. What
a caller says binds its own limits, and those of others within bounds. It sends nothing
to a provider, and never tells the key of an account.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from ratekeeper.config.findings import near
from ratekeeper.config.times import duration_us
from ratekeeper.core import units
from ratekeeper.core.limits import CONCURRENT
from ratekeeper.core.policy import COUNTS, counted
from ratekeeper.errors import ConfigError
from ratekeeper.gateway import relay, upstream
from ratekeeper.gateway.admit import Way
from ratekeeper.gateway.hearsay import Hearsay
from ratekeeper.gateway.intake import Crowded, Held
from ratekeeper.gateway.refused import ACCOUNT_LIMITS, Refused
from ratekeeper.gateway.reply import Fault
from ratekeeper.providers.facts import Costs, Usage
from ratekeeper.providers.shapes import LONGEST_MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratekeeper.gateway.admit import Pass
    from ratekeeper.gateway.app import Gateway
    from ratekeeper.gateway.call import Call
    from ratekeeper.gateway.roster import Caller
    from ratekeeper.gateway.upstream import Account

PREFIX = b"/v1/ratekeeper/"

_LARGEST = 64 * 1024  # bytes of a request
_HOLD = "15m"  # how long a grant may stay open, unless said
_LONGEST_US = units.DAY
_LONGEST_SLOT_US = 15 * units.MINUTE  # of an account, which others wait for
_MOST_OPEN = 10_000  # grants at once
_MOST_USED = 10**9  # of tokens: no call comes to more
_ABSURD_S = 31 * 24 * 3600  # a hint beyond a month is none
_LONGEST_UNIT = 40  # characters of a wrong one that are shown
_TOKENS = frozenset(["tokens", "input_tokens", "output_tokens"])
_JSON = (b"content-type", b"application/json")

Amounts = dict[str, int | str]  # by unit; money is text


class Acquire(msgspec.Struct, forbid_unknown_fields=True):
    """What a call takes, and where it goes."""

    take: Amounts = {}
    provider: str = ""
    model: str = ""
    hold: str = _HOLD


class Settle(msgspec.Struct, forbid_unknown_fields=True):
    """What a call came to; `refused` says that the provider said 429."""

    grant: str
    used: Amounts = {}
    refused: bool = False
    retry_after_s: float | None = None


@dataclasses.dataclass(slots=True)
class _Open:
    """A grant in somebody's hands."""

    passed: Pass
    way: Way
    caller: Caller
    account: Account | None
    said: Acquire
    hold_us: int
    timer: asyncio.TimerHandle


class Desk:
    """The grants that are out."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._open: dict[str, _Open] = {}
        self._hearsay = Hearsay()
        # Whoever has several grants has no more than are left for everybody else.
        self.places = Held(_MOST_OPEN)

    async def serve(self, call: Call) -> None:
        """Answer a request to the desk."""
        verb = call.raw_path.removeprefix(PREFIX)
        if verb not in {b"acquire", b"settle"}:
            raise Refused(Fault.NOT_FOUND, "the desk knows acquire and settle")
        if call.method != "POST":
            raise Refused(Fault.METHOD, "the desk is asked by POST")
        await call.hold_body(_LARGEST)
        try:
            if verb == b"acquire":
                said = msgspec.json.decode(call.body.data or b"{}", type=Acquire)
                await self._acquire(call, said)
            else:
                settled = msgspec.json.decode(call.body.data, type=Settle)
                await _answer(call, self._settle(call, settled))
        except msgspec.DecodeError as error:
            raise Refused(Fault.BAD_REQUEST, str(error)) from error

    async def _acquire(self, call: Call, said: Acquire) -> None:
        hold_us = _hold_us(said.hold)
        call.deadline_us = call.arrived_us + call.patience_us()
        name = await self._placed(call, said, hold_us)
        while name is None:
            call.identify_anew()
            name = await self._placed(call, said, hold_us)
        held = self._open[name]
        answer = {
            "grant": name,
            "account": None if held.account is None else held.account.name,
            "waited_ms": -(-call.waited_us // 1000),
            "expires_in_s": held.hold_us / 1e6,
        }
        try:
            await _answer(call, answer)
        except BaseException:  # nobody knows of it
            if self._taken_back(name) is not None:  # else its hold is over by now
                held.passed.cancel()
            raise

    async def _placed(self, call: Call, said: Acquire, hold_us: int) -> str | None:
        """Find a place for one more grant, and return its name."""
        caller, name = call.caller, None
        _check_model(said.model, caller)
        try:
            self.places.take(1, caller.flow)
        except Crowded:
            msg = "too many grants are out: settle those whose calls are over"
            raise Refused(Fault.UNAVAILABLE, msg) from None
        try:
            name = await self._granted(call, caller, said, hold_us)
        finally:
            if name is None:
                self.places.give(1, caller.flow)
        return name

    async def _granted(
        self, call: Call, caller: Caller, said: Acquire, hold_us: int
    ) -> str | None:
        """Take what the call takes, and return the name of its grant.

        None where the config has changed while it stood in line.
        """
        account = None
        if said.provider:
            account = await self._account(call, caller, said)
        way = Way(caller.targets, account.targets(said.model) if account else ())
        if _counts_slots(way):
            hold_us = min(hold_us, _LONGEST_SLOT_US)
        passed = await call.admitted(way, _costs(way, said.take))
        if call.is_outdated():
            passed.cancel()
            return None
        name = f"grant_{secrets.token_urlsafe(18)}"
        loop = asyncio.get_running_loop()
        timer = loop.call_later(hold_us / 1e6, self._expire, name)
        self._open[name] = _Open(passed, way, caller, account, said, hold_us, timer)
        return name

    async def _account(self, call: Call, caller: Caller, said: Acquire) -> Account:
        """Return the account with most headroom of the provider that is named.

        Where its flow was refused by all that are open, as it said, it waits for one.
        """
        gateway = self._gateway
        found = gateway.roster.upstreams.get(said.provider)
        if found is None or not found.accounts:
            msg = f"no provider {said.provider[:40]!r} is configured here"
            raise Refused(Fault.NOT_FOUND, msg)
        while True:
            now = gateway.now_us()
            able, wait_us = upstream.open_ones(found.accounts, now)
            if not able:
                msg = "no account of this provider takes calls at the moment"
                raise Refused(Fault.UNAVAILABLE, msg, retry_after_us=wait_us)
            away_us = {
                one: self._hearsay.wait_us(caller.flow, one.name, said.model, now)
                for one in able
            }
            able = [one for one in able if not away_us[one]]
            if able:
                return self._roomiest(able, said)
            least_us = min(away_us.values())
            if now + least_us > call.deadline_us:
                msg = f"{ACCOUNT_LIMITS} is used up, as was reported"
                raise Refused(Fault.BUSY, msg, retry_after_us=least_us)
            await asyncio.sleep(least_us / 1e6)
            call.waited_us += gateway.now_us() - now

    def _roomiest(self, accounts: list[Account], said: Acquire) -> Account:
        def room(account: Account) -> tuple[int, float]:
            way = Way((), account.targets(said.model))
            return self._gateway.store.room(way.targets, _costs(way, said.take))

        return accounts[0] if len(accounts) == 1 else min(accounts, key=room)

    def _settle(self, call: Call, said: Settle) -> dict[str, object]:
        caller, held = call.caller, self._open.get(said.grant)
        if held is None or held.caller.flow != caller.flow:
            raise Refused(Fault.NOT_FOUND, "no such grant is open: it has been settled")
        used = _used(said.used)
        self._taken_back(said.grant)
        free = {limit.unit: 0 for limit in held.way.money} if said.refused else {}
        held.passed.ours = {**free, **used}
        theirs = {
            unit: units.Nano(amount) if unit in units.CURRENCIES else amount
            for unit, amount in held.passed.bounded(held.passed.ours).items()
        }
        if said.refused:
            self._refused(held, said.retry_after_s, theirs)
        else:
            held.passed.settle(**theirs)
        self._note(held, used, in_full=not said.refused)
        return {"settled": True}

    def _refused(
        self, held: _Open, after_s: float | None, theirs: dict[str, Any]
    ) -> None:
        """Settle a call that the provider has refused, as its caller says."""
        account, passed = held.account, held.passed
        wait_us = units.SECOND
        if after_s is not None and 0 <= after_s < _ABSURD_S:
            wait_us = units.micros(after_s)
        for_all_us = 0
        if account is not None:
            flow, now = held.caller.flow, self._gateway.now_us()
            for_all_us = self._hearsay.heard(
                flow, account.name, held.said.model, wait_us, now
            )
        if account is None or not for_all_us:
            passed.answered(None)  # it says nothing of what limits let in
            passed.settle(**theirs)
            return
        passed.refused(units.seconds(for_all_us), **theirs)
        account.crowd.disperse(all_of_them=False)  # others may serve them sooner

    def _taken_back(self, name: str) -> _Open | None:
        """Take a grant out of its holder's hands; None where nobody has it."""
        held = self._open.pop(name, None)
        if held is not None:
            held.timer.cancel()
            self.places.give(1, held.caller.flow)
        return held

    def _expire(self, name: str) -> None:
        held = self._taken_back(name)
        if held is not None:
            held.passed.release()
            self._note(held, {}, in_full=True)

    def _note(self, held: _Open, used: Mapping[str, int], *, in_full: bool) -> None:
        """Have the ledger note a call; `in_full`: what was not said is as was taken."""
        ledger, caller, said = self._gateway.ledger, held.caller, held.said
        ledger.soon()
        if in_full:
            took = {"requests": 1, **counted(said.take, said.take)}
            if not _TOKENS.isdisjoint(used):  # told in other units, it may be
                took = {unit: took[unit] for unit in took if unit not in _TOKENS}
            used = {**took, **used}
        if not used:
            return
        output = used.get("output_tokens", 0)
        rest = max(0, used.get("tokens", 0) - output)  # some count only the sum
        ledger.spent(
            caller.name,
            caller.team,
            said.provider,
            said.model,
            Usage(input_tokens=used.get("input_tokens", rest), output_tokens=output),
            {unit: nano for unit, nano in used.items() if unit in units.CURRENCIES},
            requests=used.get("requests", 1),
        )

    def close(self) -> None:
        """Count what is out as used."""
        for name in list(self._open):
            self._expire(name)


async def _answer(call: Call, answer: Mapping[str, object]) -> None:
    body = msgspec.json.encode(answer)
    headers = [_JSON, (b"content-length", b"%d" % len(body)), *call.own_headers()]
    await relay.whole(call, 200, headers, body)


def _costs(way: Way, take: Mapping[str, int | str]) -> list[int]:
    """Return what a call takes from each limit; what it leaves out it takes nothing of.

    Raises `Refused` where a limit counts what it does not state.
    """
    amounts = {"requests": 1, **_amounts("take", take, way.units)}
    missing = sorted(way.asked - {*amounts})
    if missing:
        raise Refused(
            Fault.BAD_REQUEST,
            f"a limit on the way counts {missing[0]}: say how much the call takes, as "
            f'{{"take": {{"{missing[0]}": …}}}}',
        )
    plain = Costs(charged=amounts, reserved=amounts)
    return way.costs(plain, plain, amounts)


def _check_model(model: str, caller: Caller) -> None:
    """Raise `Refused` for what is no model's name, or not allowed to the key."""
    if not model:
        return
    if not model.isprintable() or len(model) >= LONGEST_MODEL:
        raise Refused(Fault.BAD_REQUEST, "the request's model is no name")
    if not caller.may_use(model):
        raise Refused(Fault.FORBIDDEN, "this key may not use that model")


def _counts_slots(way: Way) -> bool:
    """Say whether a provider's limit on the way is one on calls at once."""
    rules = (rule for scope, _ in way.theirs for rule in scope.rules)
    return any(rule.limit.unit == CONCURRENT for rule in rules)


def _hold_us(hold: str) -> int:
    try:
        return min(duration_us(hold), _LONGEST_US)
    except ConfigError as error:
        raise Refused(Fault.BAD_REQUEST, f'"hold": {error}') from error


def _used(said: Mapping[str, int | str]) -> dict[str, int]:
    """Return what a call came to, where one can have come to that."""
    used = _amounts("used", said, frozenset())
    for unit in sorted(COUNTS & used.keys()):
        if used[unit] > _MOST_USED:
            why = f"expected a whole number, from 0 to {_MOST_USED}"
            raise Refused(Fault.BAD_REQUEST, f"used: {unit!r}: {why}")
    return used


def _amounts(
    member: str, said: Mapping[str, int | str], own: frozenset[str]
) -> dict[str, int]:
    """Return amounts as integers; raises `Refused` in the words of the JSON they are in.

    `own` are the units that limits on the way count.
    """
    amounts: dict[str, int] = {}
    for unit, amount in said.items():
        try:
            amounts |= counted({unit: amount}, own)
        except (ConfigError, TypeError) as error:
            if unit in units.CURRENCIES:
                why = 'expected a sum of money as text, such as "0.01"'
            elif unit in own or unit in COUNTS:
                why = f"expected a whole number, from 0 to {units.MAX_COST}"
            elif unit == CONCURRENT:
                why = "a grant takes one slot, for as long as its hold: leave it out"
            else:
                known = sorted({*own, *COUNTS})
                why = f"no limit on the way counts it{near(unit, known)}"
                why += f": known are {', '.join(known)}"
            at = f"{member}: {unit[:_LONGEST_UNIT]!r}"
            raise Refused(Fault.BAD_REQUEST, f"{at}: {why}") from error
    return amounts
