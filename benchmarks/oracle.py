"""Oracle: the most that first-come service can get out of an enforcer.

Clairvoyant: it knows the enforcer's state, so it sends each call at the very microsecond
at which it will be let in. First-come: no call is served before one that came earlier.
Nothing that keeps that order can be ahead of it at any moment.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from ratekeeper.simulator.enforcer import Admitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.workload import Call, Case


def serve(case: Case, calls: Sequence[Call], start_us: int) -> list[int]:
    """Return when each call is admitted, as far as the run goes.

    `start_us` is the instant the run starts at, for windows that are aligned to a clock.
    """
    enforcer = case.enforcer(start_us)
    open_calls: list[tuple[int, int, Admitted]] = []  # when it is settled; its number
    admitted: list[int] = []
    now = 0
    for number, call in enumerate(calls):
        now = max(now, call.arrives_us)
        while True:
            while open_calls and open_calls[0][0] <= now:
                at, which, handle = heapq.heappop(open_calls)
                used = {"tokens": calls[which].used}
                enforcer.settle(handle, used, start_us + at)
            wait = enforcer.wait_us(case.costs(call), start_us + now)
            if wait == 0 or wait is None:
                break
            now += wait
            if open_calls:  # a refund may let it in earlier
                now = min(now, open_calls[0][0])
        if wait is None:
            message = f"call {number} is larger than a limit: {call}"
            raise ValueError(message)
        if now >= case.until_us:
            break
        let_in = enforcer.admit(case.costs(call), start_us + now)
        if not isinstance(let_in, Admitted):
            message = "the enforcer refused a call it had said it would admit"
            raise TypeError(message)
        admitted.append(now)
        heapq.heappush(open_calls, (now + case.answer_us, number, let_in))
    return admitted
