"""Observers: what happened at the gateway, told to whoever listens.

An observer is told names, figures and reasons: never a secret, a prompt or a body, and
of what callers write only a model's name, which is cut short and escaped. It decides
nothing, and what it is told holds up nobody.
Refusals are counted and told once a minute, however many there are.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Mapping  # noqa: TC003 - msgspec reads it
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ratekeeper.core import units
from ratekeeper.gateway.reply import Fault

if TYPE_CHECKING:
    from collections.abc import Callable


_log = logging.getLogger("ratekeeper.gateway")

_MINUTE = units.MINUTE
_MOST_KINDS = 1000  # of refusals told apart in a minute; names are the operator's
_MOST_TOLD = 10  # of them in one line, the most frequent first
_LONGEST = 80  # characters of a name: a model's may be anything
_PLAIN = re.compile(r"[A-Za-z0-9._:/@+$%*-]+", re.ASCII)


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """One request that is over.

    `status` is 0 where the caller had gone before there was one; `fault` and `limit`
    say why the gateway itself refused, None and "" where it did not. `cost_nano` is by
    currency, in billionths. Tokens are None where no answer told them.
    """

    request_id: str
    status: int
    kind: str = ""  # of the path: chat, files, …
    key: str = ""
    team: str = ""
    provider: str = ""
    account: str = ""
    model: str = ""
    fault: Fault | None = None
    limit: str = ""
    waited_us: int = 0
    first_byte_us: int | None = None
    took_us: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_nano: Mapping[str, int] = {}
    attempts: int = 0


class Observer:
    """Listens to a gateway, and does nothing: what it does not want it leaves out."""

    @property
    def hears_all(self) -> bool:
        """Whether it wants to hear of requests that went well."""
        return False

    def done(self, done: Done) -> None:
        """Hear of a request that is over, however it ended."""

    def shadowed(self, key: str, limit: str) -> None:
        """Hear of a call that a watched limit would have refused."""

    def set_aside(self, account: str, reason: str, for_us: int) -> None:
        """Hear that an account gets no calls for so long."""

    def back(self, account: str) -> None:
        """Hear that an account gets calls again."""

    def reloaded(self) -> None:
        """Hear that another config is in force."""

    def tick(self) -> None:
        """Do what is due; called about twice a second."""

    def close(self) -> None:
        """Tell what has not been told yet."""


_OF_PROVIDERS = frozenset([Fault.UNREACHABLE, Fault.LATE])  # whose trouble it is
_SHADOW = "shadow"  # in the place of a fault


class Refusals(NamedTuple):
    """Refusals of one kind: whose, why, and by which limit or provider."""

    key: str
    why: str
    limit: str
    provider: str = ""


class Tally:
    """Counts refusals by kind, for as long as a minute, in bounded room."""

    __slots__ = ("_counts", "_others", "_since_us")

    def __init__(self) -> None:
        self._counts: Counter[Refusals] = Counter()
        self._others = 0
        self._since_us = 0

    def note(self, kind: Refusals, now_us: int) -> None:
        """Count one more."""
        if not self._counts:
            self._since_us = now_us
        if kind in self._counts or len(self._counts) < _MOST_KINDS:
            self._counts[kind] += 1
        else:
            self._others += 1

    def is_due(self, now_us: int) -> bool:
        """Say whether the first of them is a minute old."""
        return bool(self._counts) and now_us - self._since_us >= _MINUTE

    def take(self, now_us: int) -> dict[str, object] | None:
        """Return what was counted, and start anew; None where there was nothing."""
        if not self._counts:
            return None
        most = self._counts.most_common(_MOST_TOLD)
        total = self._counts.total() + self._others
        shadow = sum(n for kind, n in self._counts.items() if kind.why == _SHADOW)
        said: dict[str, object] = {
            "refused": total - shadow,
            "shadow": shadow,
            "seconds": -(-(now_us - self._since_us) // units.SECOND),
            "by": [{**_said(kind), "calls": n} for kind, n in most],
            "others": total - sum(n for _, n in most),
        }
        self._counts.clear()
        self._others = 0
        return {name: value for name, value in said.items() if value}


class Log(Observer):
    """Tells the log: a line a minute of refusals, and of each request if asked to.

    Lines are `key=value`, or JSON with `as_json`. Requests are told at INFO where
    `requests` says so, at DEBUG otherwise.
    """

    def __init__(
        self,
        now_us: Callable[[], int],
        *,
        requests: bool = False,
        as_json: bool = False,
    ) -> None:
        self._now_us = now_us
        self._level = logging.INFO if requests else logging.DEBUG
        self._as_json = as_json
        self._tally = Tally()

    @property
    def hears_all(self) -> bool:
        """Whether requests are told that went well."""
        return _log.isEnabledFor(self._level)

    def done(self, done: Done) -> None:
        """Count a refusal, and tell of the request where requests are told."""
        if done.fault is not None:
            provider = done.provider if done.fault in _OF_PROVIDERS else ""
            kind = Refusals(done.key, done.fault.value, done.limit, provider)
            self._tally.note(kind, self._now_us())
        if _log.isEnabledFor(self._level):
            self._tell(self._level, "request", _of(done))

    def shadowed(self, key: str, limit: str) -> None:
        """Count a call that would have been refused."""
        self._tally.note(Refusals(key, _SHADOW, limit), self._now_us())

    def set_aside(self, account: str, reason: str, for_us: int) -> None:
        """Tell that an account gets no calls."""
        fields = {"account": account, "reason": reason}
        for_s = _rounded(for_us, units.SECOND)
        self._tell(logging.WARNING, "set_aside", {**fields, "seconds": for_s})

    def back(self, account: str) -> None:
        """Tell that an account gets calls again."""
        self._tell(logging.INFO, "back", {"account": account})

    def tick(self) -> None:
        """Sum up the refusals of a minute, once it is over."""
        if self._tally.is_due(self._now_us()):
            self.close()

    def close(self) -> None:
        """Sum up the refusals that have not been told yet."""
        said = self._tally.take(self._now_us())
        if said is not None:
            self._tell(logging.INFO, "refusals", said)

    def _tell(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        fields = _named(fields)
        if self._as_json:
            line = json.dumps({"event": event, **fields})
        else:
            words = (f"{name}={_printed(value)}" for name, value in fields.items())
            line = " ".join([event, *words])
        _log.log(level, "%s", line)


def _of(done: Done) -> dict[str, object]:
    """Return what is known of a request, in the order it is read."""
    first_us = done.first_byte_us
    fields: dict[str, object] = {
        "id": done.request_id,
        "key": done.key,
        "team": done.team,
        "kind": done.kind,
        "model": done.model,
        "provider": done.provider,
        "account": done.account,
        "status": done.status,
        "fault": None if done.fault is None else done.fault.value,
        "limit": done.limit,
        "attempts": done.attempts,
        "waited_ms": _rounded(done.waited_us, 1000),
        "first_byte_ms": None if first_us is None else _rounded(first_us, 1000),
        "took_ms": _rounded(done.took_us, 1000),
        "input_tokens": done.input_tokens,
        "output_tokens": done.output_tokens,
        "cost": ", ".join(
            f"{units.format_money(nano)} {currency}"
            for currency, nano in done.cost_nano.items()
        ),
    }
    return {name: value for name, value in fields.items() if value not in {None, ""}}


def _said(kind: Refusals) -> dict[str, object]:
    """Return what is known of a kind of refusals."""
    return {name: value for name, value in _named(kind._asdict()).items() if value}


def _rounded(us: int, unit_us: int) -> int:
    return -(-us // unit_us)


def _named(fields: Mapping[str, object]) -> dict[str, object]:
    """Return the fields with their texts cut to a sensible length."""
    return {
        name: value[:_LONGEST] if isinstance(value, str) else value
        for name, value in fields.items()
    }


def _printed(value: object) -> str:
    """Print a value on one line, quoted and escaped unless it is a plain word."""
    if isinstance(value, list):
        text = "; ".join(" ".join(str(x) for x in one.values() if x) for one in value)
    else:
        text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
