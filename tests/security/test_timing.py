"""`make timing` would see a leak; what it says of our own keys is too fine for a test.

A difference of a nanosecond takes a million samples and a machine of one's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.security.timing import MOST_T, Find, judged, near, unknown

SAMPLES = 20_000


def _leaky(keys: Sequence[str]) -> Find:
    """Find a key by its characters, as nobody should."""
    tree: dict[str, object] = {}
    for key in keys:
        branch = tree
        for character in key:
            branch = branch.setdefault(character, {})  # type: ignore[assignment]

    def find(secret: str) -> object:
        branch = tree
        for character in secret:
            branch = branch.get(character)  # type: ignore[assignment]
            if branch is None:
                break
        return branch

    return find


def test_a_search_that_ends_at_the_first_wrong_character_would_be_seen() -> None:
    assert abs(judged(near, unknown, SAMPLES, finder=_leaky).t) >= MOST_T
