"""Lessons: usage in answers corrects the estimates of the calls that follow.

Whoever shares a store shares its lessons, in this process: all doors, clients, threads
and event loops. They live no longer than the store and are never written down, so a
process begins with the margins. The lock is here: reading takes none; a lesson that
would have to wait for another is dropped, as a settlement may run in the garbage
collector, at any line of any thread.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from ratekeeper.providers.calibration import Calibrator, Stream

if TYPE_CHECKING:
    from ratekeeper.providers.facts import Estimate, RequestFacts, Usage

# Of the frame that estimates put around messages, 7 tokens each, what even the leanest
# has: OpenAI's 3.
_FRAME, _OF = 3, 7
_LONGEST_ROUTE = 200


class Lessons:
    """What has been learned of the calls through one store."""

    def __init__(self) -> None:
        self._calibrator = Calibrator()
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return len(self._calibrator)

    def corrected(
        self, provider: str, facts: RequestFacts, key: object
    ) -> RequestFacts:
        """Return the facts with the figures that calls like this one came to."""
        estimate, changes = facts.estimate, dict[str, Any]()
        if estimate is None:
            return facts
        ratio = self._calibrator.bound(
            _stream(provider, estimate, key), estimate.margin
        )
        if ratio is not None:
            changes["input_tokens"] = estimate.upper(ratio)
        if facts.max_output is None:
            changes["likely_output"] = self._calibrator.output(
                _outputs(provider, facts, key)
            )
        return facts._replace(**changes) if changes else facts

    def learn(
        self, provider: str, facts: RequestFacts, key: object, usage: Usage
    ) -> None:
        """Learn from a good answer with its usage, cached input and all."""
        if facts.estimate is None or not self._guard.acquire(blocking=False):
            return
        try:
            self._learn_input(provider, facts, facts.estimate, key, usage)
            if facts.max_output is None:
                each = -(-usage.output_tokens // facts.choices)
                self._calibrator.learn_output(_outputs(provider, facts, key), each)
        finally:
            self._guard.release()

    def _learn_input(
        self,
        provider: str,
        facts: RequestFacts,
        estimate: Estimate,
        key: object,
        usage: Usage,
    ) -> None:
        counted = usage.input_tokens
        if estimate.parts or estimate.text < estimate.frame:
            return  # mostly not text: says little about it
        if counted == facts.input_tokens:
            return  # a report without its input is completed by the estimate
        counted -= estimate.frame * _FRAME // _OF
        self._calibrator.learn(_stream(provider, estimate, key), estimate.text, counted)

    def unlock(self) -> None:
        """Begin with a lock of its own: in a forked child another thread's is stuck."""
        self._guard = threading.Lock()


def _stream(provider: str, estimate: Estimate, key: object) -> Stream:
    return Stream(provider, estimate.family, _route(key), estimate.script)


def _outputs(provider: str, facts: RequestFacts, key: object) -> Stream:
    return Stream(provider, facts.model, _route(key))


def _route(key: object) -> str:
    return key[:_LONGEST_ROUTE] if isinstance(key, str) else ""


_OF_STORES: weakref.WeakKeyDictionary[object, Lessons] = weakref.WeakKeyDictionary()
_MAKING = threading.Lock()


def lessons_of(store: object) -> Lessons:
    """Return the lessons of everything that shares a store."""
    with _MAKING:
        found = _OF_STORES.get(store)
        if found is None:
            found = _OF_STORES[store] = Lessons()
        return found


def _after_fork() -> None:
    global _MAKING  # noqa: PLW0603 - another thread may have held it
    _MAKING = threading.Lock()
    for lessons in list(_OF_STORES.values()):
        lessons.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
