"""Callers refused together come back when their answers said, and are let through."""

from __future__ import annotations

import heapq
import random
from pathlib import Path

from ratekeeper.testing import ManualClock
from ratekeeper.testing.clock import EPOCH
from tests.gateway import gates

MANY = 200
WITHIN_US = 1_000_000  # they come, one by one
LATE_US = 60_000  # and back, at most so much after they were told


def test_all_who_come_back_a_little_after_they_were_told_are_let_through(
    tmp_path: Path,
) -> None:
    draw, clock = random.Random(2), ManualClock()
    keys = [gates.client_key(limits=["60 rpm"], max_wait="0s")]
    due = [(EPOCH + at * WITHIN_US // MANY, at) for at in range(MANY)]
    asked = dict.fromkeys(range(MANY), 0)
    with gates.behind() as upstream:
        config = gates.config(tmp_path, {"openai": gates.account(upstream.url)}, keys)
        with gates.gate(config, clock=clock) as it, it.client() as client:
            while due:
                at_us, caller = heapq.heappop(due)
                clock.advance(us=at_us - clock.now_us())
                asked[caller] += 1
                reply = it.chat(client)
                if reply.status_code == 429:
                    told_us = int(reply.headers["retry-after-ms"]) * 1000
                    back_us = at_us + told_us + draw.randint(0, LATE_US)
                    heapq.heappush(due, (back_us, caller))
            took_us = clock.now_us() - EPOCH

    assert [1] * 60 + [2] * 140 == [asked[caller] for caller in range(MANY)]
    assert MANY == upstream.requests
    assert took_us < 182 * 1_000_000  # three windows, and what each may be late
