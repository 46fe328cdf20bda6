"""One attempt: what an account's answer says about limits, tokens and money.

It reads the answer as it passes and settles the pass once, by whichever ending comes
first. It sends nothing and decides nothing about other attempts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ratekeeper.client.cashier import cost, held, nothing, partly
from ratekeeper.client.decode import decode_head, decoder
from ratekeeper.core import units
from ratekeeper.gateway.intake import read_json
from ratekeeper.providers import counting
from ratekeeper.providers.facts import Counting, Kind, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ratekeeper.client.cashier import Bill
    from ratekeeper.client.decode import Decoder
    from ratekeeper.core.reading import Reading
    from ratekeeper.gateway.admit import Pass, Way
    from ratekeeper.gateway.upstream import Account
    from ratekeeper.providers.facts import Meter, RequestFacts, Verdict

_PAUSES = frozenset([Kind.THROTTLED, Kind.RAMP, Kind.STOPPED])
_UNSURE = frozenset([Kind.OVERLOADED, Kind.TRANSIENT])  # it may have cost something
_TOKENS = ("tokens", "input_tokens", "output_tokens")
_THROTTLED = 429


class Offer(NamedTuple):
    """What an attempt through one account asks for, and how it is paid for."""

    account: Account
    model: str  # as the account knows it
    facts: RequestFacts
    bill: Mapping[str, Bill]  # by currency
    whose: str  # lessons about how its caller writes
    way: Way
    costs: list[int]


class Trial:
    """A granted attempt on its way; every way to end it may be called at any time."""

    __slots__ = (
        "_answered_us",
        "_decode",
        "_meter",
        "_offer",
        "_pass",
        "account",
        "cost",
        "usage",
    )

    def __init__(self, offer: Offer, passed: Pass) -> None:
        self.account = offer.account
        self._offer = offer
        self._pass = passed
        self._meter: Meter | None = None
        self._decode: Decoder | None = None
        self._answered_us = 0
        # Once it is settled, as told, as estimated, or as held; None where it was free.
        self.usage: Usage | None = None
        self.cost: Mapping[str, int] = {}  # in billionths, by currency

    @property
    def facts(self) -> RequestFacts:
        """What was asked for."""
        return self._offer.facts

    def unsent(self) -> None:
        """Give all back: the provider never heard of it."""
        if self._pass.is_open:
            self._pass.cancel()

    def unanswered(self) -> None:
        """Count it in full: it was sent, and nobody knows what became of it."""
        if self._pass.is_open:
            self._count_held()
            self._pass.release()

    def answered(self, fields: Mapping[str, str]) -> None:
        """Take in the headers of a good answer and make ready for its body."""
        account = self.account
        now = self._answered_us = account.now_us()
        self._pass.answered(self._offer.way.readings(account.provider, fields, now))
        kind = fields.get("content-type", "")
        self._meter = account.provider.meter(self._offer.facts, kind, read_json)
        self._decode = decoder(fields.get("content-encoding", ""))

    def feed(self, data: bytes) -> None:
        """Look at bytes of a good answer as they pass."""
        if self._meter is not None and self._decode is not None:
            for plain in self._decode(data):
                self._meter.feed(plain)

    def judge(self, status: int, fields: Mapping[str, str], body: bytes) -> Verdict:
        """Read an error answer; what becomes of the pass is for `turned_away`."""
        text = decode_head(fields.get("content-encoding", ""), body)
        now_us = self.account.now_us()
        return self.account.provider.judge(status, fields, text, now_us)

    def turned_away(
        self,
        verdict: Verdict,
        status: int,
        fields: Mapping[str, str],
        *,
        again: bool,
    ) -> None:
        """Settle a call by its error; `again` says that it goes on elsewhere."""
        if not self._pass.is_open:
            return
        readings = self.account.provider.readings(fields, self.account.now_us())
        theirs: dict[str, int] = {}
        if verdict.kind not in _UNSURE:
            theirs = {**dict.fromkeys(_TOKENS, 0), **nothing(self._offer.bill)}
        elif status == _THROTTLED:
            theirs = nothing(self._offer.bill)
        else:
            self._count_held()
        ours = dict(theirs)
        if verdict.kind is Kind.OVERLOADED:
            ours.update(dict.fromkeys(_TOKENS, 0))
        if again:
            ours["requests"] = 0
        self._pass.ours = ours
        self._told(verdict, theirs, readings)

    def _told(
        self, verdict: Verdict, theirs: dict[str, int], readings: Sequence[Reading]
    ) -> None:
        """Settle by a verdict; one that speaks of a limit pauses it for everyone."""
        if verdict.kind not in _PAUSES:
            self._pass.answered(readings or None)
            self._pass.settle(**theirs)
            return
        self._pass.is_of_model = verdict.of_model
        hint_us, window_us = verdict.retry_after_us, verdict.window_us
        self._pass.refused(
            None if hint_us is None else units.seconds(hint_us),
            unit=verdict.unit,
            window_s=None if window_us is None else units.seconds(window_us),
            readings=readings,
            ramp=verdict.kind is Kind.RAMP,
            **theirs,
        )
        self.account.crowd.disperse(all_of_them=False)  # others may serve them sooner

    def _count_held(self) -> None:
        """Take what is held for what it came to, as the limits do."""
        facts = self._offer.facts
        most = counting.costs(Counting.SUM, facts).reserved
        self.cost = held(self._offer.bill, facts)
        if most["tokens"] or self.cost:
            put, out = most["input_tokens"], most["output_tokens"]
            self.usage = Usage(input_tokens=put, output_tokens=out)

    def end(self, *, again: bool = False) -> dict[str, int]:
        """Settle by what the answer said, or by what flowed of it; return its cost.

        `again` says that its caller is not answered yet, and asked but once.
        """
        if not self._pass.is_open:
            return {}
        meter, provider, facts = self._meter, self.account.provider, self._offer.facts
        if meter is None:
            self.unanswered()
            return {}
        usage, failure = meter.usage(), meter.failure(self._answered_us)
        if usage is None:
            flowed = meter.flowed()
            paid = partly(self._offer.bill, facts, flowed)
            theirs = provider.partial(facts, flowed)
            ours = counting.partial(Counting.SUM, facts, flowed)
            self._count_held()
            self.cost = {**self.cost, **paid}
            if ours.get("tokens"):
                put, out = ours["input_tokens"], ours["output_tokens"]
                self.usage = Usage(input_tokens=put, output_tokens=out)
        else:
            paid = cost(self._offer.bill, usage)
            theirs = provider.charged(facts, usage)
            ours = counting.charged(Counting.SUM, facts, usage, cached_free=False)
            self.usage, self.cost = usage, paid
        self._pass.ours = {**ours, **paid, **({"requests": 0} if again else {})}
        if failure is not None:
            self._told(failure, {**theirs, **paid}, ())
            return paid
        if usage is not None:
            self.account.lessons.learn(provider.name, facts, self._offer.whose, usage)
        self._pass.settle(**theirs, **paid)
        return paid
