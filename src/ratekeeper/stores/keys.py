"""Which keys a store keeps: a bounded ring of them, gone round by a hand.

The one that holds the least of the next few is forgotten for a newcomer, and one that
is at its limit never is: forgetting it would forgive it. What that costs does not
depend on how many keys are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratekeeper.core.meter import Meter
    from ratekeeper.core.policy import Rule
    from ratekeeper.stores.journal import Journal


class NoRoom(StoreUnavailable):
    """A store holds as much as it may: of keys at their limits, or of calls that wait."""


Target = tuple["Scope", str]  # whose limits, and which key

_LOOK = 8  # keys looked at for the one that holds least
_LOOK_ON = 512  # keys looked at before all are taken to be at their limits


class Scope:
    """The limits that share a name, and their meters by key."""

    __slots__ = ("__weakref__", "learns", "name", "rows", "rules")

    def __init__(self, name: str, rules: Sequence[Rule]) -> None:
        self.name = name
        self.rules = list(rules)
        # Whether an answer has something to teach: each grant is then marked.
        self.learns = any(rule.learns for rule in rules)
        self.rows: dict[str, tuple[Meter, ...]] = {}


class Keys:
    """The keys of a store's scopes, at most so many."""

    def __init__(self, most: int, journal: Journal | None = None) -> None:
        if most < 1:
            msg = "max_keys: expected at least 1"
            raise ConfigError(msg)
        self._most = most
        self._journal = journal
        self._hand = 0
        self.kept: list[Target] = []

    def row(self, scope: Scope, key: str, now: int) -> tuple[Meter, ...]:
        """Return the meters of a key, made on first sight."""
        row = scope.rows.get(key)
        if row is None:
            if not isinstance(key, str):
                msg = f"key= is a string, not {type(key).__name__}"
                raise TypeError(msg)
            row = self._made(scope, key, now)
            if len(self.kept) < self._most:
                self.kept.append((scope, key))
            else:
                self.kept[self._forget_one(now)] = scope, key
            scope.rows[key] = row
        return row

    def look(self, scope: Scope, key: str, now: int) -> tuple[Meter, ...]:
        """Return the meters of a key, or such as it would have: none are kept."""
        row = scope.rows.get(key)
        return self._made(scope, key, now) if row is None else row

    def _made(self, scope: Scope, key: str, now: int) -> tuple[Meter, ...]:
        return tuple(self.meter(rule, scope, key, now) for rule in scope.rules)

    def meter(self, rule: Rule, scope: Scope, key: str, now: int) -> Meter:
        """Make the meter of one rule for a key, with what the journal has of it."""
        if self._journal is None or not scope.name or not rule.is_durable:
            return rule.meter(now)
        return rule.meter(now, self._journal.page(scope.name, key, rule.limit))

    def _forget_one(self, now: int) -> int:
        """Forget the key that holds least of the next few; never one at its limit.

        Returns its place in the ring.
        """
        best, least = -1, _BINDING
        for looked in range(1, min(_LOOK_ON, self._most) + 1):
            at = self._hand
            self._hand = (at + 1) % self._most
            scope, key = self.kept[at]
            row = scope.rows.get(key)
            held = 0.0 if row is None else _held(row, now)
            if held < least:
                best, least = at, held
            if least == 0.0 or (looked >= _LOOK and best >= 0):
                break
        if best < 0:
            raise self.no_room()
        scope, key = self.kept[best]
        scope.rows.pop(key, None)
        return best

    def no_room(self) -> NoRoom:
        """Say that there is no room for another key."""
        return NoRoom(
            f"the store holds {self._most} keys and those looked at are all at their "
            "limits: raise max_keys"
        )

    def clear(self) -> bool:
        """Forget all; says whether there was anything."""
        kept, self.kept = self.kept, []
        for scope, _ in kept:
            scope.rows.clear()
        self._hand = 0
        return bool(kept)


_BINDING = 2.0  # above any share of a limit


def _held(row: Sequence[Meter], now: int) -> float:
    """Return the largest share of a limit in use, or `_BINDING` for a key at one."""
    most = 0.0
    for meter in row:
        if meter.is_binding(now):
            return _BINDING
        used = meter.used(now)
        if used:
            most = max(most, used / (used + meter.remaining(now)))
    return most
