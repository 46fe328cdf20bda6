"""Account: one provider account, its limits held, its calls judged and counted.

It decides which calls are admitted, refused or banned and what each of them counts. It
knows nothing of the wire; all keys of a simulator share it, as they do at a provider.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ratekeeper.errors import ConfigError
from ratekeeper.simulator.dialect import Call, Endpoint, Problem, Trouble
from ratekeeper.simulator.enforcer import Admitted, Refused
from ratekeeper.simulator.rules import SECOND_US
from ratekeeper.simulator.stats import Stats

if TYPE_CHECKING:
    import random

    from ratekeeper.runtime.clock import Clock
    from ratekeeper.simulator.bans import Bans
    from ratekeeper.simulator.cues import Cue
    from ratekeeper.simulator.dialect import Dialect, Headers, Reply
    from ratekeeper.simulator.enforcer import Enforcer

_HINT_US = SECOND_US  # of a 429 on cue that names no wait
_SERVER_FAULT = 500
_BRINGS_A_BAN = {Trouble.THROTTLED, Trouble.TOO_LARGE, Trouble.SLOW_DOWN}
_GIVES_NOTHING = {Endpoint.MODELS, Endpoint.COUNT_TOKENS}


class Account:
    """A provider account: every call passes here before it is answered, and after."""

    def __init__(
        self,
        dialect: Dialect,
        enforcer: Enforcer,
        bans: Bans,
        *,
        settles: bool,
        source: random.Random,
        clock: Clock,
    ) -> None:
        self.dialect = dialect
        self.enforcer = enforcer
        self.source = source
        self.now_us = clock.now_us
        self.stats = Stats(clock.now_us())
        self._bans = bans
        self._settles = settles
        known = {*dialect.units, "concurrent"}
        for rule in enforcer.rules:
            if rule.unit not in known:
                message = (
                    f"limit '{rule.name}': {dialect.name} does not count {rule.unit}; "
                    f"expected one of {', '.join(sorted(known))}"
                )
                raise ConfigError(message)

    def judge(self, call: Call, cue: Cue) -> Admitted | Problem:
        """Admit a call or say why not. A fault of 5xx counts it first, others do not."""
        now = self.now_us()
        banned_us = self._bans.wait_us(now)
        if banned_us:
            self.stats.banned += 1
            return self._in_vain(call, _banned(call, banned_us), now)
        if cue.trouble is not None and (cue.status or 0) < _SERVER_FAULT:
            return self._in_vain(call, self.on_cue(cue.trouble, cue, call), now)
        costs = self.dialect.costs(call)
        verdict = self.enforcer.admit(costs, now)
        if isinstance(verdict, Refused):
            self.stats.refused_by_limit[verdict.rule.name] += 1
            return self._in_vain(call, _refusal(call, verdict), now)
        if costs:
            self.stats.admit(now, costs.get("tokens", 0))
        self.stats.entered()
        return verdict

    def _in_vain(self, call: Call, problem: Problem, now: int) -> Problem:
        """Count a call that was sent for nothing, which may bring a ban."""
        self.stats.tokens_in_vain += call.input_tokens
        if problem.trouble in _BRINGS_A_BAN and self._bans.refused(now):
            self.stats.bans += 1
        return problem

    def generated(self, call: Call, admitted: Admitted, tokens: int) -> None:
        """Count output the moment it is generated, where this provider does."""
        if self.dialect.debits:
            self._settle(call, admitted, tokens)

    def answered(self, call: Call, admitted: Admitted, tokens: int, key: str) -> None:
        """True the limits up to what an answer (whole or cut) to a key has used."""
        self._settle(call, admitted, tokens)
        if call.endpoint not in _GIVES_NOTHING:
            self.stats.served(key, call.input_tokens, tokens)

    def _settle(self, call: Call, admitted: Admitted, tokens: int) -> None:
        if self._settles and admitted.costs:
            used = self.dialect.used(call, tokens)
            self.enforcer.settle(admitted, used, self.now_us())

    def left(self, admitted: Admitted) -> None:
        """End a call, however it went: its slot is free."""
        self.enforcer.release(admitted)
        self.stats.left()

    def on_cue(self, trouble: Trouble, cue: Cue, call: Call) -> Problem:
        """Write the problem that a cue asks for; a 429 names the first limit."""
        wait_us = cue.retry_after_us
        if wait_us is None and trouble in {Trouble.THROTTLED, Trouble.SLOW_DOWN}:
            wait_us = _HINT_US
        refused = None
        if trouble is Trouble.THROTTLED:
            rule = self.enforcer.rules[0]
            refused = Refused(
                rule=rule, wait_us=wait_us, never=False, requested=1, used=rule.amount
            )
        return Problem(
            trouble=trouble,
            status=cue.status,
            model=call.model,
            refused=refused,
            wait_us=wait_us,
        )

    def limit_headers(self, cue: Cue) -> Headers:
        """Write how the limits stand now, unless the cue leaves that out."""
        if cue.no_headers:
            return []
        now = self.now_us()
        return self.dialect.limit_headers(self.enforcer.standing(now), now)

    def failure(self, problem: Problem, cue: Cue, request_id: str) -> Reply:
        """Write the response for a call that fails."""
        now = self.now_us()
        problem = dataclasses.replace(problem, request_id=request_id, now_us=now)
        if not cue.no_headers:
            return self.dialect.failure(problem, self.enforcer.standing(now), now)
        problem = dataclasses.replace(problem, wait_us=None)
        return self.dialect.failure(problem, [], now)


def _refusal(call: Call, refused: Refused) -> Problem:
    return Problem(
        trouble=Trouble.TOO_LARGE if refused.never else Trouble.THROTTLED,
        model=call.model,
        refused=refused,
        wait_us=refused.wait_us,
    )


def _banned(call: Call, wait_us: int) -> Problem:
    return Problem(trouble=Trouble.BANNED, model=call.model, wait_us=wait_us)
