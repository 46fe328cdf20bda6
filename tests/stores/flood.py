"""An attacker's flood of keys against a bounded store, with its figures.

`python -m tests.stores.flood` plays the whole of it: ten million keys, a bound of one
million. The tests play a hundredth.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

from ratekeeper import Grant, Limiter, MemoryStore, StoreUnavailable
from ratekeeper.testing import ManualClock

SPENT = 100  # keys that are over their limit when the flood comes
PAUSE_EVERY = 1000  # newcomers a second of the store's time


def flood(keys: int, bound: int) -> dict[str, float]:
    """Send each of so many keys once; every so often ask again for a spent one."""
    clock = ManualClock()
    store = MemoryStore(clock=clock, max_keys=bound)
    limiter = Limiter("10 requests/day", "1000 tokens/day", store=store)
    for at in range(SPENT):
        for _ in range(10):
            limiter.acquire(key=f"spent-{at}", tokens=0)
    begin = time.perf_counter()
    base_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    forgiven = refused = 0
    for at in range(keys):
        try:
            limiter.try_acquire(key=f"attacker-{at}", tokens=1)
        except StoreUnavailable:
            refused += 1
        if at % PAUSE_EVERY == 0:
            clock.advance(us=1)
            again = limiter.try_acquire(key=f"spent-{at // 1000 % SPENT}", tokens=0)
            forgiven += isinstance(again, Grant)
    forgiven += sum(
        isinstance(limiter.try_acquire(key=f"spent-{at}", tokens=0), Grant)
        for at in range(SPENT)
    )
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "keys": keys,
        "bound": bound,
        "kept": len(store._keys.kept),
        "forgiven": forgiven,
        "refused": refused,
        "rss_mb": round(peak_kb / 1024),
        "bytes_a_key": round((peak_kb - base_kb) * 1024 / bound),
        "us_a_key": round((time.perf_counter() - begin) / keys * 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--bound", type=int, default=1_000_000)
    args = parser.parse_args()
    json.dump(flood(args.keys, args.bound), sys.stdout)


if __name__ == "__main__":
    main()
