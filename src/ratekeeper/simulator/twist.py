"""Twist: how a provider that speaks OpenAI's shapes differs from OpenAI, as data.

A provider of this kind is one entry of `twists.py`: its paths, the limits it usually
has, what it says of them and how it words its errors. Nothing here knows one by name.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING, Any

from ratekeeper.simulator.dialect import (
    Call,
    Endpoint,
    Headers,
    Problem,
    Trouble,
    whole_seconds,
)
from ratekeeper.simulator.openai import OpenAI, data, usage_of
from ratekeeper.simulator.openai_wordings import WORDINGS, Wording

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ratekeeper.simulator.dialect import Answer
    from ratekeeper.simulator.enforcer import Refused, Standing

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_BEIJING = datetime.timezone(datetime.timedelta(hours=8))
_NAMES = ("message", "type", "param", "code")  # of an error, as OpenAI has them
_PERIODS = {1: "Second", 60: "Minute", 3600: "Hour", 86_400: "Day"}
_UNKNOWN_WAIT = "1"  # seconds, of a slot that nobody knows when it will be free


def no_headers(standing: Sequence[Standing], now: int) -> Headers:  # noqa: ARG001 - it tells nothing
    """Write nothing."""
    return []


def no_hint(problem: Problem) -> Headers:  # noqa: ARG001 - it tells nothing
    """Write nothing."""
    return []


def retry_after(problem: Problem) -> Headers:
    """Write how long to wait, where that is known."""
    if problem.wait_us is None:
        return []
    return [("retry-after", whole_seconds(problem.wait_us))]


def plain_envelope(error: dict[str, Any], problem: Problem) -> dict[str, Any]:  # noqa: ARG001 - all is in the error
    """Write the body around an error."""
    return {"error": {name: error[name] for name in _NAMES}}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How it is told that a limit is reached.

    For limits of this unit ("" is any) whose window is at least so long. In the text
    {model}, {limit}, {used}, {requested}, {wait} (seconds), {Unit}, {short} (RPM),
    {period}, {span} (hours) and {moment} (in Beijing) stand for what they say.
    """

    text: str
    type: str = ""
    code: str | None = None
    status: int = 429
    unit: str = ""
    window_us: int = 0

    def fits(self, refused: Refused) -> bool:
        """Say whether this is the way to tell it."""
        rule = refused.rule
        return self.unit in {"", rule.unit} and rule.window_us >= self.window_us


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Twist:
    """What is different about one provider; what is left out is as with OpenAI.

    `reserves` says that max_tokens counts at admission. `shows` writes the limits into
    every answer, `hints` the wait into a refusal. `ends_with` are fields that stand
    beside an error inside a stream.
    """

    name: str
    base_path: str
    key_variable: str
    usual_limits: Sequence[str]
    reached: Sequence[Reached]
    units: Sequence[str] = ("requests", "tokens")
    reserves: bool = False
    refunded: Sequence[str] = ()
    wordings: Mapping[Trouble, Wording] = dataclasses.field(default_factory=dict)
    shows: Callable[[Sequence[Standing], int], Headers] = no_headers
    hints: Callable[[Problem], Headers] = no_hint
    envelope: Callable[[dict[str, Any], Problem], dict[str, Any]] = plain_envelope
    ends_with: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    usage_at_end: bool = False
    usage_in_choice: bool = False


class Twisted(OpenAI):
    """A provider that is OpenAI with a twist."""

    settles = True

    def __init__(self, twist: Twist) -> None:
        self.name = twist.name
        self.base_path = twist.base_path
        self.key_variable = twist.key_variable
        self.units = twist.units
        self.usual_limits = twist.usual_limits
        self.refunded = twist.refunded
        self.wordings = {**WORDINGS, **twist.wordings}
        self.usage_at_end = twist.usage_at_end
        self.usage_in_choice = twist.usage_in_choice
        self._twist = twist

    def route(self, method: str, path: str) -> Endpoint | None:
        """Tell what a path does, with or without the base path."""
        return super().route(method, path.removeprefix(self.base_path))

    def costs(self, call: Call) -> dict[str, int]:
        """Take one request and the estimated input; max_tokens where it is reserved."""
        if call.endpoint is Endpoint.MODELS:
            return {}
        most = (call.max_output or 0) * call.choices if self._twist.reserves else 0
        return {
            "requests": 1,
            "tokens": call.estimate + most,
            "input_tokens": call.estimate,
            "output_tokens": most,
        }

    def used(self, call: Call, output_tokens: int) -> dict[str, int]:
        """Count every token, in and out."""
        return {
            "tokens": call.input_tokens + output_tokens,
            "input_tokens": call.input_tokens,
            "output_tokens": output_tokens,
        }

    def limit_headers(self, standing: Sequence[Standing], now: int) -> Headers:
        """Write what this provider tells of its limits."""
        return self._twist.shows(standing, now)

    def hint_headers(self, problem: Problem) -> Headers:
        """Write how long to wait, where this provider does."""
        return self._twist.hints(problem)

    def closing(self, call: Call, answer: Answer) -> dict[str, Any]:
        """Tell the usage in the chunk that ends a stream."""
        return {"usage": usage_of(call, answer)}

    def status(self, problem: Problem) -> int:
        """Return the status of an error."""
        reached = self._reached(problem)
        if problem.status is None and reached is not None:
            return reached.status
        return super().status(problem)

    def throttled(self, problem: Problem, refused: Refused) -> dict[str, Any]:
        """Say which limit is reached, as this provider does."""
        reached = self._reached(problem)
        if reached is None:
            return super().throttled(problem, refused)
        return {
            "message": reached.text.format_map(_said(problem, refused)),
            "type": reached.type,
            "param": None,
            "code": reached.code,
        }

    def envelope(self, error: dict[str, Any], problem: Problem) -> dict[str, Any]:
        """Write the body around an error."""
        return self._twist.envelope(error | {"status": self.status(problem)}, problem)

    def stream_error(self, call: Call, problem: Problem) -> bytes:
        """Write an error into a stream that has begun with 200."""
        if call.endpoint is Endpoint.RESPONSES or not self._twist.ends_with:
            return super().stream_error(call, problem)
        body = self.envelope(self.error(problem), problem)
        return data({**body, **self._twist.ends_with})

    def _reached(self, problem: Problem) -> Reached | None:
        """Find how to tell a refusal; None for one that is none, or for ever."""
        refused = problem.refused
        if refused is None or refused.never:
            return None
        return next((one for one in self._twist.reached if one.fits(refused)), None)


def _said(problem: Problem, refused: Refused) -> dict[str, object]:
    rule = refused.rule
    seconds = rule.window_us // 1_000_000
    wait_us = problem.wait_us or 0
    moment = _EPOCH + datetime.timedelta(microseconds=problem.now_us + wait_us)
    period = _PERIODS.get(seconds, f"{seconds} Seconds")
    return {
        "model": problem.model,
        "limit": rule.amount,
        "used": refused.used,
        "requested": refused.requested,
        "wait": _UNKNOWN_WAIT if problem.wait_us is None else whole_seconds(wait_us),
        "Unit": rule.unit.capitalize(),
        "short": f"{rule.unit[:1].upper()}P{period[:1]}",
        "period": period,
        "span": seconds // 3600,
        "moment": moment.astimezone(_BEIJING).strftime("%Y-%m-%d %H:%M:%S"),
    }
