"""The desk: grants for programs that keep an HTTP client of their own.

`POST /v1/ratekeeper/acquire` takes what a call would take from the limits of the key,
its team and, where a provider is named, of one of its accounts; `…/settle` says what it
came to. A grant that nobody settles counts as used in full when its hold is over. It
sends nothing to a provider, and never tells the key of an account.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from typing import TYPE_CHECKING

import msgspec

from ratekeeper.config.findings import near
from ratekeeper.config.times import duration_us
from ratekeeper.core import units
from ratekeeper.core.limits import CONCURRENT
from ratekeeper.core.policy import COUNTS, counted
from ratekeeper.errors import ConfigError
from ratekeeper.gateway import relay, upstream
from ratekeeper.gateway.admit import Way
from ratekeeper.gateway.refused import Refused
from ratekeeper.gateway.reply import Fault
from ratekeeper.providers.facts import Costs, Usage

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
_MOST_OPEN = 10_000  # grants at once
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
    caller: Caller
    account: Account | None
    said: Acquire
    timer: asyncio.TimerHandle


class Desk:
    """The grants that are out."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._open: dict[str, _Open] = {}

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
        caller = call.caller
        assert caller is not None
        hold_us = _hold_us(said.hold)
        if said.model and not caller.may_use(said.model):
            raise Refused(Fault.FORBIDDEN, "this key may not use that model")
        if len(self._open) >= _MOST_OPEN:
            raise Refused(Fault.UNAVAILABLE, f"{_MOST_OPEN} grants are out already")
        account = self._account(said) if said.provider else None
        way = Way(caller.targets, account.targets(said.model) if account else ())
        costs = _costs(way, said.take)
        deadline_us = call.arrived_us + call.patience_us()
        passed = await call.admitted(way, costs, deadline_us)
        name = f"grant_{secrets.token_urlsafe(18)}"
        loop = asyncio.get_running_loop()
        timer = loop.call_later(hold_us / 1e6, self._expire, name)
        self._open[name] = _Open(passed, caller, account, said, timer)
        answer = {
            "grant": name,
            "account": None if account is None else account.name,
            "waited_ms": -(-call.waited_us // 1000),
            "expires_in_s": hold_us / 1e6,
        }
        try:
            await _answer(call, answer)
        except BaseException:  # nobody knows of it
            self._open.pop(name)
            timer.cancel()
            passed.cancel()
            raise

    def _account(self, said: Acquire) -> Account:
        """Return the account with most headroom of the provider that is named."""
        found = self._gateway.roster.upstreams.get(said.provider)
        if found is None or not found.accounts:
            msg = f"no provider {said.provider[:40]!r} is configured here"
            raise Refused(Fault.NOT_FOUND, msg)
        able, wait_us = upstream.open_ones(found.accounts, self._gateway.now_us())
        if not able:
            msg = "no account of this provider takes calls at the moment"
            raise Refused(Fault.UNAVAILABLE, msg, retry_after_us=wait_us)

        def room(account: Account) -> tuple[int, float]:
            way = Way((), account.targets(said.model))
            return self._gateway.store.room(way.targets, _costs(way, said.take))

        return able[0] if len(able) == 1 else min(able, key=room)

    def _settle(self, call: Call, said: Settle) -> dict[str, object]:
        caller, held = call.caller, self._open.get(said.grant)
        assert caller is not None
        if held is None or held.caller.flow != caller.flow:
            raise Refused(Fault.NOT_FOUND, "no such grant is open: it has been settled")
        used = _amounts("used", said.used, frozenset())
        del self._open[said.grant]
        held.timer.cancel()
        amounts = {
            unit: units.Nano(amount) if unit in units.CURRENCIES else amount
            for unit, amount in used.items()
        }
        if said.refused:
            held.passed.refused(said.retry_after_s, **amounts)  # type: ignore[arg-type]  # units alone
            if held.account is not None:
                held.account.crowd.disperse(all_of_them=False)
        else:
            held.passed.settle(**amounts)
        self._note(held, used, in_full=not said.refused)
        return {"settled": True}

    def _expire(self, name: str) -> None:
        held = self._open.pop(name, None)
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
            held = self._open[name]
            held.timer.cancel()
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
    missing = sorted(way.units - {*amounts})
    if missing:
        raise Refused(
            Fault.BAD_REQUEST,
            f"a limit on the way counts {missing[0]}: say how much the call takes, as "
            f'{{"take": {{"{missing[0]}": …}}}}',
        )
    plain = Costs(charged=amounts, reserved=amounts)
    return way.costs(plain, plain, amounts)


def _hold_us(hold: str) -> int:
    try:
        return min(duration_us(hold), _LONGEST_US)
    except ConfigError as error:
        raise Refused(Fault.BAD_REQUEST, f'"hold": {error}') from error


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
