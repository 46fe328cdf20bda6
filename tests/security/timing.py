"""Does the time a wrong secret takes tell how wrong it is? Welch's t, as in dudect.

`python -m tests.security.timing` takes a million samples of secrets that nobody has,
beside as many that differ from a key by one character, in random order, and fails where
|t| is 4.5 or more. How far keys themselves are from either is printed and not judged:
who is let in is told so by the answer.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import random
import statistics
import string
import sys
import time
from collections.abc import Callable, Sequence

from ratekeeper.gateway.keys import Hasher, KeyBook, KeyRecord, new_secret

MOST_T = 4.5
SAMPLES = 1_000_000
_KEYS = 1000
_BLOCK = 10_000  # samples of each kind that are made before they are timed
_KEPT = 0.95  # of all samples, the fastest: the rest is the machine's own doing

_LETTERS = string.ascii_letters + string.digits + "-_"
_PREFIX = 3  # characters that all keys begin with

Kind = Callable[[str, random.Random], str]  # makes a secret out of a key
Find = Callable[[str], object]
Finder = Callable[[Sequence[str]], Find]  # makes a way to find keys


def unknown(key: str, rng: random.Random) -> str:
    """Return a secret that has nothing of a key."""
    return key[:_PREFIX] + "".join(rng.choices(_LETTERS, k=len(key) - _PREFIX))


def near(key: str, rng: random.Random) -> str:
    """Return a key with one other character, anywhere after its prefix."""
    at = rng.randrange(_PREFIX, len(key))
    return key[:at] + rng.choice(_LETTERS.replace(key[at], "")) + key[at + 1 :]


def known(key: str, rng: random.Random) -> str:
    """Return the key."""
    del rng
    return key


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How far two kinds of secrets are apart."""

    t: float
    apart_ns: float


def keyed(keys: Sequence[str]) -> Find:
    """Return how the gateway finds a key."""
    hasher = Hasher(b"pepper of the test" * 2)
    records = [KeyRecord(name=key, digest=hasher.digest(key)) for key in keys]
    return KeyBook(hasher, records).find


def measure(
    one: Kind, other: Kind, samples: int, rng: random.Random, finder: Finder
) -> Found:
    """Time both kinds of secrets in random order."""
    keys = [new_secret() for _ in range(_KEYS)]
    find, clock = finder(keys), time.perf_counter_ns
    times: tuple[list[int], list[int]] = ([], [])
    for _ in range(0, samples, _BLOCK):
        made = [
            (which, kind(rng.choice(keys), rng))
            for _ in range(_BLOCK)
            for which, kind in enumerate((one, other))
        ]
        rng.shuffle(made)
        # Copied in this order, so that no kind has places of its own in memory.
        asked = [(which, secret.encode()) for which, secret in made]
        gc.disable()
        try:
            for which, blob in asked:
                secret = blob.decode()
                before = clock()
                find(secret)
                times[which].append(clock() - before)
        finally:
            gc.enable()
    return _welch(*times)


def _welch(one: Sequence[int], other: Sequence[int]) -> Found:
    most = sorted([*one, *other])[int(_KEPT * (len(one) + len(other)))]
    kept = [[ns for ns in times if ns <= most] for times in (one, other)]
    means = [statistics.fmean(times) for times in kept]
    error = math.sqrt(
        sum(
            statistics.fmean((ns - mean) ** 2 for ns in times) / len(times)
            for times, mean in zip(kept, means, strict=True)
        )
    )
    apart = means[0] - means[1]
    return Found(t=apart / error, apart_ns=apart)


def judged(
    one: Kind, other: Kind, samples: int, *, rounds: int = 3, finder: Finder = keyed
) -> Found:
    """Return the first round in which they take as long, else the last one.

    A secret that is slower is so in every round; a machine with other work is not.
    """
    found = measure(one, other, samples, random.Random(), finder)
    while abs(found.t) >= MOST_T and rounds > 1:
        found = measure(one, other, samples, random.Random(), finder)
        rounds -= 1
    return found


def main() -> int:
    """Print how far each kind is from unknown secrets; 1 where one of them tells."""
    samples = int(sys.argv[1]) if sys.argv[1:] else SAMPLES
    tells = False
    for kind in (unknown, near, known):
        found = judged(kind, unknown, samples, rounds=1 if kind is known else 3)
        print(
            f"{kind.__name__:8} and unknown: t = {found.t:+6.2f}, "
            f"{found.apart_ns:+5.1f} ns, over {samples:,} samples each"
        )
        tells = tells or (kind is not known and abs(found.t) >= MOST_T)
    return int(tells)


if __name__ == "__main__":
    sys.exit(main())
